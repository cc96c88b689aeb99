"""LeanQueuePool: SQLAlchemy's QueuePool, with a checkout and a checkin made for leases."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from relet.adapters.place import Place

#: Given to who waits, in place of a connection: it may open one.
_VACANCY: Any = object()


class PoolClosed(exc.SQLAlchemyError):
    """The pool was closed."""


class LeanQueuePool(QueuePool):
    """A `QueuePool` whose entries can be had without the proxy around them.

    ``connect()`` makes a proxy and a finalizer for each checkout, and asks for the time
    and the log level; a lease, which is one of each for every statement, needs none of that.
    `take` and `give` do what is to be done in one step under the queue's own lock.

    They are fair. QueuePool lets whoever comes have a connection that was just returned,
    before those who have been woken for it; here it is handed to whoever has waited longest.
    When a connection could not be opened, or was thrown away, its place goes to whoever waits,
    who else would wait in vain. And an interrupt in the queue loses nothing.

    All of QueuePool's methods work beside it, and see the same entries.

    They rely on the pool's insides, see `LEAN`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: deque[Place] = deque()
        self.closed = False
        #: Makes what others have used through `connect()` as leases have it.
        self.tidy: Callable[[Any], object] = lambda raw: None
        #: See `relet.core.PoolStats`.
        self.checkouts = self.waits = self.wait_ms = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, timeout: float | None = None) -> Any:
        """Return an entry, a `ConnectionPoolEntry`, with a connection.

        :param timeout: seconds; by default the pool's own.
        :raises sqlalchemy.exc.TimeoutError: none came free in time.
        :raises PoolClosed: the pool is closed.
        """
        idle: Any = self._pool
        queue = idle.queue
        place: Place | None = None
        entry: Any = None
        vacancy = False
        try:
            with idle.mutex:
                if self.closed:
                    raise PoolClosed("the pool is closed")
                self.checkouts += 1
                if queue:
                    # Not pop(): an interrupt strikes when a call returns, and would lose it.
                    next_one = -1 if idle.use_lifo else 0
                    entry = queue[next_one]
                    del queue[next_one]
                elif self._max_overflow == -1 or self._overflow < self._max_overflow:
                    self._overflow += 1
                    vacancy = True
                else:
                    place = Place()
                    self._waiting.append(place)
                    self.waits += 1
                    self._serve()
            if place is not None:
                seconds = self._timeout if timeout is None else timeout
                began = monotonic()
                served = place.wait(seconds, idle.mutex, self._waiting)
                self.wait_ms += int(1000 * (monotonic() - began))
                if not served:
                    raise exc.TimeoutError(f"couldn't get a connection after {seconds:.2f} sec")
                vacancy = place.conn is _VACANCY
                entry = None if vacancy else place.conn
                place.conn = None
            if entry is None:
                entry = self._create_connection()
            # Connects again, if it is too old, or was invalidated.
            entry.get_connection()
            entry.leased = True
        except BaseException:
            if place is not None:
                if place.conn is not None:
                    entry, vacancy = None, False
                place.leave(idle.mutex, self._waiting, self._give_back)
            with idle.mutex:
                out = entry is not None and entry not in queue
            if out:
                self.drop(entry)
            elif vacancy:
                self._vacate()
            raise
        return entry

    def _give_back(self, given: Any) -> None:
        if given is _VACANCY:
            self._vacate()
        else:
            self.give(given)

    def _serve(self) -> None:
        """Give what there is to those who wait. Called under the lock.

        A proxy that is collected returns its entry in the middle of anything: so also
        between the look for one and the place in the queue.
        """
        queue: Any = self._pool.queue  # type: ignore[attr-defined]
        waiting = self._waiting
        while waiting:
            place = waiting[0]
            waits = place.waits
            # Nothing is called from here on, so that an interrupt comes before or after.
            if waits:
                if queue:
                    given = queue[0]
                    del queue[0]
                elif self._max_overflow == -1 or self._overflow < self._max_overflow:
                    given = _VACANCY
                    self._overflow += 1
                else:
                    return
                place.conn = given
            del waiting[0]
            if waits:
                place.turn.release()

    def give(self, entry: Any) -> None:
        """Return *entry*, on whose connection no transaction is open."""
        idle: Any = self._pool
        with idle.mutex:
            full = 0 < idle.maxsize <= len(idle.queue)
            if not (self.closed or (full and not self._waiting)):
                entry.leased = False
                try:
                    idle.queue.append(entry)
                    if self._waiting:
                        self._serve()
                except BaseException:
                    self._serve()
                    raise
                return
        # Connections beyond `pool_size` are not kept.
        self.drop(entry)

    def drop(self, entry: Any, *, broken: bool = False) -> None:
        """Close *entry*; its place goes to whoever waits.

        :param broken: the server has closed it. It may have closed all that are as old, so
            they are not used again, as with SQLAlchemy's Engine.
        """
        entry.leased = False
        try:
            if broken and self._invalidate_time < entry.starttime:
                self._invalidate_time = time.time()
            if broken:
                entry.invalidate()
            else:
                entry.close()
        finally:
            self._vacate()

    def _vacate(self) -> None:
        with self._pool.mutex:  # type: ignore[attr-defined]
            self._overflow -= 1
            try:
                self._serve()
            except BaseException:
                self._serve()
                raise

    def close(self) -> None:
        """Close what is idle now, and the rest when it comes back; turn away who waits."""
        with self._pool.mutex:  # type: ignore[attr-defined]
            self.closed = True
            while self._waiting:
                self._waiting.popleft().fail(PoolClosed("the pool was closed"))
        self.dispose()

    # QueuePool's own way in and out, and its end.

    def _do_get(self) -> ConnectionPoolEntry:
        entry: ConnectionPoolEntry = self.take()
        return entry

    def _do_return_conn(self, record: Any) -> None:
        if record.dbapi_connection is None:  # it was invalidated
            self._vacate()
            return
        try:
            self.tidy(record.dbapi_connection)
        except BaseException as error:
            self.drop(record, broken=True)
            if not isinstance(error, Exception):
                raise
        else:
            self.give(record)

    def dispose(self) -> None:
        # QueuePool's own forgets those that are checked out, and would open too many.
        idle: Any = self._pool
        with idle.mutex:
            entries = list(idle.queue)
            idle.queue.clear()
            self._overflow -= len(entries)
        for entry in entries:
            entry.close()


#: Whether this SQLAlchemy is one that `LeanQueuePool` has been read against.
LEAN = sqlalchemy.__version__.split(".")[:2] in (["2", "0"], ["2", "1"])
