from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The repo, or an unpacked sdist."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def files(root: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The project's files: what git tracks, or would after ``git add --all``."""
    if shutil.which("git") is None:
        pytest.skip("needs git, which knows what .gitignore ignores")
    git = ["git", "-C", str(root)]
    if not (root / ".git").exists():
        empty = tmp_path_factory.mktemp("git")
        subprocess.run(["git", "init", "--quiet", "--bare", str(empty)], check=True)
        git += ["--git-dir", str(empty), "--work-tree", str(root)]
    command = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (root / name).exists()}
