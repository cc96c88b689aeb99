"""Gate: lets so many in at a time, in order. For adapters of pools that cannot wait well."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from relet.core.locks import depth, locked, release_to

from .waiter import Place


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
        #: How many have asked to get in, had to wait; and how long, together.
        self.entries = self.waits = self.wait_ms = 0
        self.closed = False
        # A finalizer may call `leave` in the middle of any of these methods.
        self._lock = threading.RLock()
        self._queue: deque[Place] = deque()
        #: One for each that is inside.
        self._inside: dict[Place, None] = {}

    @property
    def inside(self) -> int:
        """How many are inside."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def enter(self, timeout: float) -> bool:
        """Get in; return False if there was no room in time.

        If it raises anything, at whatever instruction that strikes, nobody has got in.

        :param timeout: seconds.
        :raises GateClosed: the gate is closed, or was while this waited.
        """
        place, began = Place(), monotonic()
        lock = self._lock
        held = depth(lock)
        # Errors are raised at the end, for a handler may be struck, too.
        try:
            lock.acquire()
            waits = self._queue_up(place)
            lock.release()
            if waits:
                place.wait(timeout)
                lock.acquire()
                place.leave(self._queue)
                lock.release()
                self.wait_ms += int(1000 * (monotonic() - began))
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._let_in()  # if that was struck
            place.leave(self._queue)
            self._leave(place if place.conn is None else self._one())
            release_to(lock, held)
            raise
        if place.error is not None:
            raise place.error
        return place.conn is not None

    def _queue_up(self, place: Place) -> bool:
        """Return whether *place* is one to wait at; else it is inside, or there is an error."""
        if self.closed:
            place.error = GateClosed("the pool is closed")
            return False
        self.entries += 1
        if not self._queue and self._has_room():
            self._inside[place] = None
            place.conn = True
            return False
        self.waits += 1
        self._queue.append(place)
        self._let_in()
        return True

    def _has_room(self) -> bool:
        return self.size is None or len(self._inside) < self.size

    def _let_in(self) -> None:
        """Let in those who wait, while there is room. What was begun, and struck, is completed."""
        while True:
            room = self._has_room()
            if not self._queue:
                return
            # Nothing is called until it is let in: a finalizer may call `leave`.
            place = self._queue[0]
            if place.conn is None and place.error is None:
                if not room:
                    return
                place.conn = True
            if place.conn is not None:
                self._inside[place] = None
            place.wake()
            if self._queue and self._queue[0] is place:
                del self._queue[0]

    def leave(self) -> None:
        """Get out, and let in whoever has waited longest. It is done, whatever strikes."""
        lock, one = self._lock, None
        held = depth(lock)
        try:
            lock.acquire()
            one = self._one()
            self._leave(one)
            lock.release()
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._leave(one or self._one())
            release_to(lock, held)
            raise

    def _one(self) -> Place | None:
        """Return one of those inside. They are all the same."""
        return next(iter(self._inside), None)

    def _leave(self, one: Place | None) -> None:
        self._inside.pop(one, None)  # type: ignore[arg-type]
        self._let_in()

    def close(self) -> None:
        """Let nobody in any more, and turn away those who wait. It may be called again."""
        locked(self._lock, self._close)

    def _close(self) -> None:
        self.closed = True
        while self._queue:
            self._queue[0].fail(GateClosed("the pool was closed"))
            del self._queue[0]
