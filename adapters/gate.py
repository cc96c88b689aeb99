"""Gate: lets so many in at a time, in order. For adapters of pools that cannot wait well."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from relet.adapters.place import Place


class GateClosed(Exception):
    """The gate was closed."""


class Gate:
    """Before a pool that never has to wait then, because no more get in than it has connections.

    Few pools serve those who wait in order, and fewer lose nothing when one of them times out or
    is interrupted. This does, so that an adapter has not to: `enter` before a connection is
    taken, `leave` when it is back.

    :param size: how many are let in; None is no limit.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        #: How many are inside, wait, asked to get in, had to wait; and for how long, together.
        self.inside = self.entries = self.waits = self.wait_ms = 0
        self.closed = False
        self._lock = threading.RLock()
        self._queue: deque[Place] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def enter(self, timeout: float) -> bool:
        """Get in; return False if there was no room in time.

        :param timeout: seconds.
        :raises GateClosed: the gate is closed, or was while this waited.
        """
        with self._lock:
            if self.closed:
                raise GateClosed("the pool is closed")
            self.entries += 1
            if self.size is None or self.inside < self.size:
                self.inside += 1
                return True
            self.waits += 1
            place = Place()
            self._queue.append(place)
        began = monotonic()
        try:
            return place.wait(timeout, self._lock, self._queue, lambda _: self.leave()) is not None
        finally:
            self.wait_ms += int(1000 * (monotonic() - began))

    def leave(self) -> None:
        """Get out, and let in whoever has waited longest."""
        with self._lock:
            while self._queue:
                if self._queue.popleft().set(True):
                    return
            self.inside -= 1

    def close(self) -> None:
        """Let nobody in any more, and turn away those who wait."""
        with self._lock:
            self.closed = True
            while self._queue:
                self._queue.popleft().fail(GateClosed("the pool was closed"))
