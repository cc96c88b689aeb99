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
        #: How many are inside, asked to get in, had to wait; and how long, together.
        self.inside = self.entries = self.waits = self.wait_ms = 0
        self.closed = False
        # A finalizer may call `leave` in the middle of any of these methods.
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
        place = None
        inside = False
        try:
            with self._lock:
                if self.closed:
                    raise GateClosed("the pool is closed")
                self.entries += 1
                if self._has_room() and not self._queue:
                    self.inside += 1
                    inside = True
                else:
                    place = Place()
                    self._queue.append(place)
                    self.waits += 1
                    self._let_in()
            if place is not None:
                began = monotonic()
                inside = place.wait(timeout, self._lock, self._queue)
                self.wait_ms += int(1000 * (monotonic() - began))
                place.conn = None
        except BaseException:
            if place is not None:
                place.leave(self._lock, self._queue, lambda _: self.leave())
            elif inside:
                self.leave()
            raise
        return inside

    def _has_room(self) -> bool:
        return self.size is None or self.inside < self.size

    def _let_in(self) -> None:
        """Let in who waits, while there is room: it may have come while this one queued up."""
        while self._queue and self._has_room():
            place = self._queue[0]
            waits = place.waits
            # Nothing is called from here on, so that an interrupt comes before or after.
            del self._queue[0]
            if waits:
                self.inside += 1
                place.conn = True
                place.turn.release()

    def leave(self) -> None:
        """Get out, and let in whoever has waited longest."""
        with self._lock:
            self.inside -= 1
            try:
                self._let_in()
            except BaseException:
                self._let_in()
                raise

    def close(self) -> None:
        """Let nobody in any more, and turn away those who wait."""
        with self._lock:
            self.closed = True
            while self._queue:
                self._queue.popleft().fail(GateClosed("the pool was closed"))
