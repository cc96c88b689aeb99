"""The docs name what there is, and what they say to type is what CI runs."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import nox
import pytest

import relet.backends
import relet.core
from relet.backends.config.observe import Observe
from relet.core import ReleasePolicy, hookspecs, registry

DATABASE_SETTINGS = ("ENGINE", "OPTIONS", "CONN_MAX_AGE", "CONN_HEALTH_CHECKS")


@pytest.fixture(scope="module")
def pages(root: Path) -> str:
    return "\n".join(page.read_text() for page in sorted((root / "docs").glob("*.md")))


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


def names_of_core() -> list[str]:
    return relet.core.__all__


@pytest.mark.parametrize("name", names_of_core())
def test_public_name_of_core_is_documented(name: str, pages: str) -> None:
    assert re.search(rf"\b{name}\b", pages)


@pytest.mark.parametrize("name", names_of_core())
def test_public_name_of_core_is_in_the_reference(name: str, root: Path) -> None:
    reference = (root / "docs" / "api.md").read_text()
    assert re.search(rf"^\.\. (auto)?\w+:: {name}$", reference, re.MULTILINE)


@pytest.mark.parametrize("name", relet.backends.__all__)
def test_public_name_of_backends_is_documented(name: str, pages: str) -> None:
    assert f"relet.backends.{name}" in pages


def test_hooks_are_documented(pages: str) -> None:
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "relet_spec")]
    assert hooks
    assert [hook for hook in hooks if f"`{hook}`" not in pages] == []


def test_settings_are_documented(root: Path) -> None:
    page = (root / "docs" / "settings.md").read_text()
    policy = [field.name for field in dataclasses.fields(ReleasePolicy)]
    observe = list(Observe._fields)
    options = [f'OPTIONS["{key}"]' for key in ("pool", "policy", "observe")]
    names = [*DATABASE_SETTINGS, *policy, *observe, *options]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_release_modes_are_documented(root: Path) -> None:
    page = (root / "docs" / "settings.md").read_text()
    modes = relet.core.lease.TABLES
    assert [mode for mode in modes if f'`"{mode}"`' not in page] == []


def test_each_package_whose_tests_run_is_on_its_page(root: Path) -> None:
    packages = nox.project.load_toml(root / "tests" / "others" / "packages.toml")
    page = (root / "docs" / "other-packages.md").read_text()
    assert len(packages) > 1
    for name, package in packages.items():
        assert package["passes"] > 0, name
        assert f"| {name} | {package['version']} | {package['passes']} |" in page


def test_check_ids_are_documented(root: Path) -> None:
    check_id = re.compile(r"\brelet\.[EW]\d{3}\b")
    folders = ("backends", "dashboard")
    sources = [path.read_text() for name in folders for path in sorted((root / name).rglob("*.py"))]
    used = set(check_id.findall("\n".join(sources)))
    assert used
    assert used == set(check_id.findall((root / "docs" / "errors.md").read_text()))


def test_adapters_are_documented(pages: str) -> None:
    ours = [spec for spec in registry.specs().values() if spec.adapter.startswith("relet.")]
    assert ours
    names = [name for spec in ours for name in (spec.name, *spec.aliases)]
    assert [name for name in names if f"relet.backends.{name}" not in pages] == []


def test_lease_states_are_current(root: Path) -> None:
    command = [sys.executable, str(root / "docs" / "lease_states.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_ci_runs_the_test_command_of_the_readme(root: Path, readme: str) -> None:
    command = ["bash", str(root / ".ci" / "run"), "--readme"]
    extracted = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert "pip install -e '.[dev]'" in extracted
    assert f"\n```shell\n{extracted}\n```\n" in readme
    assert extracted in (root / "docs" / "testing.md").read_text()


def test_each_command_of_the_readme_is_one_line(readme: str) -> None:
    blocks = re.findall(r"^```shell\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert [block for block in blocks if block.count("\n") != 1] == []
    assert blocks[0].endswith(" && .venv/bin/relet demo\n")
    # What is typed where relet is installed from an index.
    installed = re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert [block for block in installed if block.count("\n") != 1] == []
    assert installed[0].endswith(" && relet demo\n")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs"])
def test_links_lead_somewhere(page: str, root: Path) -> None:
    pages = sorted((root / page).glob("*.md")) if page == "docs" else [root / page]
    broken = [
        (path.name, target)
        for path in pages
        for target in re.findall(r"\]\(([^)#]+)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


def addresses(root: Path) -> dict[str, str]:
    """The project's addresses, from its metadata."""
    urls: dict[str, str] = nox.project.load_toml(root / "pyproject.toml")["project"]["urls"]
    return urls


def test_the_readme_has_no_relative_links(readme: str) -> None:
    """On PyPI they would lead nowhere."""
    targets = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith("https://")] == []


def test_absolute_links_lead_to_pages_and_files_that_are_there(readme: str, root: Path) -> None:
    urls = addresses(root)
    site, files = urls["Documentation"], f"{urls['Source']}/blob/main/"
    texts = readme + (root / "docs" / "support.md").read_text()
    ours = re.findall(r"https://(?:relet\.readthedocs\.io|github\.com/relet)[^)\s]*", texts)
    assert len(ours) > 10
    for url in ours:
        page = url.partition("#")[0]
        if page.startswith(site):
            name = page.removeprefix(site) or "index.html"
            source = re.sub(r"\.html$", ".md", name)
            assert (root / "docs" / source).exists(), url
        else:
            assert page.startswith(files), url
            assert (root / page.removeprefix(files)).exists(), url


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_figures_are_filled_in(page: str, root: Path) -> None:
    assert "FIGURE" not in (root / page).read_text()


def is_proof(tests: Path, name: str) -> bool:
    """Whether there are tests of that *name*: a file with some, Django's own, or the kit."""
    if name in ("the kit", "django_suite/run.py"):
        return True
    return (tests / name).is_file() and "def test_" in (tests / name).read_text()


def test_each_invariant_has_tests(root: Path) -> None:
    page = (root / "docs" / "invariants.md").read_text()
    proofs = {
        number: [part.strip("` ") for part in cell.split(",")]
        for number, cell in re.findall(r"^\| (I\d+) \|.*\| (.*) \|$", page, re.MULTILINE)
    }
    assert [*proofs] == [f"I{n}" for n in range(1, 19)]
    for number, named in proofs.items():
        assert [name for name in named if not is_proof(root / "tests", name)] == [], number


def test_each_number_of_an_invariant_in_the_tests_is_one(root: Path) -> None:
    page = (root / "docs" / "invariants.md").read_text()
    known = set(re.findall(r"^\| (I\d+) \|", page, re.MULTILINE))
    used = {
        f"I{number}"
        for path in (root / "tests").rglob("test_*.py")
        for number in re.findall(r"\bI(\d+)\b(?=[:,])|\btest_i(\d+)_", path.read_text())
        for number in number
        if number
    }
    assert used <= known
