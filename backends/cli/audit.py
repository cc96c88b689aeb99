"""``relet audit``: runs a command with the audit of session state, and reports what was found."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from relet.backends.config.policy import AUDIT_VARIABLE
from relet.backends.leases.findings import REPORT_VARIABLE, read_report

from .running import CannotRun, run


def audit(
    command: Sequence[str], *, mode: str, fail_on: str | None = None, json_file: Path | None = None
) -> int:
    """Run *command* and print what it and its children left unseen; return the exit code.

    :param mode: as `relet.core.ReleasePolicy.session_state_audit`.
    :param fail_on: ``"sure"`` or ``"any"``: which findings make the exit code 1 if the command
        itself succeeds.
    :param json_file: also write the report there.
    """
    with tempfile.TemporaryDirectory(prefix="relet-audit-") as folder:
        try:
            code = run(command, {AUDIT_VARIABLE: mode, REPORT_VARIABLE: folder})
        except CannotRun as error:
            print(f"relet audit: {error}", file=sys.stderr)
            return error.code
        report = read_report(folder)
    # Not on stdout, where the command's own output goes.
    print(f"relet audit: {report}", file=sys.stderr)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    if code == 0 and fail_on is not None and (report.rows if fail_on == "any" else report.sure):
        return 1
    return code
