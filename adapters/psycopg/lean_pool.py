"""LeanPool: psycopg_pool's ConnectionPool, with a fast checkout and checkin for leases."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import get_ident
from time import monotonic, sleep
from typing import Any, cast
from weakref import WeakValueDictionary, ref

import psycopg
import psycopg_pool
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests
from psycopg_pool._acompat import gather
from psycopg_pool.base import AttemptWithBackoff
from psycopg_pool.pool import (
    AddConnection,
    MaintenanceTask,
    Schedule,
    ShrinkPool,
    StopWorker,
    WaitingClient,
)
from psycopg_pool.sched import Scheduler

from relet.adapters.drivers.psycopg import Connection
from relet.adapters.fair_queue import FairQueue
from relet.adapters.opening import forget_frames
from relet.adapters.permits import NoPermit, Permits
from relet.adapters.slots import Slot
from relet.adapters.waiter import Waiter
from relet.core import PooledConnection, TransactionStatus
from relet.core.locks import depth, locked, release_to
from relet.core.outside import from_handler

from .callbacks import Refused

#: The maximal interval, in seconds, between attempts to connect while a thread waits.
_RETRY_INTERVAL = 0.5
_TIMED_OUT = "couldn't get a connection after {:.2f} sec"


class Failed(psycopg.OperationalError):
    """A connection cannot be opened, and retrying is useless; the reason is the `__cause__`."""


class _Attempt(AddConnection):
    """An attempt to connect that is scheduled for later, or for now if a thread waits."""

    def __init__(self, pool: LeanPool, later: AddConnection) -> None:
        super().__init__(pool, later.attempt, growing=later.growing)
        #: The earliest time for it, in seconds of `time.monotonic`; None once it was hastened.
        self.soonest: float | None = monotonic() + _RETRY_INTERVAL

    def tick(self) -> None:
        pool: Any = self.pool()
        if pool is not None and pool._attempts.pop(self, None) is not None:
            super().tick()


class _Need(MaintenanceTask):
    """A thread waits: grow the pool, and hasten the attempts that are scheduled for later."""

    def _run(self, pool: Any) -> None:
        with pool._lock:
            pool._needed = False
            if not pool._waiting:
                return
            pool._hasten()
            if pool._growing or pool._nconns >= pool._max_size:
                return
            pool._nconns += 1
            pool._growing = True
        pool._add_connection(None, growing=True)


class _Return(MaintenanceTask):
    """Reset a connection or, if it is closed, replace it; only once, even if called again."""

    def __init__(self, pool: LeanPool, raw: Connection, *, expired: bool = False) -> None:
        super().__init__(pool)
        #: None once the task is withdrawn.
        self.raw: Connection | None = raw
        self.expired = expired

    def run(self) -> None:
        pool = cast("LeanPool | None", self.pool())
        if pool is None or pool.closed:
            if self.raw is not None:
                self.raw.close()
            return
        with pool._lock:
            raw = self.raw
            if raw is None or raw._pool is not pool:
                return
            raw._pool = None
        if self.expired:
            pool._add_connection(None)
        else:
            pool._return_connection(raw, from_getconn=False)

    def _run(self, pool: Any) -> None:
        """Never called."""


class _StopScheduler(MaintenanceTask):
    def __init__(self, pool: LeanPool) -> None:
        super().__init__(pool)
        self._sched = pool._sched

    def run(self) -> None:
        self._sched.enter(0, None)

    def _run(self, pool: Any) -> None:
        """Never called."""


class LeanPool(FairQueue, psycopg_pool.ConnectionPool[Connection]):
    """A `ConnectionPool` with a fast checkout and checkin for leases.

    With leases, each statement is a checkout and a checkin. psycopg_pool's own spend a fifth of the
    CPU of a ``SELECT 1``, mostly on log calls, look-ups, and two locks for each wait. Here each is
    one step under the pool's lock. Rare tasks are left to the pool: growing, replacing, resetting,
    expiring. Waiting threads are served in order. The idle connection that was used last is the
    first to be reused: its server process is warm and has the prepared statements, and superfluous
    connections stay idle, so that the pool closes them.

    An exception from outside may be raised at any instruction. A connection is moved in steps that
    are undone or completed before the lock is released. Tasks that need the pool's own code are put
    into its queue, in one step, and done by its threads, in which no such exception is raised.
    psycopg_pool itself cleans up only after an `Exception`, and not everywhere. Its queues and
    events are written in Python: a `KeyboardInterrupt` in the middle of them can leave a lock held,
    hand a connection to a waiter that has gone, or keep the pool from ever growing again.

    When connecting fails, psycopg_pool doubles the delay before each retry, so requests would wait
    long after the server is back. Here it retries every half second while a thread waits.

    This class relies on private parts of psycopg_pool 3.3, see `relet.adapters`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        opens: bool | None = options.pop("open", None)
        self._attempts: dict[_Attempt, bool] = {}
        #: Whether a `_Need` is queued. Changed under the lock.
        self._needed = False
        #: Whether the first connections are open, or queued to be opened.
        self._filled = False
        #: Prepares a connection for other code, which takes it by `getconn`.
        self.lend: Callable[[Connection], object] = lambda raw: None
        #: Prepares a connection that came back, for leases; returns whether that worked. It is told
        #: whether the connection was lent.
        self.normalize: Callable[[Connection, bool], bool] = lambda raw, lent: True
        #: All connections, by identity, and perhaps some that were closed.
        self._made: WeakValueDictionary[int, PooledConnection] = WeakValueDictionary()
        #: The error of the last attempt to connect; None if it succeeded.
        self.failure: Exception | None = None
        #: The pool's part in its budget, if it has one; `share_budget` sets it.
        self.permits: Permits | None = None
        #: The threads that are connecting.
        self.connecting: set[int] = set()
        # These classes are written in C: their `put()` is one step, even if interrupted.
        self._tasks: Any = SimpleQueue()
        self._sched = Scheduler()
        super().__init__(*args, open=False, **options)
        self._held = self._lock._is_owned
        #: Whether other code has used `getconn`.
        self._lends = False
        # Threads start here, so every attribute is set before.
        self._open_implicit = opens is None
        if opens or opens is None:
            self.open()

    # Leases. This is the hot path.

    def checkout_into(self, slot: Any, timeout: float | None = None) -> None:
        """See `relet.core.PoolAdapter.checkout_into`.

        :raises PoolTimeout: no connection came free in time.
        :raises TooManyRequests: ``max_waiting`` threads wait already.
        :raises PoolClosed: the pool is closed.
        """
        lock = self._lock
        held = self._held() and depth(lock)
        try:
            lock.acquire()
            ready = self._pool
            if ready and not self._closed and not (self._waiting and self._is_due()):
                # Call nothing before it is taken out: a signal handler that uses the pool must find
                # it either in the pool or checked out.
                raw: Any = ready[-1]
                connection = raw.relet
                connection.raw = raw
                raw._pool = self
                slot.connection = connection
                del ready[-1]
                if len(ready) < self._nconns_min:
                    self._nconns_min = len(ready)
                self._stats["requests_num"] += 1
                lock.release()
                return
            lock.release()
        except BaseException:
            if depth(lock) > held:
                self._settle_checkout(slot)
                release_to(lock, held)
            raise
        self._wait_into(slot, timeout)

    def checkin_from(self, slot: Any) -> None:
        """See `relet.core.PoolAdapter.checkin_from`."""
        connection = slot.connection
        raw = connection.raw
        connection.last_used_at = now = monotonic()
        if raw._expire_at <= now or raw._created_at <= self._drained_at:
            self.discard_from(slot, expired=True)
            return
        if self._reset is None and self._pool_full_event is None:
            lock = self._lock
            held = self._held() and depth(lock)
            try:
                lock.acquire()
                if not (self._waiting or self._closed):
                    connection.raw = raw._pool = None  # avoid a reference cycle
                    slot.connection = None
                    self._pool.append(raw)
                    lock.release()
                    return
                lock.release()
            except BaseException:
                if depth(lock) > held:
                    if raw not in self._pool:
                        self._attach(raw, slot)
                    release_to(lock, held)
                raise
        self._pass_on(slot, raw)

    def discard_from(self, slot: Any, *, expired: bool = False) -> None:
        """See `relet.core.PoolAdapter.discard_from`."""
        connection = slot.connection
        if (raw := connection.raw) is not None:
            raw.close()
            if not self._closed:
                self._tasks.put(_Return(self, raw, expired=expired))
        connection.raw = None
        slot.connection = None

    # Rare cases.

    def getconn(self, timeout: float | None = None) -> Connection:
        """See psycopg_pool. Leases do not use it."""
        self._lends = True
        raw: Any = super().getconn(timeout)
        raw.relet.lent = True
        try:
            self.lend(raw)
        except BaseException:
            self.putconn(raw)
            raise
        return raw  # type: ignore[no-any-return]

    @property
    def in_use(self) -> int:
        """How many connections are checked out, by leases and by other code."""
        connections = (reference() for reference in self._made.valuerefs())
        return sum(
            found is not None and (found.raw is not None or found.lent) for found in connections
        )

    @property
    def checks(self) -> bool:
        """Whether the options have a ``check`` for each connection."""
        return self._check is not None

    def _settle_checkout(self, slot: Any) -> None:
        """Complete or undo a checkout that was interrupted, under the lock."""
        connection = slot.connection
        if connection is None:
            if self._pool:
                self._detach(self._pool[-1])
        elif connection.raw in self._pool:
            slot.connection = None
            self._detach(connection.raw)

    def _attach(self, raw: Connection, slot: Any) -> None:
        """Put *raw*, which has no other owner, into *slot*."""
        connection: PooledConnection = raw.relet  # type: ignore[attr-defined]
        connection.raw = raw
        raw._pool = self
        slot.connection = connection

    def _detach(self, raw: Connection) -> None:
        connection: PooledConnection = raw.relet  # type: ignore[attr-defined]
        connection.raw = raw._pool = None

    def _wait_into(self, slot: Any, timeout: float | None) -> None:
        """Wait for a connection, because none is idle."""
        seconds = self.timeout if timeout is None else timeout
        began = monotonic()
        waiter = Waiter(began)
        error: BaseException | None = None
        lock = self._lock
        held = self._held() and depth(lock)
        # The pool's errors are raised at the end, because an except clause may be interrupted, too.
        try:
            lock.acquire()
            queued = self._closed or not self._pool or self._is_due()
            if queued and (error := self._refusal()) is None:
                self._queue_up(waiter)
            lock.release()
            if queued and error is None:
                self._await_turn(waiter, began + seconds)
                if waiter.conn is None:  # else a connection came at the last moment
                    error = waiter.error or PoolTimeout(_TIMED_OUT.format(seconds))
                else:
                    self._attach(waiter.conn, slot)
                self._stats["requests_wait_ms"] += int(1000 * (monotonic() - began))
        except BaseException:
            if depth(lock) == held:
                lock.acquire()
            self._give_up(waiter)
            release_to(lock, held)
            if waiter.conn is not None and slot.connection is None:
                given = Slot()
                self._attach(waiter.conn, given)
                self.checkin_from(given)
            self._tasks.put(_Need(self))  # for other waiters, if it was not queued yet
            self._stats["requests_errors"] += 1
            raise
        if error is not None:
            self._stats["requests_errors"] += 1
            raise error
        if not queued:  # a connection has come back meanwhile
            self.checkout_into(slot, timeout)

    def _refusal(self) -> psycopg.OperationalError | None:
        """Return the error if no thread may wait now."""
        if self._closed:
            when = "is already closed" if self._opened else "is not open yet"
            return PoolClosed(f"the pool {self.name!r} {when}")
        if 0 < self.max_waiting <= (waiting := len(self._waiting)):
            return TooManyRequests(f"the pool {self.name!r} has already {waiting} requests waiting")
        return None

    def _queue_up(self, waiter: Waiter) -> None:
        """Queue *waiter*, and let the pool grow for it. Called under the lock."""
        self._stats["requests_num"] += 1
        self._stats["requests_queued"] += 1
        self._waiting.append(waiter)
        self._serve()  # another waiter may be due
        grows = not self._growing and self._nconns < self._max_size
        if (grows or self._attempts) and not self._needed:
            self._needed = True
            self._tasks.put(_Need(self))

    def _pass_on(self, slot: Any, raw: Connection) -> None:
        """Check in if the connection must be handed to a waiter, reset, or closed."""
        lock = self._lock
        held = self._held() and depth(lock)
        try:
            lock.acquire()
            if not self._closed:
                if (
                    self._reset is not None
                    or self._pool_full_event is not None
                    or self._others_wait()
                ):
                    self._leave_to_worker(slot, raw)
                else:
                    self._give(slot, raw)
                lock.release()
                return
            lock.release()
        except BaseException:
            release_to(lock, held)
            raise
        self.discard_from(slot)

    def _others_wait(self) -> bool:
        """Return whether a getconn() of other code waits, whose waking could be interrupted."""
        return self._lends and any(isinstance(waiter, WaitingClient) for waiter in self._waiting)

    def _leave_to_worker(self, slot: Any, raw: Connection) -> None:
        task = _Return(self, raw)
        connection = slot.connection
        try:
            connection.raw = None
            slot.connection = None
            self._tasks.put(task)
        except BaseException:
            # The task may be queued, but the worker waits for the lock first.
            task.raw = None
            self._attach(raw, slot)
            raise

    def _give(self, slot: Any, raw: Connection) -> None:
        """Put *raw* back, and serve the waiters."""
        try:
            try:
                self._detach(raw)
                slot.connection = None
                self._pool.append(raw)
            except BaseException:
                if raw not in self._pool and raw.relet.raw is None:  # type: ignore[attr-defined]
                    self._attach(raw, slot)
                raise
            self._serve()
        except BaseException:
            self._serve()
            raise

    def _serve(self, present: Waiter | None = None) -> None:
        ready, waiting = self._pool, self._waiting
        while waiting:
            due = waiting[0] is present or self._is_due()
            if not waiting:
                return
            waiter = waiting[0]
            if isinstance(waiter, WaitingClient):  # psycopg_pool's own, of getconn()
                if not ready:
                    return
                if waiter.set(ready[-1]):
                    del ready[-1]
                waiting.popleft()
                continue
            # Call nothing before it is handed over, as in `checkout_into`.
            if not (waiter.left or waiter.conn is not None or waiter.error is not None):
                if not ready:
                    return
                if not due:
                    waiter.call()
                    return
                waiter.conn = ready[-1]
            if (given := waiter.conn) is not None and given in ready:
                ready.remove(given)
                self._nconns_min = min(self._nconns_min, len(ready))
            waiter.wake()
            if waiting and waiting[0] is waiter:
                del waiting[0]

    def checkout_checked_into(self, slot: Any, timeout: float | None = None) -> None:
        """`checkout_into` for a pool that must ``check`` each connection.

        :raises Refused: a new connection works, but ``check`` refuses it.
        """
        seconds = self.timeout if timeout is None else timeout
        began = monotonic()
        deadline = began + seconds
        attempt: AttemptWithBackoff | None = None
        while True:
            self.checkout_into(slot, max(deadline - monotonic(), 0))
            raw = slot.connection.raw
            try:
                self._check_connection(raw)
                return
            except Exception as error:
                if from_handler(error):
                    raise
                failed = error
            new = raw._created_at >= began
            self.discard_from(slot)
            if new and isinstance(failed, Refused):
                # The next ones would be refused, too, until the timeout.
                raise failed
            now = monotonic()
            if new:
                # Back off as `getconn` does. The idle ones that fail are limited in number.
                if attempt is None:
                    attempt = AttemptWithBackoff(timeout=deadline - now)
                else:
                    attempt.update_delay(now)
            if now >= deadline or (attempt is not None and attempt.time_to_give_up(now)):
                raise PoolTimeout(_TIMED_OUT.format(seconds)) from failed
            if new and attempt is not None:
                sleep(attempt.delay)

    # The budget.

    def share_budget(self, permits: Permits) -> None:
        """Take a permit for each connection. Called before the pool is opened."""
        found = ref(self)
        permits.wanted = lambda: (pool := found()) is not None and pool._wants_permit()
        permits.guaranteed = max(self._min_size, 1)
        self.permits = permits

    def _wants_permit(self) -> bool:
        permits = self.permits
        short = permits is not None and permits.held < self._min_size
        return not self._closed and (bool(self._waiting) or short)

    def give_up(self, slot: Any) -> None:
        """Close a connection without a replacement, because other processes need it more."""
        connection = slot.connection
        if connection.raw is not None:
            connection.raw.close()
            with self._lock:
                self._nconns -= 1
        connection.raw = slot.connection = None
        self._go_on(refused=True)  # threads that wait have one connection less to wait for

    def _add_connection(self, attempt: AttemptWithBackoff | None, growing: bool = False) -> None:
        permits = self.permits
        if permits is None:
            super()._add_connection(attempt, growing=growing)
            return
        if not permits.begin():  # the thread that asks will go on
            self._forgo(growing)
            return
        refused = False
        try:
            super()._add_connection(attempt, growing=growing)
        except NoPermit:
            refused = True
            self._forgo(growing)
        finally:
            permits.end()
            self._go_on(refused)

    def _forgo(self, growing: bool) -> None:
        """Do without a connection that was to be opened."""
        with self._lock:
            self._nconns -= 1
            if growing:
                self._growing = False

    def _go_on(self, refused: bool) -> None:
        """Open the connections that other threads had to do without.

        :param refused: whether there was no permit. Then only a thread that waits makes it ask.
        """
        with self._lock:
            if self._closed:
                return
            if self._waiting and not self._needed:
                self._needed = True
                self._tasks.put(_Need(self))
            elif self._nconns < self._min_size and not refused:
                self._nconns += 1
                self._tasks.put(AddConnection(self))

    # Opening, connecting, closing.

    def reach(self) -> None:
        """Open the pool and its first connection, in a thread that is never interrupted.

        :raises Exception: connecting failed. This may be called again.
        """
        with self._lock:
            if self._filled and not self._closed:
                return  # the user has opened it, with `connection.pool.open()`
            self._start()
            grown = 0 if self._nconns else 1
            self._nconns += grown
        permits = self.permits
        opens = permits is None or permits.begin(patient=False)
        try:
            raw = self._connect() if opens else None
        except NoPermit:
            raw = None
        except BaseException:
            with self._lock:
                self._nconns -= grown
            raise
        finally:
            if permits is not None and opens:
                permits.end()
        if raw is None:  # it can be reached, but the budget is spent
            with self._lock:
                self._nconns -= grown
            self._fill()
            return
        self._add_to_pool(raw)
        self._fill(has=1)

    def _open(self) -> None:
        if self._closed:
            self._start()
            self._fill()

    def _start(self) -> None:
        """Start the threads, but open no connections. Called under the lock."""
        if self._closed:
            self._check_open()
            self._closed, self._opened = False, True
            try:
                self._start_workers()
            except BaseException:
                self._signal_stop_worker()
                self._closed, self._opened = True, False
                raise

    def _fill(self, has: int = 0) -> None:
        """Queue the opening of ``min_size`` connections, minus the *has* that are open."""
        self._filled = True
        for _ in range(has, self._min_size):
            self.run_task(AddConnection(self))
        self.run_task(Schedule(self, ShrinkPool(self), self.max_idle))

    def _connect(self, timeout: float | None = None) -> Connection:
        thread = get_ident()
        self.connecting.add(thread)
        try:
            raw: Any = super()._connect(timeout)
        except Exception as error:
            # psycopg's error refers to itself, and so keeps the half-open connection alive.
            forget_frames(error)
            told = error
            if isinstance(error, psycopg.Error) and not isinstance(error, Refused):
                told = type(error)(str(error))
            self.failure = told
            if isinstance(error, Refused) or not isinstance(error, psycopg.OperationalError):
                with self._lock:
                    self._fail_waiting(told)
            raise
        finally:
            self.connecting.discard(thread)
        self.failure = None
        raw.relet = connection = PooledConnection(None, monotonic())
        self._made[id(connection)] = connection
        return raw  # type: ignore[no-any-return]

    def _fail_waiting(self, error: Exception) -> None:
        """Make waiting threads raise *error*, because the next attempt would fail, too.

        If connections are in use, waiters may still get one of those, so each failed attempt is
        reported to only one waiter. Called under the lock.
        """
        waiting: Any = self._waiting
        count = 1 if self.in_use else len(waiting)
        while waiting and count > 0:
            told = Failed(f"{error}")
            told.__cause__ = error
            waiting[0].fail(told)
            del waiting[0]
            count -= 1

    def _reset_connection(self, conn: Connection) -> None:
        # Other code had this connection, by getconn() or in a lease, and may have changed it.
        connection: Any = conn.relet  # type: ignore[attr-defined]
        lent, connection.lent = connection.lent, False
        try:
            if conn.lock.locked():
                # A notifies(), stream() or copy() was left open: the next call would wait for it.
                self._close_connection(conn)
                return
            super()._reset_connection(conn)
            idle = conn.pgconn.transaction_status == TransactionStatus.IDLE
            if idle and not self.normalize(conn, lent):
                self._close_connection(conn)
        except BaseException:
            conn.close()
            self._tasks.put(_Return(self, conn))
            raise

    def schedule_task(self, task: Any, delay: float) -> None:
        if isinstance(task, AddConnection):
            task = _Attempt(self, task)
            self._attempts[task] = True
            if self._waiting:
                delay = min(delay, _RETRY_INTERVAL)
        super().schedule_task(task, delay)

    def _hasten(self) -> None:
        """Make the scheduled attempts as soon as possible."""
        now = monotonic()
        for attempt in list(self._attempts):
            if attempt.soonest is not None:
                self._sched.enter(max(attempt.soonest - now, 0), attempt.tick)
                attempt.soonest = None

    def close(self, timeout: float = 5.0) -> None:
        """Close it, whether it was opened or not. After an interrupt, call this again."""
        locked(self._lock, self._close_what_is_ready)
        deadline = monotonic() + timeout
        for worker in self._signal_stop_worker():
            # All workers share the timeout, because some may still be connecting.
            gather(worker, timeout=max(deadline - monotonic(), 0))
        locked(self._lock, self._turn_away)

    def _close_what_is_ready(self) -> None:
        self._closed = self._opened = True
        while self._pool:
            self._close_connection(self._pool[-1])
            del self._pool[-1]

    def _turn_away(self) -> None:
        while self._waiting:
            self._waiting[0].fail(PoolClosed(f"the pool {self.name!r} is closed"))
            del self._waiting[0]

    def _signal_stop_worker(self) -> list[Any]:
        self._tasks.put(_StopScheduler(self))
        for _ in self._workers:
            self._tasks.put(StopWorker(self))
        stopped: list[Any] = [*self._workers, *filter(None, [self._sched_runner])]
        self._workers, self._sched_runner = [], None
        return stopped
