"""``relet prepare --check``: targets that match nothing that a command runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connections

from relet.backends.plans.matches import REPORT_VARIABLE

from ..support.engine import adapter

pytestmark = pytest.mark.skipif(
    bool(adapter().cannot_prepare()), reason="the engine cannot prepare statements"
)

SECRET = "4711kuckuck"
PROJECT = """
import json, os
from django.conf import settings

settings.configure(
    DATABASES=json.loads(os.environ["RELET_TEST_DATABASES"]),
    INSTALLED_APPS=["testapp"],
    USE_TZ=True,
)
import django

django.setup()

import relet
from django.db import connection

def run(sql, *params):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
"""
NO_MATCH = "it matches no statement that was run"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def check(tmp_path: Path, database: None) -> Run:
    template = connections["default"].settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "POOL_OPTIONS")
    settings = {name: template[name] for name in names if name in template}
    variables = {
        "RELET_TEST_DATABASES": json.dumps({"default": settings}),
        "PYTHONPATH": str(Path(__file__).parent),  # for the test app
    }
    program = (sys.executable, "-m", "relet.backends.cli", "prepare", "--check")

    def check(code: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "project.py").write_text(PROJECT + code)
        command = (*program, *options, "--", sys.executable, "project.py")
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return check


def test_targets_that_match(check: Run) -> None:
    """A queryset is run in one way; the others do not count. Lists may have any length."""
    result = check(
        """
from testapp.models import Item

relet.prepare("SELECT %s::int", name="one")
relet.prepare("SELECT 1 WHERE 1 IN (%s, %s)", name="list")
relet.prepare(Item.objects.filter(pk=0), name="item")
relet.prepare("SELECT %s::text", name="child")
run("SELECT %s::int", 1)
run("SELECT 1 WHERE 1 IN (%s, %s, %s)", 1, 2, 3)
Item.objects.filter(pk=1).first()
connection.close()
if os.fork() == 0:
    run("SELECT %s::text", "a")
    os._exit(0)
os.wait()
""",
        "--json",
        "report.json",
    )
    assert result.returncode == 0, result.stderr
    assert "relet prepare: all 4 targets match a statement that was run." in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_targets_that_match_nothing(check: Run, tmp_path: Path) -> None:
    result = check(
        f"""
relet.prepare("SELECT %s::int", name="used")
relet.prepare("SELECT %s::int AS old, '{SECRET}'", name="left behind")
relet.prepare("SELECT 2")
run("SELECT %s::int", 4711)
run("SELECT %s::int AS new", 4711)
""",
        "--json",
        "report.json",
    )
    assert result.returncode == 1
    assert "relet prepare: 2 of 3 targets are of no use to what was run:" in result.stderr
    assert f"DATABASES['default'], target 'left behind': {NO_MATCH}." in result.stderr
    assert "'used'" not in result.stderr
    text = (tmp_path / "report.json").read_text()
    rows = {row["name"]: row for row in json.loads(text)["targets"]}
    assert rows["used"]["matched"] and not rows["left behind"]["matched"]
    assert SECRET not in result.stderr + text
    assert "4711" not in result.stderr + text


@pytest.mark.slow
def test_a_target_that_cannot_be_prepared(check: Run) -> None:
    """The server, and not relet, finds that it is none."""
    result = check(
        """
relet.prepare("SELECT now() - INTERVAL %s", name="interval")
run("SELECT now() - INTERVAL %s", "1 day")
"""
    )
    assert result.returncode == 1
    assert "target 'interval': not prepared: the server refuses to prepare it" in result.stderr


@pytest.mark.slow
def test_exit_codes(check: Run) -> None:
    failed = check("relet.prepare('SELECT 1')\nraise SystemExit(7)")
    assert failed.returncode == 7
    assert NO_MATCH in failed.stderr
    nothing = check("")
    assert nothing.returncode == 1
    assert "called relet.prepare()" in nothing.stderr
    program = (sys.executable, "-m", "relet.backends.cli", "prepare")
    for arguments, said in {
        ("--check", "--", "relet-no-such-command"): "cannot run 'relet-no-such-command'",
        ("--check",): "prepare: no command to run; write it after --",
        ("--", "true"): "the following arguments are required: --check",
    }.items():
        result = subprocess.run((*program, *arguments), capture_output=True, text=True, timeout=60)
        assert result.returncode == (127 if "--" in arguments and "--check" in arguments else 2)
        assert said in result.stderr


def test_nothing_is_written_unless_it_is_asked_for(db, tmp_path: Path, monkeypatch) -> None:
    import relet
    from relet.backends.plans import declared

    monkeypatch.setattr(declared, "_targets", {})
    monkeypatch.setenv(REPORT_VARIABLE, str(tmp_path / "gone"))
    relet.prepare("SELECT 3")  # the folder has gone
    monkeypatch.delenv(REPORT_VARIABLE)
    relet.prepare("SELECT 4")
    assert not any(tmp_path.iterdir())
    db.close_pool()
