"""FairSemaphore: for adapters of pools that do not serve waiting threads in order."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from relet.core.locks import depth, locked, release_to

from .fair_queue import FairQueue
from .waiter import Waiter


class SemaphoreClosed(Exception):
    """The semaphore was closed."""


class FairSemaphore(FairQueue):
    """Lets as many threads through as the pool has connections, so that the pool never waits.

    Few pools serve waiting threads in order, and fewer lose nothing when a thread times out or is
    interrupted. This semaphore does both: call `acquire` before a connection is taken, and
    `release` when it is back.

    :param size: how many may hold it at a time; None is no limit.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        #: Calls of `acquire`, those of them that had to wait, and milliseconds waited in all.
        self.entries = self.waits = self.wait_ms = 0
        self.closed = False
        # A finalizer may call `release` in the middle of any of these methods.
        self._lock = threading.RLock()
        self._waiting: deque[Waiter] = deque()
        #: One entry for each holder.
        self._in_use: dict[Waiter, None] = {}

    @property
    def in_use(self) -> int:
        """How many hold it."""
        return len(self._in_use)

    @property
    def waiting(self) -> int:
        """How many threads wait for it."""
        return len(self._waiting)

    def acquire(self, timeout: float) -> bool:
        """Acquire it; return False if none came free in time.

        If this raises anything, nothing is acquired. Only an exception from outside that strikes
        between its return and the caller's next instruction finds it acquired.

        :param timeout: seconds.
        :raises SemaphoreClosed: it is closed, or was closed while this thread waited.
        """
        began = monotonic()
        waiter = Waiter(began)
        lock = self._lock
        held = depth(lock)
        # Errors are raised at the end, because an except clause may be interrupted, too.
        try:
            lock.acquire()
            waits = self._queue_up(waiter)
            lock.release()
            if waits:
                self._await_turn(waiter, began + timeout)
                self.wait_ms += int(1000 * (monotonic() - began))
            error = waiter.error
            if error is None:
                return waiter.conn is not None
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._give_up(waiter)
            self._free(waiter if waiter.conn is None else self._any_holder())
            release_to(lock, held)
            raise
        raise error

    def _queue_up(self, waiter: Waiter) -> bool:
        """Return whether *waiter* has to wait; if not, it holds the semaphore or has an error."""
        if self.closed:
            waiter.error = SemaphoreClosed("the pool is closed")
            return False
        self.entries += 1
        if self._has_room() and not self._is_due():
            self._in_use[waiter] = None
            waiter.conn = True
            return False
        self.waits += 1
        self._waiting.append(waiter)
        self._serve()
        return True

    def _has_room(self) -> bool:
        return self.size is None or len(self._in_use) < self.size

    def _serve(self, present: Waiter | None = None) -> None:
        waiting = self._waiting
        while waiting:
            due, room = waiting[0] is present or self._is_due(), self._has_room()
            if not waiting:
                return
            # Call nothing before the waiter is served, because a finalizer may call `release`.
            waiter = waiting[0]
            if waiter.conn is None and waiter.error is None:
                if not room:
                    return
                if not due:
                    waiter.call()
                    return
                waiter.conn = True
            if waiter.conn is not None:
                self._in_use[waiter] = None
            waiter.wake()
            if waiting and waiting[0] is waiter:
                del waiting[0]

    def release(self) -> None:
        """Release it. This takes effect even if it is interrupted."""
        lock, holder = self._lock, None
        held = depth(lock)
        try:
            lock.acquire()
            holder = self._any_holder()
            self._free(holder)
            lock.release()
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._free(holder or self._any_holder())
            release_to(lock, held)
            raise

    def _any_holder(self) -> Waiter | None:
        """Return one of the holders. They are interchangeable."""
        return next(iter(self._in_use), None)

    def _free(self, holder: Waiter | None) -> None:
        self._in_use.pop(holder, None)  # type: ignore[arg-type]
        self._serve()

    def close(self) -> None:
        """Refuse all threads from now on, and those that wait. May be called again."""
        locked(self._lock, self._close)

    def _close(self) -> None:
        self.closed = True
        while self._waiting:
            self._waiting[0].fail(SemaphoreClosed("the pool was closed"))
            del self._waiting[0]
