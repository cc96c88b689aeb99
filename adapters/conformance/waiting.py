"""The rules about waiters that need a race between threads."""

from __future__ import annotations

import sys
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import relet.core
from relet.core import PoolAdapter, PooledConnection

from .bench import Bench, Broken, Call, comes_true, demand, eventually
from .instructions import Instruction
from .patience import patience
from .rule import rule

#: Seconds of waiting after which no later thread may be served first.
FAIRNESS = 0.1
#: How often a connection comes free while one thread waits and another wants it at once.
_TURNS = 30
#: The timeout, in seconds, of a waiter that must time out.
_SHORT = 0.002
#: Seconds that a handover takes at most, unless the waiter holds a lock that it needs.
_HANDOVER = 0.005
#: The distance between tried instructions. The critical section is longer than that.
_STEP = 3
#: Here the error is composed, after the waiter has timed out.
_CORE = str(Path(next(iter(relet.core.__path__))))


def _mixes_up_its_stack(adapter: object) -> str | None:
    # It calls something else than __exit__() where a traced function leaves a ``with`` block, once
    # in thousands of times, and more often after errors that a trace function has raised.
    if sys.version_info[:2] == (3, 11):
        return "CPython 3.11 may crash where several threads are traced"
    return None


@rule(
    "handover",
    "A connection that is handed to a waiter as it times out is not lost.",
    left_out=_mixes_up_its_stack,
    both_ways=False,
)
def handover(bench: Bench) -> None:
    pool = bench.pool(timeout=2 * patience.seconds)  # longer than the waiter's own timeout
    for number in count(1, _STEP):
        race = _Race(bench, pool, number)
        if not race.instant.reached:
            break
        lost = f"A waiter timed out at {race.instant.place} and was handed a connection there; "
        try:
            eventually(
                lambda pool=pool: not pool.stats().in_use,  # type: ignore[misc]
                f"{lost}now nobody has it, but it counts as in use",
            )
            bench.checkin(pool, bench.checkout(pool))
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"{lost}now checkout() fails: {error}") from error


@rule("overtaking", "A thread that has waited for 0.1 s is served before those that come later.")
def overtaking(bench: Bench) -> None:
    pool = bench.pool()
    for _ in range(3):
        held = bench.checkout(pool)
        waiter = bench.waiter(pool)
        waiter.wait(FAIRNESS)
        # A thread that checks in and out again is faster than the waiter that has to wake up.
        again = Call(partial(_overtakes, bench, pool, held, waiter))
        bench.checkin(pool, waiter.result())
        turns = again.result()
        demand(
            turns == 0,
            f"Other threads were served {turns} times before one that had waited longer.",
        )


def _overtakes(bench: Bench, pool: PoolAdapter[Any], held: PooledConnection, waiter: Call) -> int:
    """Check in and out again until *waiter* is served; return how often this thread came first."""
    turns = 0
    for _ in range(_TURNS):
        bench.give(pool, held)
        held = bench.take(pool, patience.seconds)
        if waiter.ended:
            break
        turns += 1
    bench.give(pool, held)
    return turns


class _Race:
    """A waiter times out, and is handed a connection before its instruction *number*."""

    def __init__(self, bench: Bench, pool: PoolAdapter[Any], number: int) -> None:
        self._bench = bench
        self._pool = pool
        self._held: PooledConnection = bench.checkout(pool)
        self._over = float("inf")
        self._giving: Call | None = None
        self.instant = Instruction(
            number, lambda file: not file.startswith(_CORE), self._give, self._is_over
        )
        Call(lambda: self.instant.watch(self._wait)).result()
        if self._giving is None:
            bench.checkin(pool, self._held)
        else:
            self._giving.result()

    def _is_over(self) -> bool:
        return time.monotonic() >= self._over

    def _wait(self) -> None:
        self._over = time.monotonic() + _SHORT
        try:
            taken = self._bench.take(self._pool, _SHORT)
        except Exception as error:
            if not self._bench.is_operational(error):
                raise
        else:
            self._bench.give(self._pool, taken)

    def _give(self) -> None:
        self._giving = Call(self._hand_over)
        self._giving.wait(_HANDOVER)

    def _hand_over(self) -> None:
        self._bench.give(self._pool, self._held)
        # Some pools hand over in a thread of their own.
        comes_true(lambda: not self._pool.stats().waiting, _HANDOVER)
