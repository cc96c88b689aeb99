"""LeanQueuePool: SQLAlchemy's QueuePool, with a fast checkout and checkin for leases."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.pool.base import _ConnectionRecord

from relet.adapters.fair_queue import FairQueue
from relet.adapters.opening import MIN_WAIT
from relet.adapters.permits import NoPermit, Permits
from relet.adapters.slots import Slot
from relet.adapters.waiter import Waiter
from relet.core import PooledConnection
from relet.core.background import BackgroundCall
from relet.core.locks import depth, locked, release_to

#: The key of the `PooledConnection` in the `info` of a pool's entry. SQLAlchemy clears `info`
#: when it reconnects.
REMEMBERED = "relet"

#: A default that differs from None, the value of each entry in `LeanQueuePool.leased`.
_NOT_LEASED = object()
_TIMED_OUT = "couldn't get a connection after {:.2f} sec"


class PoolClosed(exc.SQLAlchemyError):
    """The pool was closed."""


class CannotConnect(exc.SQLAlchemyError):
    """A connection could not be opened; the reason is the `__cause__`."""


class LeanQueuePool(FairQueue, QueuePool):
    """A `QueuePool` whose entries can be checked out without a proxy.

    For each checkout, ``connect()`` makes a proxy and a finalizer, and reads the clock and the log
    level. With leases, each statement is a checkout, which needs none of this. `checkout_into` and
    `checkin_from` take one step under the queue's lock.

    They are fair. In QueuePool, a thread that comes later can take a returned connection before the
    thread that was woken for it. Here the thread that has waited longest gets the connection. When
    a connection cannot be opened, or is discarded, a waiting thread gets its place.

    Each connection is opened in a thread of its own, while the threads that want one wait in the
    queue. So no thread waits longer than its timeout, whatever the server does. Connections being
    opened count, so there are never too many. And no exception from outside interrupts an opening.

    Elsewhere such an exception may be raised at any instruction. A connection is moved in steps
    that are undone or completed before the lock is released. There is no counter of connections:
    each is in one of `idle`, `leased` and `opening`.

    All other methods of QueuePool work as usual, on the same entries.

    This class relies on private parts of SQLAlchemy 2.0 and 2.1, see `relet.adapters`.
    """

    #: The name of SQLAlchemy's logger, which is the one of QueuePool.
    _sqla_logger_namespace = f"{QueuePool.__module__}.{QueuePool.__name__}"

    def __init__(self, *args: Any, **options: Any) -> None:
        #: Checked-out entries.
        self.leased: dict[Any, None] = {}
        #: Entries whose connections are being opened.
        self.opening: dict[Any, BackgroundCall] = {}
        super().__init__(*args, **options)
        queue: Any = self._pool
        #: Idle entries.
        self.idle: deque[Any] = queue.queue
        self._lock = queue.mutex
        self._held = self._lock._is_owned
        self._next_index = -1 if queue.use_lifo else 0
        self._max_idle: int = queue.maxsize
        self._waiting: deque[Waiter] = deque()
        #: The ``record_info`` of discarded entries, for their replacements.
        self._record_infos: deque[dict[Any, Any]] = deque()
        self.closed = False
        #: Prepares an entry for other code, which takes it by `connect()`.
        self.lend: Callable[[Any], object] = lambda entry: None
        #: Prepares an entry that came back by `close()`; returns whether that worked, or raises.
        self.normalize: Callable[[Any], bool] = lambda entry: True
        #: Connections whose checkout was logged. The log level may change at any time, and is read
        #: once for each lease, because reading it takes time.
        self.logged: set[PooledConnection] = set()
        #: The error of the last attempt to connect; None if it succeeded.
        self.failure: BaseException | None = None
        #: The pool's part in its budget, if it has one; `share_budget` sets it.
        self.permits: Permits | None = None
        #: How many connections may be opened at the same time.
        self._most_opening: float = inf
        #: See `relet.core.PoolStats`.
        self.checkouts = self.waits = self.wait_ms = 0

    def share_budget(self, permits: Permits) -> None:
        """Take a permit for each connection. Called before any is opened."""
        found = weakref.ref(self)
        permits.wanted = lambda: (pool := found()) is not None and bool(pool._waiting)
        self.permits, self._most_opening = permits, 1

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def _overflow(self) -> int:
        """How many more connections there are than ``pool_size``; negative if fewer."""
        size: int = self._pool.maxsize
        return len(self.leased) + len(self.opening) + len(self.idle) - size

    @_overflow.setter
    def _overflow(self, value: int) -> None:
        """Ignore the value: QueuePool counts, this class does not."""

    # Leases. This is the hot path.

    def checkout_into(self, slot: Any, timeout: float | None = None) -> None:
        """See `relet.core.PoolAdapter.checkout_into`.

        :param timeout: seconds; by default the pool's own.
        :raises sqlalchemy.exc.TimeoutError: no connection came free in time.
        :raises CannotConnect: a connection could not be opened.
        :raises PoolClosed: the pool is closed.
        """
        recycle = self._recycle
        now = time.time() if recycle > -1 else 0.0
        lock, idle, entry = self._lock, self.idle, None
        held = self._held() and depth(lock)
        try:
            lock.acquire()
            if idle and not self.closed and not (self._waiting and self._is_due()):
                # Call nothing before it is taken out: a finalizer, or a signal handler, that uses
                # the pool must find it either idle or checked out.
                entry = idle[self._next_index]
                since = entry.starttime
                if not (
                    now - since > recycle > -1
                    or self._invalidate_time > since
                    or entry._soft_invalidate_time > since
                ):
                    connection = entry.info[REMEMBERED]
                    connection.raw, connection.entry = entry.dbapi_connection, entry
                    slot.connection = connection
                    self.leased[entry] = None
                    del idle[self._next_index]
                    self.checkouts += 1
                    lock.release()
                    return
            lock.release()
        except BaseException:
            if depth(lock) > held:
                if entry in idle:  # else the checkout is complete
                    self.leased.pop(entry, None)
                    self._detach(entry)
                    slot.connection = None
                release_to(lock, held)
            raise
        self._wait_into(slot, timeout)

    def checkin_from(self, slot: Any) -> None:
        """See `relet.core.PoolAdapter.checkin_from`."""
        connection = slot.connection
        entry = connection.entry
        connection.last_used_at = monotonic()
        lock, idle, waiting, passed_on = self._lock, self.idle, self._waiting, False
        held = self._held() and depth(lock)
        try:
            lock.acquire()
            # If the maximum is idle, no thread waits.
            if not (self.closed or 0 < self._max_idle <= len(idle)):
                connection.raw = connection.entry = slot.connection = None  # avoid reference cycles
                del self.leased[entry]
                idle.append(entry)
                if waiting:
                    passed_on = True
                    self._serve()
                lock.release()
                return
            lock.release()
        except BaseException:
            if depth(lock) > held:
                if passed_on or entry in idle:
                    self._complete_struck()
                else:
                    self.leased[entry] = None
                    self._attach(entry, slot)
                release_to(lock, held)
            raise
        self.discard_from(slot)

    def discard_from(self, slot: Any, *, broken: bool = False) -> None:
        """See `relet.core.PoolAdapter.discard_from`.

        :param broken: the server has closed it. Connections of the same age may be closed, too, so
            they are not reused, as in SQLAlchemy's Engine.
        """
        connection = slot.connection
        self.logged.discard(connection)
        if (entry := connection.entry) is not None:
            self._discard(entry, broken=broken)
        connection.raw = connection.entry = slot.connection = None

    def give_up(self, slot: Any) -> None:
        """Close a connection for good, because other processes need it more."""
        self.discard_from(slot)

    # The log messages that SQLAlchemy writes for `connect()`.

    def log_checkout(self, connection: PooledConnection) -> None:
        """Log that *connection* is checked out; its checkin is logged, too."""
        self.logged.add(connection)
        self.logger.debug("Connection %r checked out from pool", connection.raw)

    def log_checkin(self, connection: PooledConnection) -> None:
        """Log that *connection* is about to be checked in, if its checkout was logged."""
        if connection in self.logged:
            self.logged.discard(connection)
            self.logger.debug("Connection %r being returned to pool", connection.raw)

    # Rare cases. Methods marked "under the lock" are called with the lock held.

    @property
    def _has_room(self) -> bool:
        return self._max_overflow == -1 or self._overflow < self._max_overflow

    @staticmethod
    def _attach(entry: Any, slot: Any) -> None:
        """Put *entry*, which is leased and has no other owner, into *slot*."""
        connection = entry.info[REMEMBERED]
        connection.raw, connection.entry = entry.dbapi_connection, entry
        slot.connection = connection

    @staticmethod
    def _detach(entry: Any) -> None:
        if (connection := entry.info.get(REMEMBERED)) is not None:
            connection.raw = connection.entry = None

    def _wait_into(self, slot: Any, timeout: float | None) -> None:
        """Wait for a connection, because none is idle."""
        seconds: float | None = self._timeout if timeout is None else timeout
        if seconds is None:  # the pool's option, as in SQLAlchemy
            seconds = inf
        began = monotonic()
        waiter = Waiter(began)
        error: BaseException | None = None
        lock = self._lock
        held = self._held() and depth(lock)
        # The pool's errors are raised at the end, because an except clause may be interrupted, too.
        try:
            lock.acquire()
            if self.closed:
                error = PoolClosed("the pool is closed")
            else:
                self.checkouts += 1
                self.waits += 1
                self._waiting.append(waiter)
                self._serve()
            lock.release()
            if error is None:
                patience = max(seconds, MIN_WAIT) if self.opening else seconds
                self._await_turn(waiter, began + patience)
                if waiter.conn is None:  # else a connection came at the last moment
                    error = waiter.error or exc.TimeoutError(_TIMED_OUT.format(seconds))
                else:
                    self._attach(waiter.conn, slot)
                self.wait_ms += int(1000 * (monotonic() - began))
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._complete_struck()
            self._give_up(waiter)
            if waiter.conn is not None and slot.connection is None:
                self._detach(waiter.conn)
                self._put_back(waiter.conn)
            release_to(lock, held)
            raise
        if error is not None:
            raise error

    def _serve(self, present: Waiter | None = None) -> None:
        """See `FairQueue`. Open connections for waiters that find none. Under the lock."""
        idle, waiting, recycle = self.idle, self._waiting, self._recycle
        while True:
            now = time.time() if recycle > -1 else 0.0
            due = bool(waiting) and (waiting[0] is present or self._is_due())
            if not waiting:
                return
            # Call nothing before it is handed over, as in `checkout_into`.
            waiter = waiting[0]
            entry = idle[0] if idle else None
            if waiter.conn is None and waiter.error is None:
                if (
                    entry is None
                    or now - entry.starttime > recycle > -1
                    or self._invalidate_time > entry.starttime
                    or entry._soft_invalidate_time > entry.starttime
                ):
                    most = min(len(waiting), self._most_opening)
                    if len(self.opening) >= most or not (entry or self._has_room):
                        return
                    self._open(entry or self._new_entry())
                    continue
                if not due:
                    waiter.call()
                    return
                waiter.conn = entry
            if waiter.conn is not None:
                self.leased[waiter.conn] = None
                if entry is waiter.conn:
                    del idle[0]
            waiter.wake()
            if waiting and waiting[0] is waiter:
                del waiting[0]

    def _new_entry(self) -> Any:
        """Return an entry without a connection. Under the lock."""
        entry: Any = _ConnectionRecord(self, connect=False)
        if self._record_infos:
            entry.record_info.update(self._record_infos.popleft())
        return entry

    def _complete_struck(self) -> None:
        """Complete what was interrupted. Under the lock."""
        for entry, call in list(self.opening.items()):
            if entry in self.idle:
                self.idle.remove(entry)
            self._start(entry, call)
        self._serve()

    # Opening.

    def _open(self, entry: Any) -> None:
        """Open the connection of *entry*, or reopen one that is too old. Under the lock."""
        # In the context of this thread, which a function for credentials may read.
        call = BackgroundCall(partial(copy_context().run, self._connect_entry, entry))
        if self.idle and self.idle[0] is entry:
            self.opening[entry] = call
            del self.idle[0]
        elif entry.dbapi_connection is None:
            self.opening[entry] = call
        else:  # a signal handler has taken the entry meanwhile
            return
        self._start(entry, call)

    def _start(self, entry: Any, call: BackgroundCall) -> None:
        try:
            call.start()
        except RuntimeError as error:
            self._connect_failed(entry, error)

    def _connect_entry(self, entry: Any) -> None:
        """Connect, in a thread in which no exception from outside is raised."""
        permits = self.permits
        try:
            if permits is not None:
                permits.begin()  # at once, because no other connection is being opened
            try:
                entry.get_connection()
            finally:
                if permits is not None:
                    permits.end()
            entry.info[REMEMBERED] = PooledConnection(None, monotonic())
        except NoPermit:
            with self._lock:
                self.opening.pop(entry, None)
                self._serve()
        except BaseException as error:  # noqa: BLE001 - for the waiter
            with self._lock:
                self._connect_failed(entry, error)
                self._serve()
        else:
            self.failure = None
            with self._lock:
                # It counts as new, even with a recycle time of 0.
                if self._waiting:
                    del self.opening[entry]
                    self.leased[entry] = None
                    self._waiting.popleft().set(entry)
                    if permits is not None:
                        self._serve()  # the next connection can be opened
                else:
                    self._put_back(entry)

    def _connect_failed(self, entry: Any, error: BaseException) -> None:
        """Report that *entry* could not connect to the first waiter. Under the lock."""
        self.opening.pop(entry, None)
        self.failure = error
        if self._waiting:
            told = CannotConnect(f"{error}")
            told.__cause__ = error
            self._waiting[0].fail(told)
            del self._waiting[0]

    def _put_back(self, entry: Any) -> None:
        """Make *entry* idle, after use or when it has been opened. Under the lock."""
        if self.closed or 0 < self._max_idle <= len(self.idle):
            self._close_entry(entry)
        else:
            self.idle.append(entry)
        self.leased.pop(entry, None)
        self.opening.pop(entry, None)
        self._serve()

    # Closing.

    def _discard(self, entry: Any, *, broken: bool = False) -> None:
        """Close *entry*, and serve a waiter in its place. This may be called again."""
        if broken and self._invalidate_time < entry.starttime:
            self._invalidate_time = time.time()
            self.logger.info(
                "Disconnection detected, invalidating all pooled connections prior to current "
                "timestamp"
            )
        self._close_entry(entry, broken=broken)
        lock = self._lock
        held = depth(lock)
        try:
            lock.acquire()
            if self.leased.pop(entry, _NOT_LEASED) is None and entry.record_info:
                self._record_infos.append(entry.record_info)
            self._serve()
            lock.release()
        except BaseException:
            if depth(lock) > held:
                self._complete_struck()
                release_to(lock, held)
            raise

    def _close_entry(self, entry: Any, *, broken: bool = False) -> None:
        # Close it here first, because SQLAlchemy would swallow an exception and only log it.
        if (raw := entry.dbapi_connection) is not None:
            raw.close()
        if broken:
            entry.invalidate()
        else:
            entry.close()

    def close(self) -> None:
        """Close idle connections now, others when they come back; make waiting threads fail."""
        locked(self._lock, self._turn_away)
        self.dispose()

    def _turn_away(self) -> None:
        self.closed = True
        while self._waiting:
            self._waiting[0].fail(PoolClosed("the pool was closed"))
            del self._waiting[0]

    # QueuePool's own methods, for `connect()` and `dispose()`.

    def _do_get(self) -> ConnectionPoolEntry:
        slot = Slot()
        try:
            self.checkout_into(slot)
        except CannotConnect as error:
            raise error.__cause__ from None  # type: ignore[misc]
        connection: Any = slot.connection
        entry: ConnectionPoolEntry = connection.entry
        try:
            self.lend(entry)
        except BaseException:
            self.discard_from(slot)
            raise
        connection.raw = connection.entry = None
        return entry

    def _do_return_conn(self, record: Any) -> None:
        if record.dbapi_connection is None:  # invalidated
            self._discard(record)
            return
        try:
            clean = self.normalize(record)
            if REMEMBERED not in record.info:  # SQLAlchemy has reconnected
                record.info[REMEMBERED] = PooledConnection(None, monotonic())
        except BaseException as error:
            self._discard(record, broken=True)
            if not isinstance(error, Exception):
                raise
            return
        if not clean:
            self._discard(record)
            return
        with self._lock:
            self._put_back(record)

    def dispose(self) -> None:
        # QueuePool's own method forgets checked-out connections, and then opens too many.
        locked(self._lock, self._dispose)

    def _dispose(self) -> None:
        while self.idle:
            self._close_entry(self.idle[0])
            del self.idle[0]
        self._record_infos.clear()
        self.logger.info("Pool disposed. %s", self.status())
