"""I11: who waits for a connection, in every order in which threads can give, take and give up."""

from __future__ import annotations

import os
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("greenlet")
pytest.importorskip("psycopg_pool")

from relet.adapters import fair_queue, semaphore, waiter
from relet.adapters.psycopg import lean_pool
from relet.adapters.slots import Slot
from relet.core import PooledConnection

from ..support.schedules import FOREVER, Lock, RLock, Schedule, each_schedule, random_schedules

#: In steps of a schedule: strictly in order, for a while, and never handed over.
FAIRNESS = (0, 4, 10_000)
#: A second has time for some thousands. There are more, which are tried at night.
ALL = os.environ.get("RELET_SCHEDULES") == "all"
SOME = 1_000


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
        return len(self.pool.in_use)

    def acquire(self, timeout: float) -> bool:
        slot = self._slots[self._schedule.current()] = Slot()
        try:
            self.pool.checkout_into(slot, timeout)
        except lean_pool.PoolTimeout:
            return False
        except lean_pool.PoolClosed as error:
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
        assert (len(pool.in_use), len(pool._waiting)) == (0, 0)
        assert pool._closed or len(pool._pool) == len(set(map(id, pool._pool))) == self.size


KINDS = {"semaphore": Watched, "psycopg": OfPool}


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make what the threads of a schedule share."""
    # Its own, because other threads of this process make locks, too.
    threads = SimpleNamespace(TIMEOUT_MAX=1e9)
    monkeypatch.setattr(waiter, "threading", threads)

    def make(schedule: Schedule, size: int, fairness: float) -> Any:
        threads.Lock = lambda: Lock(schedule)
        for module in fair_queue, semaphore, lean_pool:
            monkeypatch.setattr(module, "monotonic", schedule.monotonic)
        return KINDS[request.param](schedule, size, fairness)

    return make


def use(made: Any, timeout: float = FOREVER, times: int = 1) -> Any:
    """A thread that acquires it, and releases it if it was acquired."""

    def run() -> None:
        for _ in range(times):
            if made.acquire(timeout):
                try:
                    assert made.in_use <= (made.size or 99)
                finally:
                    made.release()

    return run


@pytest.mark.parametrize("fairness", FAIRNESS)
def test_all_are_served(made, fairness):
    def run(schedule):
        one = made(schedule, 1, fairness)
        for _ in range(3):
            schedule.start(use(one))
        schedule.run()
        one.check()

    try_schedules(run)


@pytest.mark.parametrize("fairness", FAIRNESS)
def test_one_that_comes_again_and_again(made, fairness):
    def run(schedule):
        one = made(schedule, 1, fairness)
        schedule.start(use(one, times=3))
        schedule.start(use(one))
        schedule.run()
        one.check()

    try_schedules(run)


@pytest.mark.parametrize("fairness", FAIRNESS)
@pytest.mark.parametrize("who", [0, 1, 2])
def test_one_whose_time_is_up(made, fairness, who):
    """Its wake-up, or what it was handed, goes to the next."""

    def run(schedule):
        one = made(schedule, 1, fairness)
        for number in range(3):
            schedule.start(use(one, timeout=3 if number == who else FOREVER))
        schedule.run()
        one.check()

    try_schedules(run)


@pytest.mark.parametrize("fairness", FAIRNESS)
def test_one_that_is_interrupted(made, fairness):
    """While it waits for its turn, or for the lock: what it was handed goes to the next."""

    def run(schedule):
        one = made(schedule, 1, fairness)
        schedule.start(use(one))
        schedule.start(use(one), interrupts=1)
        schedule.start(use(one))
        schedule.run()
        one.check()

    try_schedules(run)


@pytest.mark.parametrize("fairness", FAIRNESS)
def test_two_at_a_time(made, fairness):
    def run(schedule):
        one = made(schedule, 2, fairness)
        for _ in range(4):
            schedule.start(use(one))
        schedule.run()
        one.check()

    try_schedules(run, endless=True)


@pytest.mark.parametrize("fairness", FAIRNESS)
def test_one_that_is_closed(made, fairness):
    """Whoever waits is turned away, and whoever holds it releases it."""

    def run(schedule):
        one = made(schedule, 1, fairness)

        def turned_away():
            with suppress(semaphore.SemaphoreClosed):
                use(one)()

        schedule.start(turned_away)
        schedule.start(turned_away)
        schedule.start(one.close)
        schedule.run()
        one.check()

    try_schedules(run)
