"""What the pages say of settings, errors and files is what the code has."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from relet.backends.config.observe import Observe
from relet.core import ReleasePolicy

ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| ", re.MULTILINE)
#: Texts that other programs write, not relet.
OTHERS = {
    "the connection is closed",
    "server closed the connection unexpectedly",
    "terminating connection",
    "too many clients",
    "cannot execute",
    "in a read-only transaction",
    "isn't an available database backend",
}


def section(root: Path, page: str, title: str) -> str:
    """Return what *page* says below the heading *title*, up to the next heading."""
    text = (root / "docs" / page).read_text()
    return re.split(r"^#{2,3} ", text.partition(f"{title}\n")[2], flags=re.MULTILINE)[0]


def defaults(text: str) -> dict[str, str]:
    """Return key -> its default, of the table in *text*."""
    return {key: default.strip("`").partition(",")[0] for key, default in ROW.findall(text)}


def shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value}".removesuffix(".0")


def test_defaults_of_the_policy(root: Path) -> None:
    said = defaults(section(root, "settings.md", '## `OPTIONS["policy"]`'))
    assert said == {field.name: shown(field.default) for field in dataclasses.fields(ReleasePolicy)}


def test_defaults_of_observation(root: Path) -> None:
    said = defaults(section(root, "settings.md", '## `OPTIONS["observe"]`'))
    assert said == {name: shown(default) for name, default in Observe._field_defaults.items()}


def test_defaults_of_psycopgs_pool(root: Path) -> None:
    pool = pytest.importorskip("psycopg_pool").ConnectionPool
    said = defaults(section(root, "settings.md", "### With `relet.backends.psycopg`"))
    known = inspect.signature(pool).parameters
    # None is min_size.
    assert said.pop("max_size") == "min_size"
    assert known["max_size"].default is None
    assert said == {name: shown(known[name].default) for name in said}
    assert {"min_size": "4", "timeout": "30"}.items() <= said.items()


def test_defaults_of_sqlalchemys_pool(root: Path) -> None:
    pool: Any = pytest.importorskip("sqlalchemy.pool")
    title = "### With `relet.backends.sqlalchemy` and `relet.backends.pg8000`"
    said = defaults(section(root, "settings.md", title))
    known = {
        name: parameter
        for kind in (pool.Pool, pool.QueuePool)
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    del said["class"]
    assert len(said) > 5
    assert said == {name: shown(known[name].default) for name in said}


def test_errors_of_the_troubleshooting_page_are_raised(root: Path) -> None:
    """Each text, without what varies in it, is one of relet's, or known to be another's."""
    table = (root / "docs" / "troubleshooting.md").read_text().partition("## By the text")[2]
    cells = [cell for cell in re.findall(r"^\| (.*?) \| ", table, re.MULTILINE) if "`" in cell]
    texts = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    sources = " ".join(
        path.read_text()
        for part in ("core", "adapters", "backends")
        for path in (root / part).rglob("*.py")
    )
    # Strings are written in parts, and with values in them.
    joined = re.sub(r'"\s*f?"', "", sources)
    parts = [part.strip(" :.") for text in texts for part in text.split("...")]
    unknown = [part for part in parts if part and part not in joined and part not in OTHERS]
    assert len(parts) > 12
    assert unknown == []


#: What reads as if translated, and what to write instead; see also CONTRIBUTING.md, "Rules".
NOT_ENGLISH = {
    r"\bin vain\b": "times out",
    r"\bfor ever\b": "would deadlock; forever",
    r"\bwhat there is\b": "which exist",
    r", for (it|they|this|psycopg2?) \w+s\b": "because",
    r"\bfor want of\b": "without",
    r"\bunawares\b": "say who does what",
}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs"])
def test_language(root: Path, page: str) -> None:
    paths = sorted((root / page).glob("*.md")) if page == "docs" else [root / page]
    found = [
        (path.name, match.group(), rather)
        for path in paths
        for pattern, rather in NOT_ENGLISH.items()
        for match in re.finditer(pattern, path.read_text())
    ]
    assert found == []
