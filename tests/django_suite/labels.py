"""Which of Django's tests concern databases."""

from __future__ import annotations

import re
from pathlib import Path

_NAMES = re.compile(
    r"\b(connections?|transaction|TransactionTestCase|skipUnlessDBFeature|skipIfDBFeature)\b"
)


def database_labels(tests: Path) -> list[str]:
    """Return the packages below *tests* that use connections or transactions themselves.

    What only goes through models, such as most of the admin's, is left to ``--all``.
    """
    return sorted(
        package.parent.name
        for package in tests.glob("*/__init__.py")
        if package.parent.name != "gis_tests"  # aborts where there is no PostGIS
        and any(
            re.search(rf"^from django\.(db|test)\S* import .*{_NAMES.pattern}", text, re.MULTILINE)
            for path in package.parent.rglob("*.py")
            for text in [path.read_text(encoding="utf-8")]
        )
    )
