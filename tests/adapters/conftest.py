"""Where the adapters' own tests connect to, and which are left out for want of a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relet.core import registry

from ..support.dsn import parameters_for

#: File -> what is missing.
_LEFT_OUT = {
    f"test_{name}.py": missing
    for name, spec in registry.specs().items()
    if (missing := registry.missing(spec))
}
collect_ignore = [name for name in _LEFT_OUT if (Path(__file__).parent / name).exists()]


def pytest_report_header() -> list[str]:
    return [
        f"left out: {name}, which needs {', '.join(_LEFT_OUT[name])}" for name in collect_ignore
    ]


@pytest.fixture
def parameters(server: dict[str, Any]) -> dict[str, str]:
    """Keyword arguments of a driver's ``connect()``, in libpq's words."""
    return parameters_for(server)
