"""Waiter: a thread that waits in the queue of a pool."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any, Protocol


class Queue(Protocol):
    """The waiters, in order."""

    def remove(self, waiter: Any, /) -> None: ...


class Waiter:
    """A thread's place in a pool's queue.

    `set`, `fail` and `leave` are called under the pool's lock, so a connection handed over is never
    lost. The names `set`, `fail` and `conn` are those of psycopg_pool's ``WaitingClient``, in whose
    place this class stands.

    The waiting thread calls `leave` when its time is over, and when anything is raised. Then it
    takes care of a connection that was handed over. The other thread hands a connection over by
    setting `conn`, and then calls `wake`, as often as it likes. A waiter that is woken and finds
    nothing waits again; while it `rests`, it is woken only to be told of its turn or of an error.
    """

    __slots__ = ("conn", "error", "left", "rests", "since", "turn")

    def __init__(self, since: float = 0.0) -> None:
        #: When the thread began to wait, in seconds of `time.monotonic`.
        self.since = since
        #: The connection that was handed over; None if there is none yet.
        self.conn: Any = None
        self.error: BaseException | None = None
        #: Whether the thread has stopped waiting.
        self.left = False
        #: Whether it was woken in vain a moment ago, and will look by itself a moment later.
        self.rests = False
        self.turn = threading.Lock()
        self.turn.acquire()

    @property
    def waits(self) -> bool:
        """Whether a connection can be handed over."""
        return not self.left and self.conn is None and self.error is None

    def set(self, conn: Any) -> bool:
        """Hand *conn* to the waiting thread; return whether that was possible."""
        if not self.waits:
            return False
        self.conn = conn
        self.wake()
        return True

    def fail(self, error: BaseException) -> bool:
        """Make the waiting thread raise *error*."""
        if not self.waits:
            return False
        self.error = error
        self.wake()
        return True

    def call(self) -> None:
        """Wake it because something is free, unless it rests."""
        if not self.rests:
            self.wake()

    def wake(self) -> None:
        """Make `wait` return."""
        with suppress(RuntimeError):  # already called
            self.turn.release()

    def wait(self, timeout: float) -> bool:
        """Return whether `wake` is called within *timeout* seconds, at most `TIMEOUT_MAX`."""
        return self.turn.acquire(timeout=max(0.0, timeout))

    def leave(self, queue: Queue) -> None:
        """Stop waiting. A connection that was handed over before is in `conn`."""
        self.left = True
        with suppress(ValueError):  # the pool has removed it
            queue.remove(self)
