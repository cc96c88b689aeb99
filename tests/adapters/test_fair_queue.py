"""I11: who waits for a connection, in every order in which threads can give, take and give up."""

from __future__ import annotations

import os
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("greenlet")
pytest.importorskip("psycopg_pool")
pytest.importorskip("sqlalchemy")

from sqlalchemy import exc

from relet.adapters import fair_queue, semaphore, waiter
from relet.adapters.psycopg import lean_pool
from relet.adapters.queue_pool import lean_queue_pool
from relet.adapters.slots import Slot
from relet.core import PooledConnection

from ..support.schedules import FOREVER, Lock, RLock, Schedule, each_schedule, random_schedules

#: In steps of a schedule: strictly in order, for a while, and never handed over.
FAIRNESS = (0, 4, 10_000)
#: A second has time for a thousand. There are more, which are tried at night.
ALL = os.environ.get("RELET_SCHEDULES") == "all"
SOME = 250


def try_schedules(run: Any, *, endless: bool = False) -> None:
    """Run every schedule, or some of them. Of endless ones there are millions."""
    if ALL and not endless:
        each_schedule(run)
    else:
        random_schedules(run, 20 * SOME if ALL else SOME)


class InUse(dict):  # type: ignore[type-arg]
    """Remembers in which order waiters were served."""

    def __init__(self) -> None:
        self.order: list[Any] = []

    def __setitem__(self, key: Any, value: Any) -> None:
        if key not in self.order:
            self.order.append(key)
        super().__setitem__(key, value)


class Watched(semaphore.FairSemaphore):
    """Sees who has to wait, and who is served before them."""

    def __init__(self, schedule: Schedule, size: int, fairness: float) -> None:
        super().__init__(size)
        self._lock: Any = RLock(schedule)
        self._in_use = InUse()
        self.fairness = fairness
        self.queued: list[Any] = []

    def _queue_up(self, waiter: Any) -> bool:
        was_due = self._is_due()
        waits = super()._queue_up(waiter)
        if waits:
            self.queued.append(waiter)
        else:
            assert waiter.error or not was_due, "a thread that came later was served first"
        return waits

    def check(self) -> None:
        assert (self.in_use, self.waiting) == (0, 0)
        served = [one for one in self._in_use.order if one in self.queued]
        assert served == [one for one in self.queued if one in served], "they changed places"


class OfPool:
    """A `LeanPool` of connections that nobody speaks on, used as a semaphore is."""

    #: What it raises when the time is up, and when it is closed.
    errors: tuple[Any, Any] = (lean_pool.PoolTimeout, lean_pool.PoolClosed)

    def __init__(self, schedule: Schedule, size: int, fairness: float) -> None:
        self.pool = pool = lean_pool.LeanPool(min_size=0, max_size=size, open=False)
        lock: Any = RLock(schedule)
        pool._lock, pool._held = lock, lock._is_owned
        pool._opened, pool._closed, pool._nconns = True, False, size
        pool.fairness = fairness
        for _ in range(size):
            raw = SimpleNamespace(_expire_at=1e12, _created_at=1, _pool=None, close=list)
            raw.relet = PooledConnection(None, 0)
            pool._pool.append(raw)  # type: ignore[arg-type]
        self.size = size
        self._schedule = schedule
        self._slots: dict[Any, Slot] = {}

    @property
    def in_use(self) -> int:
        return self.pool.in_use

    def acquire(self, timeout: float) -> bool:
        slot = self._slots[self._schedule.current()] = Slot()
        try:
            self.pool.checkout_into(slot, timeout)
        except self.errors[0]:
            return False
        except self.errors[1] as error:
            raise semaphore.SemaphoreClosed from error
        except BaseException:
            self._give_back(slot)
            raise
        return True

    def release(self) -> None:
        slot = self._slots[self._schedule.current()]
        try:
            self.pool.checkin_from(slot)
        except BaseException:
            self._give_back(slot)
            raise

    def _give_back(self, slot: Slot) -> None:
        """As a runner does: what is in a lease when something is raised is still checked out."""
        if slot.connection is not None:
            self.pool.checkin_from(slot)

    def close(self) -> None:
        self.pool.close()

    def check(self) -> None:
        pool = self.pool
        assert (pool.in_use, len(pool._waiting)) == (0, 0)
        assert pool._closed or len(pool._pool) == len(set(map(id, pool._pool))) == self.size


class Entry(SimpleNamespace):
    """Of SQLAlchemy's pool: compared by what it is, not by what is in it."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class OfQueuePool(OfPool):
    """Likewise a `LeanQueuePool`."""

    def __init__(self, schedule: Schedule, size: int, fairness: float) -> None:
        def connect() -> Any:
            raise AssertionError("no connection is to be opened")

        self.pool: Any = lean_queue_pool.LeanQueuePool(connect, pool_size=size, max_overflow=0)
        lock: Any = RLock(schedule)
        self.pool._lock, self.pool._held = lock, lock._is_owned
        self.pool.fairness = fairness
        for _ in range(size):
            entry = Entry(starttime=1, _soft_invalidate_time=0, record_info={})
            entry.dbapi_connection = SimpleNamespace(close=list)
            entry.info = {lean_queue_pool.REMEMBERED: PooledConnection(None, 0)}
            entry.close = list
            self.pool.idle.append(entry)
        self.size = size
        self._schedule = schedule
        self._slots = {}

    errors = (exc.TimeoutError, lean_queue_pool.PoolClosed)

    @property
    def in_use(self) -> int:
        return len(self.pool.leased)

    def check(self) -> None:
        pool = self.pool
        assert (len(pool.leased), len(pool._waiting), len(pool.opening)) == (0, 0, 0)
        assert pool.closed or len(set(map(id, pool.idle))) == len(pool.idle) == self.size


KINDS = {"semaphore": Watched, "psycopg": OfPool, "sqlalchemy": OfQueuePool}


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make what the threads of a schedule share."""
    # Its own, because other threads of this process make locks, too.
    threads = SimpleNamespace(TIMEOUT_MAX=1e9)
    monkeypatch.setattr(waiter, "threading", threads)
    monkeypatch.setattr(fair_queue, "_REST", 2)

    def make(schedule: Schedule, size: int, fairness: float) -> Any:
        threads.Lock = lambda: Lock(schedule)
        for module in fair_queue, semaphore, lean_pool, lean_queue_pool:
            monkeypatch.setattr(module, "monotonic", schedule.monotonic)
        return KINDS[request.param](schedule, size, fairness)

    return make


def using(timeout: float = FOREVER, times: int = 1, interrupts: int = 0) -> Any:
    """Start a thread that acquires it, and releases it if it was acquired."""

    def start(schedule: Schedule, made: Any) -> None:
        def run() -> None:
            for _ in range(times):
                with suppress(semaphore.SemaphoreClosed):
                    if made.acquire(timeout):
                        try:
                            assert made.in_use <= made.size
                        finally:
                            made.release()

        schedule.start(run, interrupts=interrupts)

    return start


def closing(schedule: Schedule, made: Any) -> None:
    """Start a thread that closes it."""
    schedule.start(made.close)


SHORT = 3

#: Each with the threads that share it.
CASES = {
    "all are served": [using(), using(), using()],
    "one comes again and again": [using(times=3), using()],
    "the first times out": [using(SHORT), using(), using()],
    "the second times out": [using(), using(SHORT), using()],
    "the third times out": [using(), using(), using(SHORT)],
    "one is interrupted": [using(), using(interrupts=1), using()],
    "it is closed": [using(), using(), closing],
}


@pytest.mark.slow
@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize("threads", CASES.values(), ids=CASES)
def test_one_at_a_time(made, fairness, threads):
    """What a waiter does not take goes to the next, and nobody waits for good."""
    try_schedules(lambda schedule: share(made(schedule, 1, fairness), schedule, threads))


@pytest.mark.parametrize("fairness", FAIRNESS)
def test_two_at_a_time(made, fairness):
    threads = [using() for _ in range(4)]
    try_schedules(
        lambda schedule: share(made(schedule, 2, fairness), schedule, threads), endless=True
    )


def share(made: Any, schedule: Schedule, threads: list[Any]) -> None:
    for start in threads:
        start(schedule, made)
    schedule.run()
    made.check()
