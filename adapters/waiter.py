"""Waiter: where a thread waits in the queue of a pool."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any, Protocol


class Queue(Protocol):
    """Those who wait, in order."""

    def remove(self, waiter: Any, /) -> None: ...


class Waiter:
    """A place in a pool's queue.

    `set`, `fail` and `leave` are called under the pool's lock: what is given has a taker, or stays.
    Their names and that of `conn` are those of psycopg_pool's ``WaitingClient``, in place of which
    this stands there.

    Whoever has a place calls `leave` when nothing has come in time, and when anything is raised;
    then it sees to what was given. Who gives sets `conn`, and nothing is given before that; then
    it calls `wake`, as often as it likes.
    """

    __slots__ = ("conn", "error", "left", "turn")

    def __init__(self) -> None:
        #: What has been given; None is nothing yet.
        self.conn: Any = None
        self.error: BaseException | None = None
        #: Whether nobody waits here any more.
        self.left = False
        self.turn = threading.Lock()
        self.turn.acquire()

    @property
    def waits(self) -> bool:
        """Whether something can be given here."""
        return not self.left and self.conn is None and self.error is None

    def set(self, conn: Any) -> bool:
        """Give *conn* to whoever waits here; return whether it was taken."""
        if not self.waits:
            return False
        self.conn = conn
        self.wake()
        return True

    def fail(self, error: BaseException) -> bool:
        """Have whoever waits here raise *error*."""
        if not self.waits:
            return False
        self.error = error
        self.wake()
        return True

    def wake(self) -> None:
        """Have `wait` return."""
        with suppress(RuntimeError):  # it has been called already
            self.turn.release()

    def wait(self, timeout: float) -> bool:
        """Return whether `wake` is called within *timeout* seconds."""
        return self.turn.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))

    def leave(self, queue: Queue) -> None:
        """Give up. What was given before is in `conn`. To be called under the pool's lock."""
        self.left = True
        with suppress(ValueError):  # the pool has taken it off
            queue.remove(self)
