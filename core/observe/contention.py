"""Contention: who made whom wait for a connection.

While a thread waits, every connection of its pool is leased. So each lease that lasts meanwhile is
charged an equal share of the wait: a pool of ten connections whose waiters waited for 30 s in all
charges a lease that lasted through all of it with 3 s. The charges of all leases together are the
time that was waited. What a lease is charged with is the difference of `Contention.waited` between
its end and its begin, divided by the size of the pool.
"""

from __future__ import annotations

from collections import deque
from math import inf

#: How many waits are remembered, for leases that last for one statement.
_REMEMBERED = 300


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
        #: The seconds of all waits that have ended.
        self._total = 0.0

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
        self._total += now - began
        self._ended.append((began, now))
        self.until = now
        if self._waiting:  # it may have begun after the last look
            self.until = inf
        return now - began

    def waited(self, now: float) -> float:
        """Return the seconds that all threads have waited so far."""
        return self._total + sum(max(0.0, now - since) for since in list(self._waiting.values()))

    def waited_since(self, began: float, now: float) -> float:
        """Return the seconds that all threads have waited since *began*, which is not long ago."""
        waited = 0.0
        for since in list(self._waiting.values()):
            waited += max(0.0, now - max(began, since))
        for since, until in reversed(list(self._ended)):
            if until <= began:
                break
            waited += max(0.0, min(now, until) - max(began, since))
        return waited
