"""I5, I15: an exception from outside, at any instruction of an adapter, loses no connection."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from relet.adapters.semaphore import FairSemaphore
from relet.adapters.waiter import Waiter
from relet.core import PoolConfig, registry
from relet.core.outside import attempt

from ..support.strikes import each_instruction
from ..support.threads import Thread
from ..support.waiting import until

#: What is struck while it is opened is closed by its finalizer.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("garbage"),
]


def ours() -> list[str]:
    """Adapters of relet's, one for each kind of pool: that of SQLAlchemy's has a pure driver."""
    names = [
        name
        for name, spec in registry.specs().items()
        if spec.adapter.startswith("relet.") and not registry.missing(spec)
    ]
    return [name for name in names if name in ("psycopg", "pg8000") or "pg8000" not in names]


class Lease:
    connection: Any = None


@pytest.fixture(scope="module")
def other() -> Iterator[Thread]:
    """Another thread: it finds a lock that was left taken, and the striker's own does not."""
    other = Thread()
    yield other
    other.end()


@pytest.fixture(params=ours())
def make(request: pytest.FixtureRequest, parameters: dict[str, str]) -> Iterator[Any]:
    adapter = registry.load(request.param)
    made = []

    def make(size: int = 1, **options: Any) -> Any:
        given = {**adapter.options_for(size=size, timeout=20), **options}
        made.append(adapter(PoolConfig("struck", parameters, given)))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def settled(pool: Any, lease: Lease, other: Thread) -> None:
    """What the lease has is checked out, and nothing else; then nothing is, and the pool works."""
    held = lease.connection
    assert pool.stats().in_use == (held is not None)
    if held is not None:
        assert held.raw is not None
        assert pool.ping(held.raw) or pool.transaction_status(held.raw) == 4
        other(lambda: pool.discard_from(lease))
        assert lease.connection is None
    other(lambda: use(pool))
    stats = pool.stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    assert stats.size <= stats.max_size


def use(pool: Any) -> None:
    connections = [pool.checkout(20) for _ in range(pool.stats().max_size)]
    assert len({id(connection.raw) for connection in connections}) == len(connections)
    for connection in connections:
        assert pool.ping(connection.raw)
        pool.checkin(connection)


def test_checkout_and_checkin(make: Any, other: Thread) -> None:
    pool = make()
    pool.open()
    pool.checkin(pool.checkout())
    lease = Lease()

    def run() -> None:
        pool.checkout_into(lease)
        pool.checkin_from(lease)

    numbers = []
    for number in each_instruction(run, step=1):
        settled(pool, lease, other)
        numbers.append(number)
    assert len(numbers) > 50
    assert lease.connection is None


def test_discard(make: Any, other: Thread) -> None:
    pool = make()
    pool.open()
    lease = Lease()
    numbers = each_instruction(
        lambda: pool.discard_from(lease), before=lambda: pool.checkout_into(lease)
    )
    for _ in numbers:
        if lease.connection is not None:
            pool.discard_from(lease)
        settled(pool, lease, other)


def test_waiting(make: Any, other: Thread) -> None:
    """Another gives its connection back meanwhile."""
    pool = make()
    pool.open()
    lease, held = Lease(), Lease()

    def give() -> None:
        until(lambda: pool.stats().waiting or done.is_set())
        pool.checkin_from(held)

    def before() -> None:
        pool.checkout_into(held)
        done.clear()
        other.begin(give)

    def run() -> None:
        try:
            pool.checkout_into(lease)
        finally:
            done.set()

    done = threading.Event()
    for _ in each_instruction(run, before=before):
        other.result()
        settled(pool, lease, other)
    other.result()
    pool.checkin_from(lease)


def test_giving_to_who_waits(make: Any, other: Thread) -> None:
    pool = make()
    pool.open()
    lease, taken = Lease(), Lease()

    def before() -> None:
        pool.checkout_into(lease)
        other.begin(lambda: pool.checkout_into(taken))
        until(lambda: pool.stats().waiting)

    for _ in each_instruction(lambda: pool.checkin_from(lease), before=before):
        if lease.connection is not None:
            pool.discard_from(lease)
        other.result()
        other(lambda: pool.checkin_from(taken))
        settled(pool, lease, other)
    other.result()
    pool.checkin_from(taken)


def test_giving_up(make: Any, other: Thread) -> None:
    pool = make()
    pool.open()
    lease, held = Lease(), Lease()
    pool.checkout_into(held)

    def run() -> None:
        with pytest.raises(pool.dbapi.OperationalError):
            pool.checkout_into(lease, 0.0001)

    for _ in each_instruction(run):
        assert lease.connection is None
        assert (pool.stats().in_use, pool.stats().waiting) == (1, 0)
    pool.checkin_from(held)
    settled(pool, lease, other)


def test_the_first_checkout(make: Any, other: Thread) -> None:
    """I15: while the pool is opened, too."""
    pools: list[Any] = []
    lease = Lease()

    def before() -> None:
        while pools:
            pools.pop().close()
        pools.append(make())

    def run() -> None:
        pools[0].open()
        pools[0].checkout_into(lease)

    for _ in each_instruction(run, before=before):
        (pool,) = pools
        other(pool.open)
        settled(pool, lease, other)
    pools[0].checkin_from(lease)


def test_growing(make: Any, other: Thread) -> None:
    pools: list[Any] = []
    lease, held = Lease(), Lease()

    def before() -> None:
        while pools:
            if held.connection is not None:
                pools[0].checkin_from(held)
            pools.pop().close()
        pools.append(make(size=2))
        pools[0].open()
        pools[0].checkout_into(held)

    def run() -> None:
        pools[0].checkout_into(lease)

    for _ in each_instruction(run, before=before):
        (pool,) = pools
        other(lambda pool=pool: pool.checkin_from(held))
        settled(pool, lease, other)
    pools[0].checkin_from(lease)
    pools[0].checkin_from(held)


#: What makes checkout and checkin take other ways, by the engine's pool.
WAYS: dict[str, list[dict[str, Any]]] = {
    "psycopg": [
        {"check": lambda raw: None},
        {"reset": lambda raw: None},
        {"max_lifetime": 0},
        {"min_size": 0},
    ],
    "pg8000": [{"recycle": 0}, {"use_lifo": True}, {"max_overflow": 1}],
    "sqlalchemy": [{"recycle": 0}, {"use_lifo": True}, {"max_overflow": 1}],
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=f"{name} {next(iter(options))}")
        for name in ours()
        for options in WAYS.get(name, ())
    ],
)
def test_rare_ways(parameters: dict[str, str], other: Thread, name: str, options: Any) -> None:
    adapter = registry.load(name)
    given = {**adapter.options_for(size=1, timeout=20), **options}
    pool = adapter(PoolConfig("struck", parameters, given))
    pool.open()
    pool.checkin(pool.checkout())
    lease, second = Lease(), Lease()
    overflows = options.get("max_overflow")

    def run() -> None:
        pool.checkout_into(lease)
        if overflows:
            pool.checkout_into(second)
            pool.checkin_from(second)
        pool.checkin_from(lease)

    for _ in each_instruction(run):
        for one in (lease, second):
            if one.connection is not None:
                pool.discard_from(one)
        settled(pool, lease, other)
    pool.close()


@pytest.mark.skipif("psycopg" not in ours(), reason="max_waiting is psycopg_pool's")
def test_too_many_wait(parameters: dict[str, str], other: Thread) -> None:
    adapter = registry.load("psycopg")
    options = {**adapter.options_for(size=1, timeout=20), "max_waiting": 1}
    pool = adapter(PoolConfig("struck", parameters, options))
    pool.open()
    held, lease, third = Lease(), Lease(), Lease()
    pool.checkout_into(held)
    other.begin(lambda: pool.checkout_into(lease))
    until(lambda: pool.stats().waiting)

    def run() -> None:
        with pytest.raises(pool.dbapi.OperationalError, match="max_waiting"):
            pool.checkout_into(third)

    for _ in each_instruction(run):
        assert third.connection is None
        assert (pool.stats().in_use, pool.stats().waiting) == (1, 1)
    pool.checkin_from(held)
    other.result()
    settled(pool, lease, other)
    pool.close()


@pytest.mark.parametrize("name", ours())
def test_no_pool(parameters: dict[str, str], name: str) -> None:
    """What was being opened is closed, although the exception is still there."""
    adapter = registry.load(name)
    opened: list[Any] = []
    pool = adapter(PoolConfig("struck", parameters, False, configure=opened.append))
    pool.open()
    lease = Lease()
    kept: list[BaseException] = []

    def run() -> None:
        try:
            pool.checkout_into(lease)
            pool.checkin_from(lease)
        except BaseException as error:
            kept.append(error)
            raise

    for _ in each_instruction(run, [sys.modules[adapter.__module__]]):
        if lease.connection is not None:
            pool.discard_from(lease)
        assert all(pool.transaction_status(raw) == 4 for raw in opened)
        assert pool.stats().in_use == 0


def test_close(make: Any) -> None:
    pools: list[Any] = []
    raws: list[Any] = []

    def before() -> None:
        pools[:] = [make(size=2)]
        (pool,) = pools
        pool.open()
        held = [pool.checkout(), pool.checkout()]
        raws[:] = [connection.raw for connection in held]
        for connection in held:
            pool.checkin(connection)

    for _ in each_instruction(lambda: pools[0].close(), before=before):
        pools[0].close()
        assert pools[0].closed
        assert [pools[0].transaction_status(raw) for raw in raws] == [4, 4]
        with pytest.raises(pools[0].dbapi.OperationalError, match="closed"):
            pools[0].checkout()


class TestFairSemaphore:
    def test_alone(self, other: Thread) -> None:
        semaphore = FairSemaphore(1)

        def run() -> None:
            entered.clear()
            if semaphore.acquire(20):
                entered.append(True)
                semaphore.release()
                entered.clear()

        entered: list[bool] = []
        for _ in each_instruction(
            run, [sys.modules[FairSemaphore.__module__], sys.modules[Waiter.__module__]]
        ):
            # Python itself may be struck as it returns, when all is done.
            assert semaphore.in_use in (0, 1)
            if semaphore.in_use:
                other(semaphore.release)
            assert semaphore.waiting == 0
            assert other(lambda: semaphore.acquire(20))
            other(semaphore.release)

    def test_somebody_is_let_in(self, other: Thread) -> None:
        semaphore = FairSemaphore(1)

        def before() -> None:
            assert semaphore.acquire(0)
            other.begin(lambda: semaphore.acquire(20))
            until(lambda: semaphore.waiting)

        for _ in each_instruction(semaphore.release, before=before):
            if semaphore.waiting:  # it was struck before it had begun
                semaphore.release()
            assert other.result()
            assert (semaphore.in_use, semaphore.waiting) == (1, 0)
            semaphore.release()
        other.result()

    def test_whoever_gives_up(self, other: Thread) -> None:
        semaphore = FairSemaphore(1)
        assert semaphore.acquire(0)
        for _ in each_instruction(lambda: semaphore.acquire(0.0001)):
            assert (semaphore.in_use, semaphore.waiting) == (1, 0)
        semaphore.release()
        assert other(lambda: semaphore.acquire(20))


def test_a_strike_leaves_no_exception_that_is_being_handled():
    """It would be the context of what later tests raise."""
    struck = list(each_instruction(lambda: attempt(lambda: 1 / 0), step=1))
    assert len(struck) > 10
    assert sys.exc_info() == (None, None, None)
