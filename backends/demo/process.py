"""Process: a child process that is stopped when its block is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .errors import DemoError

#: Seconds to wait for a process to end before it is killed.
STOP_TIMEOUT_S = 10.0


class Process:
    """A child process. It has a session of its own, so that Ctrl-C does not reach it.

    :param what: its name in messages.
    :param log: the file that its output is appended to.
    :param directory: its working directory.
    :param pass_fds: file descriptors that it inherits.
    """

    def __init__(
        self,
        what: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        directory: Path,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._what = what
        self._log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
                pass_fds=pass_fds,
                start_new_session=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._popen.poll()

    def check(self) -> None:
        """Raise `DemoError` if the process has ended."""
        if (code := self.poll()) is not None:
            raise self.failed(f"ended with exit code {code}")

    def failed(self, how: str) -> DemoError:
        """Return an error that says *how* the process failed, with the end of the log."""
        return DemoError(f"{self._what} {how}.\n{log_tail(self._log)}")

    def stop(self) -> None:
        """Terminate the process and wait until it has ended."""
        if self.poll() is None:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT_S)
        if self.poll() != 0:
            # Kill the whole session, because a server that failed may have left its workers.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()


def log_tail(log: Path, lines: int = 20) -> str:
    """Return the last lines of a log file, for a message."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        text = ""
    tail = text.splitlines()[-lines:]
    return "\n".join(["The log ends with:", *(f"    {line}" for line in tail)]) if tail else ""
