"""Testing: what test suites of projects use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from relet.core.policy import AuditMode, check_audit_mode
from relet.core.session.audit_report import AuditFinding, AuditReport, merged

from .leases import lifetimes
from .leases.findings import findings
from .leases.policies import policies


class Audit:
    """What the audit of a block has found."""

    def __init__(self) -> None:
        self._found: list[AuditFinding] = []
        self._cleared: set[tuple[str, str, str]] = set()

    @property
    def rows(self) -> tuple[AuditFinding, ...]:
        """What was found so far."""
        return self.report().rows

    def report(self) -> AuditReport:
        """Return what was found so far."""
        for runner in lifetimes.runners():
            if runner.is_owner():
                runner.report_audit()
        rows = merged(row for row in self._found if row.key not in self._cleared)
        return AuditReport(rows, findings.report().audited)

    def clear(self) -> None:
        """Accept what was found so far. It is not reported again."""
        self._cleared |= {row.key for row in self.rows}


@contextmanager
def audit_session_state(mode: AuditMode = "all") -> Iterator[Audit]:
    """Audit the leases of all aliases in a block, also the one that this thread has now.

    :param mode: as `ReleasePolicy.session_state_audit`.
    :return: what was found. It fails no test by itself.
    :raises ConfigurationError: *mode* is none of these.

    ::

        with audit_session_state() as audit:
            checkout_order()
        assert audit.rows == ()
    """
    check_audit_mode("audit_session_state", mode)
    audit, before = Audit(), policies.audit_mode
    findings.collectors.append(audit._found.append)
    try:
        policies.audit(mode)
        if mode:
            for runner in lifetimes.runners():
                if runner.is_owner():
                    runner.begin_audit(mode)
        yield audit
        audit.report()
    finally:
        policies.audit(before)
        findings.collectors.remove(audit._found.append)
