"""``relet audit``: runs a command with the audit of session state, and reports what was found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from relet.backends.leases.findings import MODE_VARIABLE, REPORT_VARIABLE, read_report

#: As a shell has them.
_CANNOT_RUN, _NOT_FOUND, _KILLED = 126, 127, 128

_FORWARDED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


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
        environment = {**os.environ, MODE_VARIABLE: mode, REPORT_VARIABLE: folder}
        try:
            process = subprocess.Popen(command, env=environment)
        except OSError as error:
            print(f"relet audit: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_RUN
        with _signals_for(process):
            code = process.wait()
        report = read_report(folder)
    # Not on stdout, where the command's own output goes.
    print(f"relet audit: {report}", file=sys.stderr)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    if code == 0 and fail_on is not None and (report.rows if fail_on == "any" else report.sure):
        return 1
    return code if code >= 0 else _KILLED - code


@contextmanager
def _signals_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let signals end *process* and not this one, which has its report to print."""

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    def wait(number: int, frame: FrameType | None) -> None:
        """Do nothing: a terminal sends SIGINT to both."""

    handlers = {getattr(signal, name): forward for name in _FORWARDED if hasattr(signal, name)}
    handlers[signal.SIGINT] = wait
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
