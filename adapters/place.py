"""Place: where a thread waits in the queue of a pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol


class Queue(Protocol):
    """Those who wait, in order."""

    def remove(self, place: Any, /) -> None: ...


class Place:
    """A place in a pool's queue.

    `set` and `fail` are called under the pool's lock, and so is the change of mind in `wait` and
    `leave`: what is given has a taker, or stays. Their names and that of `conn` are those of
    psycopg_pool's ``WaitingClient``, in place of which this stands there.

    An interrupt may strike wherever a function is called, or returns. So whoever has a place calls
    `leave` when anything is raised, and sets `conn` to None when it has taken what was given; and
    who gives without `set` sets `conn`, then releases `turn`.
    """

    __slots__ = ("conn", "error", "left", "turn")

    def __init__(self) -> None:
        #: What has been given; None is nothing yet.
        self.conn: Any = None
        self.error: Exception | None = None
        #: Whether nobody waits here any more.
        self.left = False
        self.turn = threading.Lock()
        self.turn.acquire()

    def set(self, conn: Any) -> bool:
        """Give *conn* to whoever waits here; return whether it was taken."""
        if not self.waits:
            return False
        self.conn = conn
        self.turn.release()
        return True

    @property
    def waits(self) -> bool:
        """Whether something can be given here."""
        return not self.left and self.conn is None and self.error is None

    def fail(self, error: Exception) -> bool:
        """Have whoever waits here raise *error*."""
        if not self.waits:
            return False
        self.error = error
        self.turn.release()
        return True

    def wait(self, timeout: float, lock: AbstractContextManager[Any], queue: Queue) -> bool:
        """Wait until something is given; return False when the time is up.

        :param timeout: seconds.
        :param lock: that of the pool.
        :param queue: where this place is.
        """
        if not self.turn.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX))):
            self._leave(lock, queue)
        # It may have come at the last moment.
        if self.conn is None and self.error is not None:
            raise self.error
        return self.conn is not None

    def leave(
        self,
        lock: AbstractContextManager[Any],
        queue: Queue,
        give_back: Callable[[Any], object],
    ) -> None:
        """Give up, and give back what was given meanwhile."""
        self._leave(lock, queue)
        conn, self.conn = self.conn, None
        if conn is not None:
            give_back(conn)

    def _leave(self, lock: AbstractContextManager[Any], queue: Queue) -> None:
        with lock:
            self.left = True
            with suppress(ValueError):  # the pool has taken it off
                queue.remove(self)
