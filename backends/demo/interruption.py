"""Interruption: Ctrl-C, and other ways to ask the demo to end."""

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
        #: As a shell has it.
        self.exit_code = 128 + signum

    def __reduce__(self) -> tuple[object, ...]:
        return reduced(self)


class Interruption:
    """Remembers that a signal came; `check` raises.

    An exception raised where the signal strikes could strike between the start of a
    process and the line that makes sure of its end, or while things are being cleaned
    up. So nothing is raised but from `check` and `sleep`.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        for signum in SIGNALS:
            # Whoever started this process may want a signal ignored, as nohup does.
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
        """Sleep, unless a signal comes."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.1))
        self.check()

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Let no signal strike, children that are started in the block included.

        Ctrl-C is sent to all processes of the terminal. It would end the program that
        starts PostgreSQL, and nobody would know of the server it has just started.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
