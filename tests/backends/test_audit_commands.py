"""``relet audit`` and the pytest plugin: what processes find reaches the one that reports it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

SECRET = "4711kuckuck"

SETUP = """
import json, os
from django.conf import settings

settings.configure(DATABASES=json.loads(os.environ["RELET_TEST_DATABASES"]), USE_TZ=True)
import django

django.setup()

from relet.core.catalogue.closure import Closure
from relet.core.catalogue.names import Catalogue

# The catalogue says nothing of these calls.
Closure.relate = lambda closure, relations: Catalogue()
"""

CALL = """
from django.db import connection

def call(sql="SELECT relet_unseen(%s)", params=("{secret}",)):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
""".replace("{secret}", SECRET)

TESTS = (
    CALL
    + """
from django.test import TestCase, TransactionTestCase

class TestInTransaction(TestCase):
    databases = "__all__"

    def test_setting(self):
        call()

class TestPlainly(TransactionTestCase):
    databases = "__all__"
    available_apps = []

    def test_lock(self):
        call("SELECT relet_unseen_lock(%s)")

    def test_nothing(self):
        call("SELECT %s")
"""
)

FIXTURE = (
    CALL
    + """
def test_it_fails(session_state_audit):
    call()

def test_it_passes(session_state_audit):
    call("SELECT %s")

def test_it_tells(session_state_audit):
    call()
    (row,) = session_state_audit.rows
    assert (row.kind, row.name) == ("setting", "relet_app.tenant")
    session_state_audit.clear()

def test_without():
    call()
"""
)


@pytest.fixture
def project(tmp_path: Path, observer: Any) -> Iterator[Path]:
    for name, body in {
        "relet_unseen": "PERFORM set_config('relet_app.tenant', secret, false);",
        "relet_unseen_lock": "PERFORM pg_advisory_lock(hashtext(secret));",
    }.items():
        observer.execute(
            f"CREATE OR REPLACE FUNCTION {name}(secret text) RETURNS int LANGUAGE plpgsql "
            f"AS $$ BEGIN {body} RETURN 1; END $$"
        )
    (tmp_path / "conftest.py").write_text(SETUP)
    (tmp_path / "once.py").write_text(SETUP + CALL + "\ncall()\n")
    (tmp_path / "test_project.py").write_text(TESTS)
    (tmp_path / "test_fixture.py").write_text(FIXTURE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    yield tmp_path
    observer.execute("DROP FUNCTION relet_unseen(text), relet_unseen_lock(text)")


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(project: Path) -> Run:
    template = connections["default"].settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "POOL_OPTIONS")
    settings = {name: template[name] for name in names if name in template}
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "RELET_SESSION", "COV_"))
    }
    environment["RELET_TEST_DATABASES"] = json.dumps({"default": settings})

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=120
        )

    return run


AUDIT = (sys.executable, "-m", "relet.backends.cli", "audit")
#: Where relet was installed before it had the plugin, pytest does not know it.
_INSTALLED = "relet" in {found.name for found in entry_points(group="pytest11")}
#: That of Hypothesis takes longer to import than Django.
_NONE_OF = ("cacheprovider", "hypothesispytest")
PYTEST = (
    *(sys.executable, "-m", "pytest", *(f"-pno:{name}" for name in _NONE_OF)),
    *(() if _INSTALLED else ("-p", "relet.pytest_plugin")),
)


def test_a_command(run: Run, project: Path) -> None:
    result = run(*AUDIT, "--json", "report.json", "--", sys.executable, "once.py")
    assert result.returncode == 0, result.stderr
    assert "relet audit: 1 statement on 'default'" in result.stderr
    assert "setting (relet_app.tenant): SELECT relet_unseen(%s)" in result.stderr
    assert "once.py:" in result.stderr
    assert result.stdout == ""
    text = (project / "report.json").read_text()
    report = json.loads(text)
    (row,) = report["rows"]
    assert row["sql"] == "SELECT relet_unseen(%s)"
    assert row["sure"] is True
    assert [*report["audited"]] == ["default"]
    assert SECRET not in result.stderr + text


@pytest.mark.slow
def test_children_are_audited(run: Run) -> None:
    code = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, 'once.py']))"
    result = run(*AUDIT, "--fail-on", "sure", "--", sys.executable, "-c", code)
    assert result.returncode == 1
    assert "SELECT relet_unseen(%s)" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_forked_children_are_audited_even_if_they_are_killed(run: Run, project: Path) -> None:
    (project / "forks.py").write_text(
        SETUP
        + CALL
        + "\ncall('SELECT %s')\nimport signal\nif os.fork() == 0:\n    call()\n"
        + "    os.kill(os.getpid(), signal.SIGKILL)\nos.wait()\n"
    )
    result = run(*AUDIT, "--", sys.executable, "forks.py")
    assert result.returncode == 0, result.stderr
    assert "SELECT relet_unseen(%s)" in result.stderr


@pytest.mark.slow
def test_nothing_found_and_nothing_audited(run: Run, project: Path) -> None:
    (project / "fine.py").write_text(SETUP + CALL + "\ncall('SELECT %s')\n")
    result = run(*AUDIT, "--fail-on", "any", "--", sys.executable, "fine.py")
    assert result.returncode == 0, result.stderr
    assert "relet audit: relet saw all session state on 'default'" in result.stderr
    result = run(*AUDIT, "--", sys.executable, "-c", "pass")
    assert "No lease was audited" in result.stderr


@pytest.mark.slow
def test_exit_codes(run: Run) -> None:
    assert run(*AUDIT, "--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    killed = "import os; os.kill(os.getpid(), 9)"
    assert run(*AUDIT, "--", sys.executable, "-c", killed).returncode == 128 + 9
    missing = run(*AUDIT, "--", "relet-no-such-command")
    assert missing.returncode == 127
    assert "cannot run 'relet-no-such-command'" in missing.stderr
    nothing = run(*AUDIT)
    assert nothing.returncode == 2
    assert "no command to run" in nothing.stderr


@pytest.mark.slow
def test_signals_reach_the_command_and_the_report_is_printed(run: Run, project: Path) -> None:
    (project / "waits.py").write_text(
        SETUP
        + CALL
        + "\ncall()\nimport signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        + "print('ready', flush=True)\nsignal.pause()\n"
    )
    environment = {**os.environ}
    environment["RELET_TEST_DATABASES"] = json.dumps(
        {"default": {**connections["default"].settings_dict, "TEST": {}}}, default=str
    )
    with subprocess.Popen(
        [*AUDIT, "--", sys.executable, "waits.py"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "SELECT relet_unseen(%s)" in errors


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_pytest_reports_in_its_summary(run: Run, workers: str) -> None:
    result = run(*PYTEST, "--relet-audit=first", "-n", workers, "test_project.py")
    assert result.returncode == 0, result.stdout
    assert "relet: session state" in result.stdout
    assert "advisory lock: SELECT relet_unseen_lock(%s)" in result.stdout
    assert (
        "setting (relet_app.tenant), if it is not local to the transaction: "
        "SELECT relet_unseen(%s)" in result.stdout
    )
    assert result.stdout.count("SELECT relet_unseen") == 2
    assert SECRET not in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail_on", "test", "failed", "workers"),
    [
        ("sure", "test_setting", False, "0"),
        ("any", "test_setting", True, "2"),
        ("sure", "test_lock", True, "0"),
    ],
)
def test_pytest_can_fail(run: Run, fail_on: str, test: str, failed: bool, workers: str) -> None:
    options = ("--relet-audit=all", "-n", workers, "--relet-audit-fail", fail_on)
    result = run(*PYTEST, *options, "-k", test, "test_project.py")
    assert result.returncode == failed, result.stdout
    assert "1 passed" in result.stdout


@pytest.mark.slow
def test_pytest_without_the_option(run: Run) -> None:
    result = run(*PYTEST, "test_project.py")
    assert result.returncode == 0, result.stdout
    assert "relet: session state" not in result.stdout
    result = run(*PYTEST, "--relet-audit-fail=any", "test_project.py")
    assert result.returncode == 4
    assert "--relet-audit-fail needs --relet-audit" in result.stderr


@pytest.mark.slow
def test_pytest_within_relet_audit(run: Run) -> None:
    command = (*PYTEST, "--relet-audit=all", "-n", "2", "test_project.py")
    result = run(*AUDIT, "--", *command)
    assert result.returncode == 0, result.stdout
    for output in result.stdout, result.stderr:
        assert "SELECT relet_unseen_lock(%s)" in output
        assert SECRET not in output


@pytest.mark.slow
def test_the_fixture(run: Run) -> None:
    result = run(*PYTEST, "-v", "test_fixture.py")
    assert result.returncode == 1
    assert "ERROR test_fixture.py::test_it_fails" in result.stdout
    assert "4 passed, 1 error" in result.stdout
    assert "setting (relet_app.tenant): SELECT relet_unseen(%s)" in result.stdout


def test_the_plugin_imports_no_django(run: Run) -> None:
    code = "import sys, relet.pytest_plugin; print('django' in sys.modules)"
    assert run(sys.executable, "-c", code).stdout == "False\n"
