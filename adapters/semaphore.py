"""FairSemaphore: for adapters of pools that do not serve waiting threads in order."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from relet.core.locks import depth, locked, release_to

from .waiter import Waiter


class SemaphoreClosed(Exception):
    """The semaphore was closed."""


class FairSemaphore:
    """Lets as many threads through as the pool has connections, so that the pool never waits.

    Few pools serve waiting threads in order, and fewer lose nothing when a thread times out or is
    interrupted. This semaphore does both: call `acquire` before a connection is taken, and
    `release` when it is back.

    :param size: how many may hold it at a time; None is no limit.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        #: How often it was asked for, how often that had to wait, and milliseconds waited in all.
        self.entries = self.waits = self.wait_ms = 0
        self.closed = False
        # A finalizer may call `release` in the middle of any of these methods.
        self._lock = threading.RLock()
        self._queue: deque[Waiter] = deque()
        #: One entry for each holder.
        self._in_use: dict[Waiter, None] = {}

    @property
    def in_use(self) -> int:
        """How many hold it."""
        return len(self._in_use)

    @property
    def waiting(self) -> int:
        """How many threads wait for it."""
        return len(self._queue)

    def acquire(self, timeout: float) -> bool:
        """Acquire it; return False if none came free in time.

        If this raises anything, at whatever instruction, nothing is acquired.

        :param timeout: seconds.
        :raises SemaphoreClosed: it is closed, or was closed while this thread waited.
        """
        waiter, began = Waiter(), monotonic()
        lock = self._lock
        held = depth(lock)
        # Errors are raised at the end, because an except clause may be interrupted, too.
        try:
            lock.acquire()
            waits = self._queue_up(waiter)
            lock.release()
            if waits:
                waiter.wait(timeout)
                lock.acquire()
                waiter.leave(self._queue)
                lock.release()
                self.wait_ms += int(1000 * (monotonic() - began))
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._serve_queue()  # in case that was interrupted
            waiter.leave(self._queue)
            self._free(waiter if waiter.conn is None else self._any_holder())
            release_to(lock, held)
            raise
        if waiter.error is not None:
            raise waiter.error
        return waiter.conn is not None

    def _queue_up(self, waiter: Waiter) -> bool:
        """Return whether *waiter* has to wait; if not, it holds the semaphore or has an error."""
        if self.closed:
            waiter.error = SemaphoreClosed("the pool is closed")
            return False
        self.entries += 1
        if not self._queue and self._has_room():
            self._in_use[waiter] = None
            waiter.conn = True
            return False
        self.waits += 1
        self._queue.append(waiter)
        self._serve_queue()
        return True

    def _has_room(self) -> bool:
        return self.size is None or len(self._in_use) < self.size

    def _serve_queue(self) -> None:
        """Serve waiters while there is room, and complete what was interrupted."""
        while True:
            room = self._has_room()
            if not self._queue:
                return
            # Nothing is called before the waiter is served: a finalizer may call `release`.
            waiter = self._queue[0]
            if waiter.conn is None and waiter.error is None:
                if not room:
                    return
                waiter.conn = True
            if waiter.conn is not None:
                self._in_use[waiter] = None
            waiter.wake()
            if self._queue and self._queue[0] is waiter:
                del self._queue[0]

    def release(self) -> None:
        """Release it to the thread that has waited longest. An interrupt does not prevent this."""
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
        self._serve_queue()

    def close(self) -> None:
        """Refuse all threads from now on, also those that wait. This may be called again."""
        locked(self._lock, self._close)

    def _close(self) -> None:
        self.closed = True
        while self._queue:
            self._queue[0].fail(SemaphoreClosed("the pool was closed"))
            del self._queue[0]
