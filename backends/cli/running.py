"""Runs a command, on which this process reports when it has ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

#: As a shell has them.
_CANNOT_RUN, _NOT_FOUND, _KILLED = 126, 127, 128

_FORWARDED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class CannotRun(Exception):
    """A command could not be run.

    :ivar code: the exit code that says so.
    """

    def __init__(self, text: str, code: int = _CANNOT_RUN) -> None:
        super().__init__(text)
        self.code = code


def run(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run *command* with *variables* in its environment; return its exit code, as a shell does.

    :raises CannotRun: there is no such program, or it is none.
    """
    try:
        process = subprocess.Popen(command, env={**os.environ, **variables})
    except OSError as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_RUN
        raise CannotRun(f"cannot run {command[0]!r}: {error.strerror}", code) from error
    with _signals_for(process):
        code = process.wait()
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
