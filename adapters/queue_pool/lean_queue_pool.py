"""LeanQueuePool: SQLAlchemy's QueuePool, with a checkout and a checkin made for leases."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from math import inf
from time import monotonic
from typing import Any

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.pool.base import _ConnectionRecord

from relet.adapters.slots import Slot
from relet.adapters.waiter import Waiter
from relet.core import PooledConnection
from relet.core.background import BackgroundCall
from relet.core.locks import depth, locked, release_to

#: The key, in the `info` of a pool's entry, of what relet remembers of its connection.
#: SQLAlchemy empties `info` when it connects again.
REMEMBERED = "relet"

#: Seconds that somebody waits at least for whom a connection is being opened.
_MIN_WAIT = 0.2
#: In place of None, which `LeanQueuePool.leased` has for each entry.
_NOT_LEASED = object()
_TIMED_OUT = "couldn't get a connection after {:.2f} sec"


class PoolClosed(exc.SQLAlchemyError):
    """The pool was closed."""


class CannotConnect(exc.SQLAlchemyError):
    """A connection could not be opened; its `__cause__` is why."""


class LeanQueuePool(QueuePool):
    """A `QueuePool` whose entries can be had without the proxy around them.

    ``connect()`` makes a proxy and a finalizer for each checkout, and asks for the time
    and the log level; a lease, which is one of each for every statement, needs none of that.
    `checkout_into` and `checkin_from` do what is to be done in one step under the queue's own lock.

    They are fair. QueuePool lets whoever comes have a connection that was just returned,
    before those who have been woken for it; here it is handed to whoever has waited longest.
    When a connection could not be opened, or was thrown away, its place goes to whoever waits,
    who else would wait in vain.

    Connections are opened in threads of their own, one for each, while those who want them wait in
    the queue. So nobody waits longer than he has said, whatever the server does; those
    that are being opened are among those the pool may have, so they are never too many; and no
    exception from outside is raised in the middle of it.

    Such an exception may be raised at any instruction of the rest. A connection is moved in steps
    that are undone, or completed, before the lock is released. How many there are is not
    counted: they are in one of three places, `idle`, `leased`, `opening`.

    All of QueuePool's methods work beside it, and see the same entries.

    They rely on the pool's insides, see `LEAN`.
    """

    #: What SQLAlchemy names the logger after: it is that of a QueuePool.
    _sqla_logger_namespace = f"{QueuePool.__module__}.{QueuePool.__name__}"

    def __init__(self, *args: Any, **options: Any) -> None:
        #: Entries that are checked out.
        self.leased: dict[Any, None] = {}
        #: Entries whose connections are being opened.
        self.opening: dict[Any, BackgroundCall] = {}
        super().__init__(*args, **options)
        queue: Any = self._pool
        #: Entries that are ready.
        self.idle: deque[Any] = queue.queue
        self._lock = queue.mutex
        self._held = self._lock._is_owned
        self._next_index = -1 if queue.use_lifo else 0
        self._max_idle: int = queue.maxsize
        self._waiting: deque[Waiter] = deque()
        #: The ``record_info`` of entries that were thrown away, for those that take their place.
        self._record_infos: deque[dict[Any, Any]] = deque()
        self.closed = False
        #: Makes an entry that others have used through `connect()` as leases have it, or raises.
        self.normalize: Callable[[Any], object] = lambda entry: None
        #: Those whose checkout was logged. The level may be set at any time, and is looked at once
        #: a lease: to look takes time.
        self.logged: set[PooledConnection] = set()
        #: What went wrong the last time, if connecting did.
        self.failure: BaseException | None = None
        #: See `relet.core.PoolStats`.
        self.checkouts = self.waits = self.wait_ms = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def _overflow(self) -> int:
        """How many there are more than ``pool_size``, or fewer."""
        size: int = self._pool.maxsize
        return len(self.leased) + len(self.opening) + len(self.idle) - size

    @_overflow.setter
    def _overflow(self, value: int) -> None:
        """QueuePool would count."""

    # Leases. This is the hot path.

    def checkout_into(self, slot: Any, timeout: float | None = None) -> None:
        """See `relet.core.PoolAdapter.checkout_into`.

        :param timeout: seconds; by default the pool's own.
        :raises sqlalchemy.exc.TimeoutError: none came free in time.
        :raises CannotConnect: a connection could not be opened.
        :raises PoolClosed: the pool is closed.
        """
        recycle = self._recycle
        now = time.time() if recycle > -1 else 0.0
        lock, idle, entry = self._lock, self.idle, None
        held = self._held() and depth(lock)
        try:
            lock.acquire()
            if idle and not self.closed:
                # Until it is taken out, nothing is called: a finalizer, or a signal handler, that
                # uses the pool in the middle of this finds it before or after.
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
                if entry in idle:  # else it is done
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
            # Nobody waits where there are as many as are kept.
            if not (self.closed or 0 < self._max_idle <= len(idle)):
                connection.raw = connection.entry = slot.connection = None  # no reference loops
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

        :param broken: the server has closed it. It may have closed all that are as old, so
            they are not used again, as with SQLAlchemy's Engine.
        """
        connection = slot.connection
        self.logged.discard(connection)
        if (entry := connection.entry) is not None:
            self._discard(entry, broken=broken)
        connection.raw = connection.entry = slot.connection = None

    # The log, as SQLAlchemy has it for each checkout and checkin through `connect()`.

    def log_checkout(self, connection: PooledConnection) -> None:
        """Log that *connection* is checked out; then so is its checkin."""
        self.logged.add(connection)
        self.logger.debug("Connection %r checked out from pool", connection.raw)

    def log_checkin(self, connection: PooledConnection) -> None:
        """Log that *connection* is about to be checked in, if its checkout was logged."""
        if connection in self.logged:
            self.logged.discard(connection)
            self.logger.debug("Connection %r being returned to pool", connection.raw)

    # What is rare. Methods that say so are called under the lock.

    @property
    def _has_room(self) -> bool:
        return self._max_overflow == -1 or self._overflow < self._max_overflow

    @staticmethod
    def _attach(entry: Any, slot: Any) -> None:
        """Put *entry*, which is leased and which nobody else has, into *slot*."""
        connection = entry.info[REMEMBERED]
        connection.raw, connection.entry = entry.dbapi_connection, entry
        slot.connection = connection

    @staticmethod
    def _detach(entry: Any) -> None:
        if (connection := entry.info.get(REMEMBERED)) is not None:
            connection.raw = connection.entry = None

    def _wait_into(self, slot: Any, timeout: float | None) -> None:
        """None was ready: wait for one."""
        seconds: float | None = self._timeout if timeout is None else timeout
        if seconds is None:  # as in SQLAlchemy, it is the pool's option
            seconds = inf
        began = monotonic()
        waiter = Waiter()
        error: BaseException | None = None
        lock = self._lock
        held = self._held() and depth(lock)
        # Errors of the pool's are raised at the end, for a handler may be struck, too.
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
                waiter.wait(max(seconds, _MIN_WAIT) if self.opening else seconds)
                if waiter.conn is None:
                    lock.acquire()
                    waiter.leave(self._waiting)
                    lock.release()
                if waiter.conn is None:  # else it has come at the last moment
                    error = waiter.error or exc.TimeoutError(_TIMED_OUT.format(seconds))
                else:
                    self._attach(waiter.conn, slot)
                self.wait_ms += int(1000 * (monotonic() - began))
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._complete_struck()
            waiter.leave(self._waiting)
            if waiter.conn is not None and slot.connection is None:
                self._detach(waiter.conn)
                self._put_back(waiter.conn)
            release_to(lock, held)
            raise
        if error is not None:
            raise error

    def _serve(self) -> None:
        """Give what there is to those who wait, and open more for the others. Under the lock.

        What was struck in the middle is completed by calling it again.
        """
        idle, waiting, recycle = self.idle, self._waiting, self._recycle
        while True:
            now = time.time() if recycle > -1 else 0.0
            if not waiting:
                return
            # Nothing is called until it is given, as in `checkout_into`.
            waiter = waiting[0]
            entry = idle[0] if idle else None
            if waiter.conn is None and waiter.error is None:
                if (
                    entry is None
                    or now - entry.starttime > recycle > -1
                    or self._invalidate_time > entry.starttime
                    or entry._soft_invalidate_time > entry.starttime
                ):
                    if len(self.opening) >= len(waiting) or not (entry or self._has_room):
                        return
                    self._open(entry or self._new_entry())
                    continue
                waiter.conn = entry
            if waiter.conn is not None:
                self.leased[waiter.conn] = None
                if entry is waiter.conn:
                    del idle[0]
            waiter.wake()
            if waiting and waiting[0] is waiter:
                del waiting[0]

    def _new_entry(self) -> Any:
        """Return an entry that has no connection yet. Under the lock."""
        entry: Any = _ConnectionRecord(self, connect=False)
        if self._record_infos:
            entry.record_info.update(self._record_infos.popleft())
        return entry

    def _complete_struck(self) -> None:
        """Complete what was struck, under the lock."""
        for entry, call in list(self.opening.items()):
            if entry in self.idle:
                self.idle.remove(entry)
            self._start(entry, call)
        self._serve()

    # Opening.

    def _open(self, entry: Any) -> None:
        """Have the connection of *entry* opened, again if it is too old. Under the lock."""
        # As whoever wants it would: what is asked for parameters may look at the context.
        call = BackgroundCall(partial(copy_context().run, self._connect_entry, entry))
        if self.idle and self.idle[0] is entry:
            self.opening[entry] = call
            del self.idle[0]
        elif entry.dbapi_connection is None:
            self.opening[entry] = call
        else:  # a signal handler has taken it meanwhile
            return
        self._start(entry, call)

    def _start(self, entry: Any, call: BackgroundCall) -> None:
        try:
            call.start()
        except RuntimeError as error:
            self._connect_failed(entry, error)

    def _connect_entry(self, entry: Any) -> None:
        """Open it, in a thread where no exception from outside is raised."""
        try:
            entry.get_connection()
            entry.info[REMEMBERED] = PooledConnection(None, monotonic())
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            with self._lock:
                self._connect_failed(entry, error)
                self._serve()
        else:
            self.failure = None
            with self._lock:
                # It is new, even if what is older than nothing is too old.
                if self._waiting:
                    del self.opening[entry]
                    self.leased[entry] = None
                    self._waiting.popleft().set(entry)
                else:
                    self._put_back(entry)

    def _connect_failed(self, entry: Any, error: BaseException) -> None:
        """*entry* could not be opened: tell whoever has waited longest. Under the lock."""
        self.opening.pop(entry, None)
        self.failure = error
        if self._waiting:
            told = CannotConnect(f"{error}")
            told.__cause__ = error
            self._waiting[0].fail(told)
            del self._waiting[0]

    def _put_back(self, entry: Any) -> None:
        """*entry* is in use no more, or has been opened. Under the lock."""
        if self.closed or 0 < self._max_idle <= len(self.idle):
            self._close_entry(entry)
        else:
            self.idle.append(entry)
        self.leased.pop(entry, None)
        self.opening.pop(entry, None)
        self._serve()

    # Closing.

    def _discard(self, entry: Any, *, broken: bool = False) -> None:
        """Close *entry*; its place goes to whoever waits. It may be called again."""
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
        # By itself, first: SQLAlchemy logs what is raised in the middle of it, and goes on.
        if (raw := entry.dbapi_connection) is not None:
            raw.close()
        if broken:
            entry.invalidate()
        else:
            entry.close()

    def close(self) -> None:
        """Close what is idle now, and the rest when it comes back; turn away who waits."""
        locked(self._lock, self._turn_away)
        self.dispose()

    def _turn_away(self) -> None:
        self.closed = True
        while self._waiting:
            self._waiting[0].fail(PoolClosed("the pool was closed"))
            del self._waiting[0]

    # QueuePool's own way in and out, and its end.

    def _do_get(self) -> ConnectionPoolEntry:
        slot = Slot()
        try:
            self.checkout_into(slot)
        except CannotConnect as error:
            raise error.__cause__ from None  # type: ignore[misc]
        connection: Any = slot.connection
        entry: ConnectionPoolEntry = connection.entry
        connection.raw = connection.entry = None
        return entry

    def _do_return_conn(self, record: Any) -> None:
        if record.dbapi_connection is None:  # it was invalidated
            self._discard(record)
            return
        try:
            self.normalize(record)
            if REMEMBERED not in record.info:  # SQLAlchemy has connected again
                record.info[REMEMBERED] = PooledConnection(None, monotonic())
        except BaseException as error:
            self._discard(record, broken=True)
            if not isinstance(error, Exception):
                raise
        else:
            with self._lock:
                self._put_back(record)

    def dispose(self) -> None:
        # QueuePool's own forgets those that are checked out, and would open too many.
        locked(self._lock, self._dispose)

    def _dispose(self) -> None:
        while self.idle:
            self._close_entry(self.idle[0])
            del self.idle[0]
        self._record_infos.clear()
        self.logger.info("Pool disposed. %s", self.status())


#: Whether this SQLAlchemy is one that `LeanQueuePool` has been read against.
LEAN = sqlalchemy.__version__.split(".")[:2] in (["2", "0"], ["2", "1"])
