"""The tutorial works: its files, its commands, and what it says that they print."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gunicorn")

#: The start of the commands that set a machine up; here, it is.
SET_UP = ("python3 -m venv", "python -m pip", "mkdir shop-tutorial", "createdb")
BLOCK = re.compile(r"^```(python|shell|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8000"


@pytest.fixture
def address() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def environment(server_uri: str) -> Iterator[dict[str, str]]:
    """What a shell has in which `createdb shop` works, after that."""
    import psycopg

    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS shop")
        connection.execute("CREATE DATABASE shop")
        known = connection.info.get_parameters()
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER"}
        variables = {names[key]: value for key, value in known.items() if key in names}
        if connection.info.password:
            variables["PGPASSWORD"] = connection.info.password
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        yield {**os.environ, **variables, "PATH": path}
        connection.execute("DROP DATABASE IF EXISTS test_shop WITH (FORCE)")
        connection.execute("DROP DATABASE shop WITH (FORCE)")


def write(project: Path, text: str) -> None:
    """Do with a block of Python what its first line says: a file, or what one of its names is."""
    where, _, name = text.partition("\n")[0].removeprefix("# ").partition(": ")
    path = project / where
    if not name:
        path.write_text(text)
        return
    lines = path.read_text().splitlines(keepends=True)
    (node,) = (each for each in ast.parse("".join(lines)).body if name in names(each))
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
    lines[first - 1 : node.end_lineno] = [text.partition("\n")[2]]
    path.write_text("".join(lines))


def names(node: ast.stmt) -> set[str]:
    """Return the names that *node* defines."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else ()
    return {target.id for target in targets if isinstance(target, ast.Name)}


def without_numbers(text: str) -> str:
    """Return *text*, in which all numbers are the same; neither units nor blanks count."""
    squeezed = re.sub(r"[ ]*\b\d[\d.]*( m?s\b)?[ ]*", " N ", text.strip())
    return re.sub(r" +", " ", squeezed)


def is_as_said(printed: str, said: str) -> bool:
    """Whether a command has *printed* what the page says; there, ``...`` is any further lines."""
    pattern = re.escape(without_numbers(said)).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, without_numbers(printed), re.DOTALL) is not None


def run(project: Path, commands: str, environment: dict[str, str]) -> str:
    """Run *commands* as a shell does that ends at the first failure; return what they print."""
    output = project.parent / "output.txt"
    # A file, since gunicorn keeps its stdout open when it has gone to the background.
    with output.open("w") as file:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=project,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
    printed = output.read_text()
    assert done.returncode == 0, f"{commands}\n{printed}"
    return printed


def stop(project: Path) -> None:
    """Stop the shop if a failure has left it running."""
    if (pid := project / "shop.pid").exists():
        subprocess.run(["kill", pid.read_text().strip()], check=False)


@pytest.mark.slow
def test_each_step(root: Path, tmp_path: Path, address: str, environment: dict[str, str]) -> None:
    page = (root / "docs" / "tutorial.md").read_text().replace(ADDRESS, address)
    project = tmp_path / "shop-tutorial"
    project.mkdir()
    sessions, printed = [], ""
    try:
        for language, text in BLOCK.findall(page):
            if language == "python":
                write(project, text)
            elif language == "text":
                assert is_as_said(printed, text), printed
            else:
                lines = [line for line in text.splitlines() if not line.startswith(SET_UP)]
                printed = run(project, "\n".join(lines), environment)
                sessions += [int(count) for count in re.findall(r"(\d+) sessions on", printed)]
    finally:
        stop(project)
    persistent, *pooled = sessions
    assert persistent > 8
    assert pooled == [4, 4, 4, 4]
