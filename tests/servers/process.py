"""A server as its users start it: a command, in a process of its own, stopped by a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: How long anything may take at most, in seconds: to start, to answer, to stop.
PATIENCE_S = 20.0


class Process:
    """Runs *command*; what it prints goes to the file `log`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, **options: Any
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(environment),
                cwd=log.parent,
                start_new_session=True,
                **options,
            )

    def until(self, happened: Callable[[], Any], what: str) -> Any:
        """Wait until *happened* returns something; return that."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := happened()):
            assert self._popen.poll() is None, f"ended before {what}\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"never {what}\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; return its exit code."""
        self.send(number)
        return self._popen.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it and its children, whatever they do."""
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def assert_no_traceback(self) -> None:
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


@contextmanager
def running(process: Process, *, by: int = signal.SIGTERM, code: int = 0) -> Iterator[Process]:
    """Stop *process* at the end by the signal *by*, which it answers with *code*."""
    try:
        yield process
        stopped = process.stop(by)
        assert stopped == code, f"{stopped}\n{process.log.read_text()}"
        process.assert_no_traceback()
    finally:
        process.kill()


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def listener() -> socket.socket:
    """Listen where a server is to accept: so its port is known, and nobody else's."""
    return socket.create_server(("127.0.0.1", 0), backlog=2048)
