"""Findings: collects what audits of session state find, in this process or in several.

Two environment variables reach a process and its children:

``RELET_SESSION_STATE_AUDIT``
    ``first`` or ``all``: audit each alias whose policy does not say so itself.
``RELET_SESSION_STATE_AUDIT_REPORT``
    A folder. Each process writes there what it finds, at once, into a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from relet.backends.report_folder import ReportFolder, entries
from relet.core.session.audit_report import MAX_FINDINGS, AuditFinding, AuditReport, merged

REPORT_VARIABLE = "RELET_SESSION_STATE_AUDIT_REPORT"

_FOLDER = ReportFolder(REPORT_VARIABLE)


class Findings:
    """What the audits of this process have found.

    It takes no lock, because a signal handler may interrupt it: each change is one operation on a
    dict.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], AuditFinding] = {}
        #: Alias -> its engine.
        self._audited: dict[str, str] = {}
        #: Those that are told of each finding, however often it is found.
        self.collectors: list[Callable[[AuditFinding], object]] = []

    def audits(self, alias: str, engine: str) -> None:
        """Note that a lease of *alias* is audited."""
        if self._audited.get(alias) != engine:
            self._audited[alias] = engine
            _FOLDER.write({"alias": alias, "engine": engine})

    def add(self, finding: AuditFinding) -> bool:
        """Add *finding*; return whether it is new."""
        for collect in list(self.collectors):
            collect(finding)
        known = self._rows.get(finding.key)
        if known is not None and (known.sure or not finding.sure):
            return False
        if known is None and len(self._rows) >= MAX_FINDINGS:
            return False
        self._rows[finding.key] = finding
        _FOLDER.write(asdict(finding))
        return True

    def report(self) -> AuditReport:
        """Return what was found so far."""
        return AuditReport(tuple(self._rows.values()), dict(self._audited))

    def clear(self) -> None:
        """Forget what was found."""
        self._rows, self._audited = {}, {}


findings = Findings()


def session_state_audit() -> AuditReport:
    """Return what audits of session state have found in this process, see `ReleasePolicy`."""
    return findings.report()


def read_report(folder: str | Path) -> AuditReport:
    """Return what all processes have written into *folder*."""
    rows, audited = [], {}
    for entry in entries(folder):
        if "sql" in entry:
            rows.append(AuditFinding(**entry))
        else:
            audited[entry["alias"]] = entry["engine"]
    return AuditReport(merged(rows), audited)
