"""The repo's shape: what is at the top, and which layer imports what."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

PACKAGES = ("core", "adapters", "backends", "dashboard")
TOP_LEVEL = {
    *PACKAGES,
    "tests",
    "docs",
    "examples",
    "benchmarks",
    "pyproject.toml",
    "noxfile.py",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
}


def test_nothing_unexpected_at_the_top(files: set[str]) -> None:
    top = {name.split("/")[0] for name in files}
    assert not {name for name in top - TOP_LEVEL if not name.startswith(".")} - {"PKG-INFO"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_second_copy(package: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(package)


def test_relet_is_a_module_that_imports_nothing() -> None:
    # settings.py imports from it, and Django's own tools ask where it is.
    assert importlib.import_module("relet").__file__ is not None
    code = (
        "import sys, relet; print(relet.__version__, "
        "[m for m in sys.modules if m.partition('.')[0] in ('django', 'psycopg')], "
        "[m for m in sys.modules if m.startswith('relet.')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == f"{version('relet')} [] []\n", result.stderr


def test_relets_public_names() -> None:
    relet = importlib.import_module("relet")
    assert set(relet.__all__) <= set(dir(relet))
    for name in relet.__all__:
        assert getattr(relet, name)
    with pytest.raises(AttributeError, match="'relet' has no attribute 'nothing'"):
        _ = relet.nothing


@pytest.mark.parametrize("name", ["close_all", "hold", "policies"])
def test_names_that_have_moved_from_core(name: str) -> None:
    core, relet = importlib.import_module("relet.core"), importlib.import_module("relet")
    with pytest.warns(DeprecationWarning, match=f"use relet.{name}"):
        assert getattr(core, name) is getattr(relet, name)


def test_layers(root: Path) -> None:
    # In a process of its own, for it disables every logger that there is.
    script = (
        f"sys.exit(lint_imports({str(root / 'pyproject.toml')!r}, no_cache=True, no_logo=True))"
    )
    code = f"import sys; from importlinter.cli import lint_imports; {script}"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_dev_links_point_to_the_packages(package: str, root: Path) -> None:
    link = root / ".dev" / "relet" / package
    if not (root / ".git").exists() and not link.exists():
        pytest.skip("an unpacked sdist has no .dev/relet; `pip install -e` makes it")
    assert link.resolve() == root / package


def test_core_needs_no_django() -> None:
    # What import-linter cannot see: an import by name, at run time.
    code = "import sys, relet.core; print([m for m in ('django', 'psycopg') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_slow_tests_are_in_the_gate(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's command leaves them out, so that `newest` must not leave out their files."""
    monkeypatch.chdir(root)
    spec = importlib.util.spec_from_file_location("noxfile", root / "noxfile.py")
    assert spec is not None and spec.loader is not None
    noxfile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(noxfile)
    assert set(noxfile.OF_ENGINES) < set(noxfile.SLOW_AT_THE_END)
    assert all((root / "tests" / path).exists() for path in noxfile.SLOW_AT_THE_END)
    left_out = [root / "tests" / path for path in noxfile.OF_README]
    assert all(path.is_file() for path in left_out)
    marked = "mark" + ".slow"
    assert [path.name for path in left_out if marked in path.read_text(encoding="utf-8")] == []
