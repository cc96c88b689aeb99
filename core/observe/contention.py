"""Contention: who made whom wait for a connection.

While a thread waits, every connection of its pool is leased. So each lease that lasts meanwhile is
charged an equal share of the wait: a pool of ten connections whose waiters waited for 30 s in all
charges a lease that lasted through all of it with 3 s. The charges of all leases together are the
time that was waited.
"""

from __future__ import annotations

from collections import deque
from math import inf

#: How many waits are remembered. A lease during which more of them end is charged for the last.
_REMEMBERED = 2_000


class Contention:
    """The waits for connections of one alias. Times are in seconds of one clock.

    Any thread may call any method, without a lock: each changes one thing in one step.

    :ivar until: when a thread last waited; infinite while one waits. A lease that began later has
        made nobody wait, which the hot path finds out with one comparison.
    """

    def __init__(self) -> None:
        self.until = -inf
        #: Who waits -> since when.
        self._waiting: dict[object, float] = {}
        #: (when it began, when it ended), in the order in which they ended.
        self._ended: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    @property
    def waiting(self) -> int:
        """How many threads wait now."""
        return len(self._waiting)

    def begin(self, waiter: object, now: float) -> None:
        """Note that *waiter* begins to wait."""
        self._waiting[waiter] = now
        self.until = inf

    def end(self, waiter: object, now: float) -> float:
        """Note that *waiter* does not wait any more; return how long it did."""
        began = self._waiting.pop(waiter, now)
        self._ended.append((began, now))
        self.until = now
        if self._waiting:  # it may have begun after the last look
            self.until = inf
        return now - began

    def charge(self, began: float, ended: float, size: int | None) -> float:
        """Return the seconds that others waited because of a lease.

        :param began: when the lease began.
        :param ended: when it ended, or now.
        :param size: the number of connections of its pool.
        """
        waited = 0.0
        for since in list(self._waiting.values()):
            waited += max(0.0, ended - max(began, since))
        for since, until in reversed(list(self._ended)):
            if until <= began:
                break
            waited += max(0.0, min(ended, until) - max(began, since))
        return waited / (size or 1)
