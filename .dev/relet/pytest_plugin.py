"""The pytest plugin of relet, which audits the session state that a project's tests leave.

It is installed with relet, and does nothing until it is asked: by ``--relet-audit``, or by a test
that uses the fixture ``session_state_audit``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from relet.backends.testing import Audit
    from relet.core.session.audit_report import AuditReport

# As in relet.backends.leases.findings, which imports Django.
_MODE_VARIABLE = "RELET_SESSION_STATE_AUDIT"
_REPORT_VARIABLE = "RELET_SESSION_STATE_AUDIT_REPORT"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("relet")
    group.addoption(
        "--relet-audit",
        choices=("first", "all"),
        metavar="first|all",
        help="report statements that leave session state which relet does not see: look at the "
        "first execution of each text, or at all executions",
    )
    group.addoption(
        "--relet-audit-fail",
        choices=("sure", "any"),
        metavar="sure|any",
        help="let the test run fail if --relet-audit finds something certain, or anything",
    )


def pytest_configure(config: pytest.Config) -> None:
    mode = config.getoption("relet_audit")
    if mode is None:
        if config.getoption("relet_audit_fail") is not None:
            raise pytest.UsageError("--relet-audit-fail needs --relet-audit")
        return
    config.pluginmanager.register(_AuditedRun(config, mode), "relet-audit")


class _AuditedRun:
    """Audits a test run: its own process and all others, such as the workers of pytest-xdist.

    Each process writes what it finds into one folder, so nothing is lost if a worker crashes.
    """

    def __init__(self, config: pytest.Config, mode: str) -> None:
        self._fail: str | None = config.getoption("relet_audit_fail")
        self._is_worker = hasattr(config, "workerinput")
        self._before = {name: os.environ.get(name) for name in (_MODE_VARIABLE, _REPORT_VARIABLE)}
        # `relet audit -- pytest ...` has a folder already.
        self._own_folder: str | None = None
        if _REPORT_VARIABLE not in os.environ:
            self._own_folder = tempfile.mkdtemp(prefix="relet-audit-")
            os.environ[_REPORT_VARIABLE] = self._own_folder
        os.environ[_MODE_VARIABLE] = mode

    def _report(self) -> AuditReport:
        from relet.backends.leases.findings import read_report

        return read_report(os.environ[_REPORT_VARIABLE])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_worker or self._fail is None or session.exitstatus != pytest.ExitCode.OK:
            return
        report = self._report()
        if report.sure if self._fail == "sure" else report.rows:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("relet: session state")
        terminalreporter.write_line(str(self._report()))

    def pytest_unconfigure(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)


@pytest.fixture
def session_state_audit() -> Iterator[Audit]:
    """Audit each statement of the test, and fail it if one leaves state that relet does not see.

    Its value has what was found so far as ``rows``, and ``clear()``.
    """
    from relet.backends.testing import audit_session_state

    with audit_session_state("all") as audit:
        yield audit
    if audit.rows:
        pytest.fail(str(audit.report()), pytrace=False)
