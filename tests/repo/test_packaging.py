"""The wheel and the sdist have what they should, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from relet.adapters import relet_adapters

PACKAGES = ("core", "adapters", "backends", "dashboard")


def build(source: Path, target: Path, *arguments: str) -> None:
    # With hatchling itself, not through pip: no network, and no environment to make.
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target), *arguments]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def dist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a wheel and an sdist; ``RELET_TEST_DIST`` names one that is there."""
    if built := os.environ.get("RELET_TEST_DIST"):
        return Path(built).absolute()
    directory = tmp_path_factory.mktemp("dist")
    build(root, directory)
    return directory


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def unpacked(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = dist.glob("*.tar.gz")
    directory = tmp_path_factory.mktemp("sdist")
    with tarfile.open(path) as archive:
        # Absent from the first releases of 3.10 and 3.11; later ones warn without.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(directory)
    (top,) = directory.iterdir()
    return top


def modules(archive: zipfile.ZipFile) -> set[str]:
    return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_has_the_four_packages_and_nothing_else(
    wheel: zipfile.ZipFile, files: set[str]
) -> None:
    packages = {f"relet/{name}" for name in files if name.split("/")[0] in PACKAGES}
    own = {"__init__.py", "debug_toolbar.py", "metrics.py", "py.typed", "pytest_plugin.py"}
    assert modules(wheel) == packages | {f"relet/{name}" for name in own}


def test_relet_and_its_packages_are_modules(wheel: zipfile.ZipFile) -> None:
    assert {f"relet/{package}/__init__.py" for package in PACKAGES} <= modules(wheel)


def test_each_package_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"relet/{package}/py.typed" for package in PACKAGES} <= modules(wheel)


def test_wheel_has_its_entry_points(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(name).decode()
    assert "relet = relet.backends.cli:main" in text
    assert "[relet]\nbuiltin = relet.adapters" in text
    assert "[pytest11]\nrelet = relet.pytest_plugin" in text


def test_wheel_has_its_licence_and_readme(
    wheel: zipfile.ZipFile, metadata: Message, root: Path
) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/licenses/LICENSE"))
    assert wheel.read(name).decode() == (root / "LICENSE").read_text()
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_payload().strip() == (root / "README.md").read_text().strip()


def test_extras_of_the_metadata(metadata: Message) -> None:
    extras = set(metadata.get_all("Provides-Extra"))
    # Metadata has names normalised; pip takes either spelling.
    assert {"psycopg", "sqlalchemy", "dj-db-conn-pool", "pg8000", "demo", "testing"} <= extras


def test_python_versions_agree(metadata: Message) -> None:
    versions = [
        tuple(map(int, match.group(1).split(".")))
        for classifier in metadata.get_all("Classifier")
        if (match := re.fullmatch(r"Programming Language :: Python :: (\d+\.\d+)", classifier))
    ]
    assert versions == sorted(versions)
    assert metadata["Requires-Python"] == ">={}.{}".format(*versions[0])


def test_sdist_has_everything(unpacked: Path, files: set[str]) -> None:
    packed = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
    missing = {name for name in files if name not in packed and not name.startswith(".dev/relet/")}
    assert not missing


def test_sdist_builds_the_same_wheel(
    unpacked: Path, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    build(unpacked, tmp_path, "--target", "wheel")
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        assert modules(archive) == modules(wheel)


def test_sdist_can_be_installed_editable(unpacked: Path, tmp_path: Path) -> None:
    build(unpacked, tmp_path, "--target", "wheel:editable")
    for package in PACKAGES:
        link = unpacked / ".dev" / "relet" / package
        assert link.resolve() == (unpacked / package).resolve()


def test_the_extras_bring_what_the_adapters_require(metadata: Message) -> None:
    """Each in the version that the registry asks for."""
    modules = {"django_db_connection_pool": "dj_db_conn_pool"}
    extras: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist", []):
        pattern = r"""([\w-]+)(?:\[[\w,]*\])?([<>=\d.,]+) *; *extra == ['"]([\w-]+)['"]"""
        if match := re.fullmatch(pattern, line):
            module = match[1].replace("-", "_")
            # The metadata has "<" first.
            versions = ",".join(sorted(match[2].split(","), reverse=True))
            required = f"{modules.get(module, module)}{versions}"
            extras.setdefault(match[3].replace("-", "_"), set()).add(required)
    for spec in relet_adapters():
        first = {entry if isinstance(entry, str) else entry[0] for entry in spec.requires}
        assert extras[spec.name] == first
        assert spec.install == f"relet[{spec.name}]"
