"""Place: where a thread waits in the queue of a pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol


class Waiting(Protocol):
    """The queue: those who wait, in order."""

    def remove(self, place: Any, /) -> None: ...


class Place:
    """A place in a pool's queue.

    `set` and `fail` are called under the pool's lock, and so is the change of mind in `wait`:
    what is given has a taker, or stays. Their names and that of `conn` are those of
    psycopg_pool's ``WaitingClient``, in place of which this stands there.
    """

    __slots__ = ("conn", "error", "turn")

    def __init__(self) -> None:
        #: What has been given; None is nothing yet.
        self.conn: Any = None
        self.error: BaseException | None = None
        self.turn = threading.Lock()
        self.turn.acquire()

    def set(self, conn: Any) -> bool:
        """Give *conn* to whoever waits here; return whether it was taken."""
        if self.error is not None:
            return False
        self.conn = conn
        self.turn.release()
        return True

    def fail(self, error: Exception) -> bool:
        """Have whoever waits here raise *error*."""
        if self.conn is not None or self.error is not None:
            return False
        self.error = error
        self.turn.release()
        return True

    def wait(
        self,
        timeout: float,
        lock: AbstractContextManager[Any],
        queue: Waiting,
        give_back: Callable[[Any], object],
    ) -> Any:
        """Wait until something is given, and return it; None is that the time was up.

        :param timeout: seconds.
        :param lock: that of the pool.
        :param queue: where this place is.
        :param give_back: called with what had been given when an interrupt struck.
        """
        try:
            self.turn.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
            if self.conn is None:
                raise self.error or TimeoutError
        except BaseException as error:
            with lock:
                self.error = self.error or error
                with suppress(ValueError):  # the pool has taken it off
                    queue.remove(self)
            if self.conn is not None and not isinstance(error, Exception):
                give_back(self.conn)
                raise
            # Else it may have come at the last moment.
            if self.conn is None and not isinstance(error, TimeoutError):
                raise
        return self.conn
