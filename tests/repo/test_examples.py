"""The example of an adapter plugin is what it says: a stranger's, complete, and passing."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def example(root: Path) -> Path:
    return root / "examples" / "relet-stack"


@pytest.fixture(scope="module")
def installed(example: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the distribution beside the others; return the environment that has it."""
    target = tmp_path_factory.mktemp("installed")
    copy = tmp_path_factory.mktemp("source") / example.name
    subprocess.run(["cp", "-R", str(example), str(copy)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(copy)], check=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_relet_lists_it(installed: dict[str, str]) -> None:
    rows = run(["-m", "relet.backends.cli", "adapters"], installed).splitlines()
    assert ["stack", "relet.backends.stack", "ready"] in [row.split() for row in rows]


@pytest.mark.slow
def test_its_engine_is_there(installed: dict[str, str]) -> None:
    code = (
        "from django.db.utils import load_backend as load\n"
        "print(load('relet.backends.stack').DatabaseWrapper.adapter_class.__module__)"
    )
    assert run(["-c", code], installed).strip() == "relet_stack.adapter"


@pytest.mark.slow
def test_its_tests_pass(example: Path, installed: dict[str, str], server_uri: str) -> None:
    # Not with relet's own configuration of pytest.
    command = ["-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(example), str(example)]
    told = run([*command, "-p", "no:cacheprovider"], {**installed, "RELET_TEST_DSN": server_uri})
    assert re.search(r"\b6 passed\b", told)


@pytest.fixture(scope="module")
def begun(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin that somebody begins with the template."""
    folder = tmp_path_factory.mktemp("begun")
    command = [str(root / "examples" / "new_adapter.py"), "my_pool", str(folder)]
    assert run(command, {**os.environ}) == f"written: {folder / 'relet-my_pool'}\n"
    return folder / "relet-my_pool"


@pytest.mark.slow
def test_a_plugin_from_the_template_works(begun: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path), str(begun)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = (
        "from django.db.utils import load_backend as load\n"
        "print(load('relet.backends.my_pool').DatabaseWrapper.adapter_class.__qualname__)"
    )
    assert run(["-c", code], environment).strip() == "MyPoolAdapter"
    for test in sorted((begun / "tests").glob("*.py")):
        compile(test.read_text(), str(test), "exec")


def test_a_plugin_from_the_template_has_its_own_names(begun: Path) -> None:
    texts = [
        path.read_text() for path in begun.rglob("*") if path.suffix in (".py", ".toml", ".md")
    ]
    names = ("relet_stack", "relet-stack", "StackPool", "StackAdapter", '"stack"', "backends.stack")
    assert len(texts) > 6
    assert [name for name in names if any(name in text for text in texts)] == []


def test_the_template_refuses_what_is_no_name(root: Path, begun: Path) -> None:
    script = str(root / "examples" / "new_adapter.py")
    for name in ("My-Pool", "stack", "my_pool"):
        done = subprocess.run(
            [sys.executable, script, name, str(begun.parent)], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (1, ""), name


def imported_from_relet(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "relet":
            for name in node.names:
                yield name.name if node.module == "relet.core" else f"{node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("relet."))


def test_it_imports_only_what_is_in_the_reference(root: Path, example: Path) -> None:
    reference = (root / "docs" / "api.md").read_text()
    public = set(re.findall(r"^\.\. (?:auto)?\w+:: (\S+)$", reference, re.MULTILINE))
    names = {name for path in example.rglob("*.py") for name in imported_from_relet(path)}
    assert len(names) > 5
    assert names - public == set()


def test_the_page_is_made_from_it(root: Path, example: Path) -> None:
    page = (root / "docs" / "writing-an-adapter.md").read_text()
    included = set(re.findall(r"\{literalinclude\} \.\./examples/relet-stack/(\S+)", page))
    sources = {str(path.relative_to(example)) for path in example.rglob("*.py")}
    assert {"src/relet_stack/pool.py", "src/relet_stack/adapter.py"} < included
    assert included <= {*sources, "pyproject.toml"}


def test_the_page_has_each_rule_of_the_kit(root: Path) -> None:
    from relet.adapters.conformance.rule import RULES

    page = (root / "docs" / "writing-an-adapter.md").read_text()
    rules = re.findall(r"^\| (\w[\w ]*) \| (\S.*) \|$", page.replace("`", ""), re.MULTILINE)
    assert rules == [(rule.name, rule.text.replace("`", "")) for rule in RULES]
