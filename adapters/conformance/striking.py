"""The rule about exceptions from outside, which may be raised at any instruction."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from types import ModuleType
from typing import Any

from relet.core import PoolAdapter, TransactionStatus

from .bench import Bench, Call, Lease, comes_true, demand
from .patience import patience
from .rule import rule
from .strikes import struck_at

_FOR_LEASES = ("checkout_into", "checkin_from", "discard_from")
#: The distance between struck instructions, if each strike costs a new connection or a wait.
_STEP = 7


def _makes_no_claim(adapter: type[PoolAdapter[Any]]) -> str | None:
    if all(getattr(adapter, name) is not getattr(PoolAdapter, name) for name in _FOR_LEASES):
        return None
    return "the adapter does not override checkout_into(), checkin_from() and discard_from()"


@rule(
    "struck",
    "An exception from outside loses no connection, whichever instruction raises it.",
    left_out=_makes_no_claim,
    both_ways=False,
)
def struck(bench: Bench) -> None:
    pool = bench.pool()
    bench.checkin(pool, bench.checkout(pool))
    lease = Lease()

    def take_and_give() -> None:
        pool.checkout_into(lease)
        pool.checkin_from(lease)

    def throw_away() -> None:
        if lease.connection is not None:  # because it is called again after a strike
            pool.discard_from(lease)

    _strike(bench, pool, lease, "checkout_into() and checkin_from()", take_and_give)
    _strike(
        *(bench, pool, lease, "discard_from()", throw_away),
        before=lambda: pool.checkout_into(lease),
        after=throw_away,
        step=_STEP,
    )
    other = _Other(pool)
    _strike(
        *(bench, pool, lease, "checkout_into(), waiting,", lambda: pool.checkout_into(lease)),
        before=other.take,
        after=other.give,
        step=_STEP,
    )


class _Other:
    """Another lease, which checks its connection in while somebody waits for it."""

    def __init__(self, pool: PoolAdapter[Any]) -> None:
        self._pool = pool
        self._lease = Lease()
        self._over = False
        self._giving: Call | None = None

    def take(self) -> None:
        self._pool.checkout_into(self._lease)
        self._over = False
        self._giving = Call(self._give)

    def _give(self) -> None:
        comes_true(lambda: self._over or self._pool.stats().waiting, patience.seconds)
        self._pool.checkin_from(self._lease)

    def give(self) -> None:
        self._over = True
        if self._giving is not None:
            self._giving.result()


def _strike(
    bench: Bench,
    pool: PoolAdapter[Any],
    lease: Lease,
    what: str,
    run: Callable[[], object],
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
    step: int = 1,
) -> None:
    """Strike at each instruction of *run* in turn; demand each time that the pool is intact."""
    packages = _packages(bench.adapter)
    for number in count(1, step):
        before()
        place = struck_at(number, run, *packages)
        after()
        _demand_whole(bench, pool, lease, f"an exception in {what} at {place}" if place else what)
        if place is None:
            break


def _demand_whole(bench: Bench, pool: PoolAdapter[Any], lease: Lease, when: str) -> None:
    """Demand that only the lease's connection is checked out, and that no lock is held."""
    held, in_use = lease.connection, pool.stats().in_use
    found = "no" if held is None else "a"
    demand(
        in_use == (held is not None),
        f"After {when}, the lease has {found} connection and in_use is {in_use}.",
    )
    if held is not None:
        broken = pool.transaction_status(held.raw) == TransactionStatus.UNKNOWN
        end = pool.discard_from if broken else pool.checkin_from
        Call(lambda: end(lease)).result()
        demand(lease.connection is None, f"After {when}, the lease keeps its connection.")
    connection = bench.checkout(pool)
    demand(pool.ping(connection.raw), f"After {when}, a broken connection is handed out.")
    bench.checkin(pool, connection)
    stats = pool.stats()
    seen = f"in_use is {stats.in_use} and waiting is {stats.waiting}"
    demand(
        not (stats.in_use or stats.waiting),
        f"After {when}, {seen} although nothing is checked out.",
    )


def _packages(adapter: type[Any]) -> list[ModuleType]:
    """Return the packages, or modules, that define *adapter* and its base classes."""
    found = {}
    for cls in adapter.__mro__:
        parts = cls.__module__.split(".")
        if parts[0] in sys.stdlib_module_names:
            continue
        names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        # A namespace package has no file, and contains other distributions, too.
        name = next(name for name in names if sys.modules[name].__file__)
        found[name] = sys.modules[name]
    return list(found.values())
