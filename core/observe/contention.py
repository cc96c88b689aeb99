"""Contention: who made whom wait for a connection.

While a thread waits, every connection of its pool is leased. So each lease that lasts meanwhile is
charged an equal share of the wait: a pool of ten connections whose waiters waited for 30 s in all
charges a lease that lasted through all of it with 3 s. The charges of all leases together are the
time that was waited. What a lease is charged with is the difference of `Contention.waited` between
its end and its begin, divided by the size of the pool.

Where many wait, every statement asks. So nothing here takes longer the more there are: what all
have waited so far grows evenly between the moments at which one begins or ends, and is noted then.
"""

from __future__ import annotations

from collections import deque
from math import inf

#: How many of these moments are remembered, for leases that last for one statement.
_REMEMBERED = 600


class Contention:
    """The waits for connections of one alias. Times are in seconds of one clock.

    Any thread may call any method, without a lock: each changes one thing in one step. Of two that
    do so at the same moment, one may count what lies between them as the other did, which is too
    short to matter.

    :ivar until: when a thread last waited; infinite while one waits. A lease that began later has
        made nobody wait, which the hot path finds out with one comparison.
    """

    def __init__(self) -> None:
        self.until = -inf
        #: Who waits -> since when.
        self._waiting: dict[object, float] = {}
        #: (a moment, the seconds that all threads had waited by then).
        self._moments: deque[tuple[float, float]] = deque([(0.0, 0.0)], maxlen=_REMEMBERED)

    @property
    def waiting(self) -> int:
        """How many threads wait now."""
        return len(self._waiting)

    def begin(self, waiter: object, now: float) -> None:
        """Note that *waiter* begins to wait."""
        self._moments.append((now, self.waited(now)))
        self._waiting[waiter] = now
        self.until = inf

    def end(self, waiter: object, now: float) -> float:
        """Note that *waiter* does not wait any more; return how long it did."""
        waited = self.waited(now)
        began = self._waiting.pop(waiter, now)
        self._moments.append((now, waited))
        self.until = now
        if self._waiting:  # it may have begun after the last look
            self.until = inf
        return now - began

    def waited(self, moment: float) -> float:
        """Return the seconds that all threads had waited by *moment*, which is not long ago."""
        moments = self._moments
        later, until = moments[-1]
        if later <= moment:
            return until + len(self._waiting) * (moment - later)
        for number in range(2, len(moments) + 1):
            earlier, waited = moments[-number]
            if earlier <= moment:
                return waited + (until - waited) * (moment - earlier) / (later - earlier)
            later, until = earlier, waited
        return until

    def waited_since(self, began: float, now: float) -> float:
        """Return the seconds that all threads have waited since *began*, which is not long ago."""
        return self.waited(now) - self.waited(began)
