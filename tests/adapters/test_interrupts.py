"""I5, I11: interrupts strike anywhere, and no connection is lost, nor a place for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from relet.adapters.semaphore import FairSemaphore
from relet.core import PoolConfig, registry

from ..support.interrupts import TIMES, Shield, interrupted, possible, timers

pytestmark = timers


def ours() -> list[str]:
    return [
        name
        for name, spec in registry.specs().items()
        if spec.adapter.startswith("relet.") and not registry.missing(spec)
    ]


@pytest.fixture(params=ours())
def pool(request: pytest.FixtureRequest, parameters: dict[str, str]) -> Any:
    adapter = registry.load(request.param)
    pool = adapter(PoolConfig("interrupted", parameters, adapter.options_for(size=1, timeout=20)))
    pool.open()
    yield pool
    pool.close()


class Lease:
    connection: Any = None


# What is struck while it is opened is closed by its finalizer.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("garbage")
def test_checkout_and_checkin(pool: Any) -> None:
    lease = Lease()

    def run() -> None:
        pool.checkout_into(lease)
        pool.checkin_from(lease)

    def settle() -> None:
        assert pool.stats().in_use == (lease.connection is not None)
        if lease.connection is not None:
            pool.discard_from(lease)
            assert pool.stats().in_use == 0

    assert interrupted(run, 0.002, settle) == TIMES
    stats = pool.stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    in_another_thread(lambda: pool.checkin(pool.checkout(timeout=5)))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("garbage")
def test_discard(pool: Any) -> None:
    """Which has the pool open another."""
    lease = Lease()

    def run() -> None:
        pool.checkout_into(lease)
        pool.discard_from(lease)

    def settle() -> None:
        if lease.connection is not None:
            pool.discard_from(lease)
        assert pool.stats().in_use == 0

    assert interrupted(run, 0.01, settle) == TIMES
    in_another_thread(lambda: pool.checkin(pool.checkout(timeout=5)))
    assert pool.stats().size == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("name", ours())
def test_the_first_checkout(name: str, parameters: dict[str, str]) -> None:
    adapter = registry.load(name)
    lease = Lease()
    pools: list[Any] = []

    def run() -> None:
        if not pools:
            options = adapter.options_for(size=1, timeout=20)
            pools.append(adapter(PoolConfig("interrupted", parameters, options)))
        pools[0].open()
        pools[0].checkout_into(lease)
        pools[0].checkin_from(lease)

    def settle() -> None:
        if pools:
            if lease.connection is not None:
                pools[0].discard_from(lease)
            in_another_thread(pools[0].open)
            in_another_thread(lambda: pools[0].checkin(pools[0].checkout(timeout=5)))
            pools.pop().close()

    assert interrupted(run, 0.01, settle, times=60) == 60


def in_another_thread(function: Callable[[], object]) -> None:
    """Which finds locks that were left taken."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


@possible  # whoever got in is struck before it knows
def test_gate() -> None:
    semaphore = FairSemaphore(1)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            if semaphore.acquire(1):
                semaphore.release()

    thread = threading.Thread(target=busy)
    thread.start()

    def run() -> None:
        if semaphore.acquire(1):
            # What strikes in leave() is for its caller to see to.
            Shield.up = True
            semaphore.release()
            Shield.up = False

    try:
        assert interrupted(run, 0.0005) == TIMES
    finally:
        stop.set()
        thread.join(20)
    assert semaphore.waiting == 0
    assert semaphore.acquire(5)
