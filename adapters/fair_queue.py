"""FairQueue: threads that wait for a connection, and who may go before them.

A connection that is handed to the longest waiting thread lies idle until that thread runs, which
in Python takes until it gets the interpreter's lock. Meanwhile others queue up behind it, and each
statement pays for two switches of threads: a lock convoy. So a connection that comes free goes to
whichever thread takes it first, and the first waiter is woken. A waiter that has waited for
`fairness` seconds has it handed over, and until then nobody who comes later is served. Go's mutex
and WebKit's ParkingLot do the same, and call it eventual fairness.

https://webkit.org/blog/6161/locking-in-webkit/
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from relet.core.adapter import FAIRNESS

from .waiter import Waiter


class FairQueue:
    """Mixed into pools whose threads wait in `_waiting`. Whatever is named with ``_`` is called
    under `_lock`, but `_await_turn`, which takes it.

    Two things hold whenever the lock is free. Waiters are served in order among themselves. And
    while something is free, the first waiter has been woken, or served.

    :ivar fairness: seconds; 0 is strictly in order.
    """

    fairness = FAIRNESS
    _waiting: deque[Any]
    _lock: Any

    def _is_due(self) -> bool:
        """Whether the first waiter, if there is one, is to be served before whoever comes later."""
        # psycopg_pool's own waiters, of getconn(), have no such time, and are always due.
        return bool(
            self._waiting and monotonic() - getattr(self._waiting[0], "since", 0.0) >= self.fairness
        )

    def _serve(self, present: Waiter | None = None) -> None:
        """Serve waiters that are due ; if more is free, wake the next.

        What was struck in the middle is completed by calling it again.

        :param present: a waiter that has just run. If it is the first, it is served now.
        """
        raise NotImplementedError

    def _await_turn(self, waiter: Waiter, deadline: float) -> None:
        """Wait until *waiter* is served, or gets an error, or its time is up.

        Anything may strike in the middle; whoever calls this releases the lock then, has the waiter
        leave, and calls `_serve`.

        :param deadline: in seconds of `time.monotonic`.
        """
        lock = self._lock
        while True:
            waiter.wait(deadline - monotonic())
            if waiter.conn is not None or waiter.error is not None:
                return
            lock.acquire()
            self._serve(waiter)
            if waiter.conn is None and waiter.error is None and monotonic() < deadline:
                lock.release()  # somebody else was faster; its place in the queue is kept
                continue
            self._give_up(waiter)
            lock.release()
            return

    def _give_up(self, waiter: Waiter) -> None:
        """Have *waiter* wait no more; what it was served is in its `conn`."""
        self._serve()  # completes what was struck
        waiter.leave(self._waiting)
        self._serve()  # the next one, which may not have been woken yet
