"""Work in a thread of its own, where no exception from outside strikes.

`threading.Event` and `threading.Thread` are written in Python: an exception that a signal handler
raises in the middle of `Event.wait` may leave a lock taken for ever. These wait on bare locks.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Latch:
    """Something that comes true once, and stays so. Threads wait for it."""

    __slots__ = ("_turns", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        #: The locks of those who wait.
        self._turns: deque[threading.Lock] = deque()

    def set(self) -> None:
        self.is_set = True
        while self._turns:
            with suppress(IndexError, RuntimeError):  # another thread has done it
                self._turns.popleft().release()

    def wait(self, timeout: float) -> bool:
        """Return whether it is true, within *timeout* seconds."""
        if not self.is_set:
            turn = threading.Lock()
            turn.acquire()
            self._turns.append(turn)
            if not self.is_set:  # else `set` may have missed this turn
                turn.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        return self.is_set


class BackgroundCall:
    """One call of *function*, in a thread that is a daemon.

    Whatever the function raises is kept in `error`.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._claim = threading.Lock()
        self._ended = Latch()
        self.error: BaseException | None = None

    @property
    def begun(self) -> bool:
        return self._claim.locked()

    @property
    def ended(self) -> bool:
        return self._ended.is_set

    def start(self) -> None:
        """Start it, unless it was. Who was interrupted here may call this again.

        :raises RuntimeError: the system has no thread left, or the interpreter shuts down.
        """
        if not self.begun:
            # Not by `threading.Thread`, which waits until the thread has begun.
            _thread.start_new_thread(self.run, ())

    def run(self) -> None:
        """Make the call here, unless somebody has begun it."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 - for whoever asks
            self.error = error
        finally:
            self._ended.set()

    def wait(self, timeout: float) -> bool:
        """Return whether it has ended, within *timeout* seconds."""
        return self._ended.wait(timeout)

    def abandon(self) -> None:
        """Have nobody wait for it any more."""
        self._ended.set()


def in_background(function: Callable[[], T]) -> T:
    """Return what *function* does, in a thread of its own. That is for what takes foreign locks."""
    returned: list[T] = []
    call = BackgroundCall(lambda: returned.append(function()))
    try:
        call.start()
    except RuntimeError:  # there are too many threads, or the interpreter shuts down
        call.run()
    call.wait(threading.TIMEOUT_MAX)
    if call.error is not None:
        raise call.error
    return returned[0]
