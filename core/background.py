"""Background calls: work in a separate thread, where no signal handler can interrupt it.

`BackgroundCall` is one call, `RepeatedCall` one that is made again and again.

`threading.Event` and `threading.Thread` are written in Python. If a signal handler raises an
exception inside `Event.wait`, a lock may stay locked forever. The classes here wait on bare locks.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TypeVar

T = TypeVar("T")


class Latch:
    """A flag that is set once and never cleared. Threads can wait for it."""

    __slots__ = ("_turns", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        #: One lock for each waiting thread.
        self._turns: deque[threading.Lock] = deque()

    def set(self) -> None:
        self.is_set = True
        while self._turns:
            with suppress(IndexError, RuntimeError):  # another thread took it first
                self._turns.popleft().release()

    def wait(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds; return whether the flag is set."""
        if not self.is_set:
            turn = threading.Lock()
            turn.acquire()
            self._turns.append(turn)
            if not self.is_set:  # otherwise `set` may have missed this lock
                turn.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        return self.is_set


class BackgroundCall:
    """One call of *function* in a daemon thread.

    An exception that the function raises is kept in `error`.
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
        """Start the call in a thread unless it has begun. Safe to repeat after an interruption.

        :raises RuntimeError: the system cannot start another thread, or the interpreter is
            shutting down.
        """
        if not self.begun:
            # Not `threading.Thread`, whose start() waits until the thread runs.
            _thread.start_new_thread(self.run, ())

    def run(self) -> None:
        """Make the call in this thread unless it has begun."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 - kept for the caller
            self.error = error
        finally:
            self._ended.set()

    def wait(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds; return whether the call has ended."""
        return self._ended.wait(timeout)

    def abandon(self) -> None:
        """Wake all threads that wait for the call, whether it has ended or not."""
        self._ended.set()


class RepeatedCall:
    """Calls of *function* in one daemon thread, which sleeps in between.

    :param function: returns the seconds until its next call, None for no other.
    :param first: seconds until the first call.
    """

    def __init__(self, function: Callable[[], float | None], first: float = 0.0) -> None:
        self._function = function
        self._first = first
        #: When the next call is due, in seconds of `time.monotonic`. Infinite without a thread.
        self._due = inf
        #: Whether `begin` was called after the last call had begun.
        self._wanted = False
        #: Held by the thread.
        self._claim = threading.Lock()
        #: Set when the thread has let go of it. Waiters do not take it: a new thread would end.
        self._ended = Latch()
        #: Released to wake the thread.
        self._wake = threading.Lock()
        self._wake.acquire()

    @property
    def goes_on(self) -> bool:
        """Whether there is a thread."""
        return self._claim.locked()

    def begin(self) -> None:
        """Begin, unless the thread is there."""
        self._wanted = True
        if not self._claim.locked():
            with suppress(RuntimeError):  # no more threads, or the interpreter is shutting down
                # Not `threading.Thread`, whose start() could be interrupted.
                _thread.start_new_thread(self._run, ())

    def wake(self) -> None:
        """Have the next call made now."""
        with suppress(RuntimeError):  # it was woken already
            self._wake.release()

    def wait(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds for the thread to end; return whether there is none."""
        ended = self._ended
        return not self._claim.locked() or ended.wait(timeout)

    def within(self, seconds: float) -> None:
        """Have the next call made in *seconds*, or sooner: the function says when it is called."""
        if monotonic() + seconds < self._due:
            if self._claim.locked():
                self.wake()
            self.begin()

    def _run(self) -> None:
        while self._wanted and self._claim.acquire(blocking=False):
            self._ended = ended = Latch()
            try:
                seconds: float | None = self._first
                while seconds is not None:
                    self._due = monotonic() + seconds
                    if seconds > 0:
                        self._wake.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
                    self._wanted = False
                    seconds = self._function()
            finally:
                self._due = inf
                self._claim.release()
                ended.set()


def in_background(function: Callable[[], T]) -> T:
    """Call *function* in a separate thread, wait, and return its result or raise its error.

    Use it for calls that take other libraries' locks, which an interruption could leave locked.
    """
    returned: list[T] = []
    call = BackgroundCall(lambda: returned.append(function()))
    try:
        call.start()
    except RuntimeError:  # too many threads, or the interpreter is shutting down
        call.run()
    call.wait(threading.TIMEOUT_MAX)
    if call.error is not None:
        raise call.error
    return returned[0]
