"""LeanPool: psycopg_pool's ConnectionPool, with a checkout and a checkin made for leases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import get_ident
from time import monotonic, sleep
from typing import Any, cast

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
from relet.adapters.opening import forget_frames
from relet.adapters.slots import Slot
from relet.adapters.waiter import Waiter
from relet.core import PooledConnection, TransactionStatus
from relet.core.locks import depth, locked, release_to
from relet.core.outside import from_handler

from .callbacks import Refused

#: Seconds between one attempt to connect and the next, at most, while somebody waits.
_RETRY_INTERVAL = 0.5
_TIMED_OUT = "couldn't get a connection after {:.2f} sec"


class Failed(psycopg.OperationalError):
    """A connection could not be opened, and that is nothing that time mends; `__cause__` is why."""


class _Attempt(AddConnection):
    """An attempt to connect that is made later; sooner, and still once, if somebody waits."""

    def __init__(self, pool: LeanPool, later: AddConnection) -> None:
        super().__init__(pool, later.attempt, growing=later.growing)
        #: When it may be made at the soonest, in seconds of `time.monotonic`; None: it will.
        self.soonest: float | None = monotonic() + _RETRY_INTERVAL

    def tick(self) -> None:
        pool: Any = self.pool()
        if pool is not None and pool._attempts.pop(self, None) is not None:
            super().tick()


class _Need(MaintenanceTask):
    """Somebody waits: the pool is to grow, and to make attempts now that it was to make later."""

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
    """A connection that is to be reset, or, if it is closed, replaced; once, however often told."""

    def __init__(self, pool: LeanPool, raw: Connection, *, expired: bool = False) -> None:
        super().__init__(pool)
        #: None if whoever told of it takes it back.
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
        """Not called."""


class _StopScheduler(MaintenanceTask):
    def __init__(self, pool: LeanPool) -> None:
        super().__init__(pool)
        self._sched = pool._sched

    def run(self) -> None:
        self._sched.enter(0, None)

    def _run(self, pool: Any) -> None:
        """Not called."""


class LeanPool(psycopg_pool.ConnectionPool[Connection]):
    """A `ConnectionPool` with a checkout and a checkin made for leases.

    A lease is one of each for every statement. What there is to decide takes the
    pool few steps; the others, mostly log calls and look-ups, and two locks for each
    wait, are a fifth of the CPU of a ``SELECT 1``. Here what is to be done is done in one step,
    under the pool's own lock, and what is rare is left to the pool: to grow, to
    replace, to reset, to expire. Those who wait are served in order. Of the connections
    that are ready, the last to come back is the first to go: its server process is
    warm, has the prepared statements, and those not needed stay idle, to be closed.

    An exception from outside may be raised at any instruction. A connection is moved in steps that
    are undone, or completed, before the lock is released; and what takes the pool's own code to do
    is put into its queue of tasks, in one step, and done by its threads, where no such exception is
    raised. psycopg_pool itself cleans up after an `Exception` only, and not everywhere: its queues
    and events are written in Python, and a `KeyboardInterrupt` in the middle of them leaves a lock
    taken, a place in the queue that a connection is given to, or a pool that never grows again.

    Where connections cannot be opened, psycopg_pool waits twice as long each time before it
    tries again: when the server is back, requests would wait for that. So while somebody waits
    it tries every half second.

    They rely on the pool's insides, see `LEAN`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._attempts: dict[_Attempt, bool] = {}
        super().__init__(*args, **options)
        #: Whether a `_Need` is among the tasks. Changed under the lock.
        self._needed = False
        #: Makes a connection as leases have it; returns whether that can be.
        self.normalize: Callable[[Connection], bool] = lambda raw: True
        #: What is checked out.
        self.in_use: set[PooledConnection] = set()
        #: What went wrong the last time, if connecting did.
        self.failure: Exception | None = None
        #: The threads that are connecting.
        self.connecting: set[int] = set()
        self._held = self._lock._is_owned  # type: ignore[attr-defined]
        # Their `put()` is one step, and may be interrupted.
        self._tasks: Any = SimpleQueue()
        self._sched = Scheduler()

    # Leases. This is the hot path.

    def checkout_into(self, slot: Any, timeout: float | None = None) -> None:
        """See `relet.core.PoolAdapter.checkout_into`.

        :raises PoolTimeout: none came free in time.
        :raises TooManyRequests: there are ``max_waiting`` waiting.
        :raises PoolClosed: the pool is closed.
        """
        lock = self._lock
        held = self._held() and depth(lock)
        try:
            lock.acquire()
            ready = self._pool
            if ready and not self._closed:
                # Until it is taken out, nothing is called: a signal handler that uses the pool in
                # the middle of this finds it before or after.
                raw: Any = ready[-1]
                connection = raw.relet
                connection.raw = raw
                raw._pool = self
                slot.connection = connection
                del ready[-1]
                self.in_use.add(connection)
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
                    self.in_use.discard(connection)
                    connection.raw = raw._pool = None  # no reference loop in the pool
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
        self.in_use.discard(connection)
        connection.raw = None
        slot.connection = None

    # What is rare.

    @property
    def checks(self) -> bool:
        """Whether each connection is to be looked at by its user's ``check``."""
        return self._check is not None

    def _settle_checkout(self, slot: Any) -> None:
        """A checkout was struck, under the lock: have it done, or not at all."""
        connection = slot.connection
        if connection is None:
            if self._pool:
                self._detach(self._pool[-1])
        elif connection.raw in self._pool:
            slot.connection = None
            self._detach(connection.raw)
        else:
            self.in_use.add(connection)

    def _attach(self, raw: Connection, slot: Any) -> None:
        """Put *raw*, which nobody else has, into *slot*."""
        connection: PooledConnection = raw.relet  # type: ignore[attr-defined]
        connection.raw = raw
        raw._pool = self
        self.in_use.add(connection)
        slot.connection = connection

    def _detach(self, raw: Connection) -> None:
        connection: PooledConnection = raw.relet  # type: ignore[attr-defined]
        self.in_use.discard(connection)
        connection.raw = raw._pool = None

    def _wait_into(self, slot: Any, timeout: float | None) -> None:
        """None was ready: wait for one."""
        seconds = self.timeout if timeout is None else timeout
        began = monotonic()
        waiter = Waiter()
        error: BaseException | None = None
        lock = self._lock
        held = self._held() and depth(lock)
        # Errors of the pool's are raised at the end, for a handler may be struck, too.
        try:
            lock.acquire()
            queued = self._closed or not self._pool
            if queued and (error := self._refusal()) is None:
                self._queue_up(waiter)
            lock.release()
            if queued and error is None:
                waiter.wait(seconds)
                if waiter.conn is None:
                    lock.acquire()
                    waiter.leave(self._waiting)
                    lock.release()
                if waiter.conn is None:  # else it has come at the last moment
                    error = waiter.error or PoolTimeout(_TIMED_OUT.format(seconds))
                else:
                    self._attach(waiter.conn, slot)
                self._stats["requests_wait_ms"] += int(1000 * (monotonic() - began))
        except BaseException:
            release_to(lock, held)
            with lock:
                waiter.leave(self._waiting)
            if waiter.conn is not None and slot.connection is None:
                given = Slot()
                self._attach(waiter.conn, given)
                self.checkin_from(given)
            self._tasks.put(_Need(self))  # for others, if it was struck before it did so
            self._stats["requests_errors"] += 1
            raise
        if error is not None:
            self._stats["requests_errors"] += 1
            raise error
        if not queued:  # one has come back meanwhile
            self.checkout_into(slot, timeout)

    def _refusal(self) -> psycopg.OperationalError | None:
        """Return why nobody may queue up."""
        if self._closed:
            when = "is already closed" if self._opened else "is not open yet"
            return PoolClosed(f"the pool {self.name!r} {when}")
        if 0 < self.max_waiting <= (waiting := len(self._waiting)):
            return TooManyRequests(f"the pool {self.name!r} has already {waiting} requests waiting")
        return None

    def _queue_up(self, waiter: Waiter) -> None:
        """Put *place* into the queue, and have the pool grow for it. Called under the lock."""
        self._stats["requests_num"] += 1
        self._stats["requests_queued"] += 1
        self._waiting.append(waiter)  # type: ignore[arg-type]
        grows = not self._growing and self._nconns < self._max_size
        if (grows or self._attempts) and not self._needed:
            self._needed = True
            self._tasks.put(_Need(self))

    def _pass_on(self, slot: Any, raw: Connection) -> None:
        """Check in where that is more than to put it back: for who waits, a reset, or no more."""
        lock = self._lock
        held = self._held() and depth(lock)
        try:
            lock.acquire()
            if not self._closed:
                if (
                    self._reset is not None
                    or self._pool_full_event is not None
                    # Somebody else's, which is woken in steps that may be interrupted.
                    or any(isinstance(waiter, WaitingClient) for waiter in self._waiting)
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

    def _leave_to_worker(self, slot: Any, raw: Connection) -> None:
        task = _Return(self, raw)
        connection = slot.connection
        try:
            self.in_use.discard(connection)
            connection.raw = None
            slot.connection = None
            self._tasks.put(task)
        except BaseException:
            # It may be there; but whoever comes to it waits for the lock first.
            task.raw = None
            self._attach(raw, slot)
            raise

    def _give(self, slot: Any, raw: Connection) -> None:
        """Give *raw* to whoever has waited longest; to the pool, if nobody waits any more."""
        waiting: Any = self._waiting
        waiter: Waiter | None = None
        try:
            self._detach(raw)
            slot.connection = None
            while waiting:
                # Nothing is called until it is given, as in `checkout_into`.
                waiter = waiting[0]
                if not (waiter.left or waiter.conn is not None or waiter.error is not None):
                    waiter.conn = raw
                del waiting[0]
                if waiter.conn is raw:
                    waiter.wake()
                    return
            waiter = None
            self._pool.append(raw)
        except BaseException:
            if waiter is not None and waiter.conn is raw:
                with suppress(ValueError):
                    waiting.remove(waiter)
                waiter.wake()
            elif raw not in self._pool:
                self._attach(raw, slot)
            raise

    def checkout_checked_into(self, slot: Any, timeout: float | None = None) -> None:
        """The same, where the pool is to ``check`` each connection.

        :raises Refused: a connection that is new, and works, fails.
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
                # Those that follow would be refused, too, until the time is over.
                raise failed
            now = monotonic()
            if new:
                # As `getconn` does it. Of those that were idle there are only so many.
                if attempt is None:
                    attempt = AttemptWithBackoff(timeout=deadline - now)
                else:
                    attempt.update_delay(now)
            if now >= deadline or (attempt is not None and attempt.time_to_give_up(now)):
                raise PoolTimeout(_TIMED_OUT.format(seconds)) from failed
            if new and attempt is not None:
                sleep(attempt.delay)

    # Opening, connecting, closing.

    def reach(self) -> None:
        """Open the pool, and its first connection. To be called where nothing strikes.

        :raises Exception: whatever connecting does. It may be called again.
        """
        self.open()
        with self._lock:
            grown = 0 if self._nconns else 1
            self._nconns += grown
        try:
            raw = self._connect()
        except BaseException:
            with self._lock:
                self._nconns -= grown
            raise
        self._add_to_pool(raw)
        for _ in range(1, self._min_size):
            self.run_task(AddConnection(self))
        self.run_task(Schedule(self, ShrinkPool(self), self.max_idle))

    def _open(self) -> None:
        if self._closed:
            self._check_open()
            self._closed, self._opened = False, True
            try:
                self._start_workers()
            except BaseException:
                self._signal_stop_worker()
                self._closed, self._opened = True, False
                raise

    def _connect(self, timeout: float | None = None) -> Connection:
        thread = get_ident()
        self.connecting.add(thread)
        try:
            raw: Any = super()._connect(timeout)
        except Exception as error:
            # psycopg's error keeps itself, and the connection that was being opened with it.
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
        raw.relet = PooledConnection(None, monotonic())
        return raw  # type: ignore[no-any-return]

    def _fail_waiting(self, error: Exception) -> None:
        """Tell those who wait of *error*: the next attempt would end in the same way.

        Where connections are in use, whoever waits may get one of those; so each attempt that
        fails is told to one of them alone. Called under the lock.
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
        # Of those that others have had by the pool's own way in, and may have changed.
        super()._reset_connection(conn)
        if conn.pgconn.transaction_status == TransactionStatus.IDLE and not self.normalize(conn):
            self._close_connection(conn)

    def schedule_task(self, task: Any, delay: float) -> None:
        if isinstance(task, AddConnection):
            task = _Attempt(self, task)
            self._attempts[task] = True
            if self._waiting:
                delay = min(delay, _RETRY_INTERVAL)
        super().schedule_task(task, delay)

    def _hasten(self) -> None:
        """Have attempts made that were to be made later."""
        now = monotonic()
        for attempt in list(self._attempts):
            if attempt.soonest is not None:
                self._sched.enter(max(attempt.soonest - now, 0), attempt.tick)
                attempt.soonest = None

    def close(self, timeout: float = 5.0) -> None:
        """Close it, whether it was opened or not. Who was interrupted here calls it again."""
        locked(self._lock, self._close_what_is_ready)
        deadline = monotonic() + timeout
        for worker in self._signal_stop_worker():
            # Those that connect, in vain, take as long as all of them together.
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


#: Whether this psycopg_pool is one that `LeanPool` has been read against.
LEAN = psycopg_pool.__version__.split(".")[:2] == ["3", "3"]
