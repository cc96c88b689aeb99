"""Interruption: ends the demo on Ctrl-C and other signals."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from relet.core.errors import reduced

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The demo was asked to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        #: The exit code by a shell's convention.
        self.exit_code = 128 + signum

    def __reduce__(self) -> tuple[object, ...]:
        return reduced(self)


class Interruption:
    """Records signals; only `check` and `sleep` raise `Interrupted`.

    An exception raised by the signal handler could come between starting a process and the code
    that ensures it is stopped, or during clean-up.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for signum in SIGNALS:
            # Respect signals that the parent ignores, as nohup does.
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self._signum is not None:
            raise Interrupted(self._signum)

    def sleep(self, seconds: float) -> None:
        """Sleep for *seconds*; raise `Interrupted` soon after a signal has come."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.1))
        self.check()

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Block the signals in this thread and in child processes started inside.

        The terminal sends Ctrl-C to all its processes. It would end the program that starts
        PostgreSQL, and the new server would be left running.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
