"""The rules about waiters that need more than two threads that take turns."""

from __future__ import annotations

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

#: Seconds that somebody has to wait before nobody who comes later may be served first.
FAIRNESS = 0.1
#: How often a connection comes free while somebody waits, and is wanted at once by somebody else.
_TURNS = 30
#: Seconds that somebody waits who is to wait in vain.
_SHORT = 0.002
#: Seconds that a handover takes at most, unless the waiter has a lock that it needs.
_HANDOVER = 0.005
#: Instructions from one that is tried to the next. The instant in question has more.
_STEP = 3
#: The text of the error is made there, when the waiter has given up.
_CORE = str(Path(next(iter(relet.core.__path__))))


@rule("handover", "A connection that is handed to a waiter as it times out is not lost.")
def handover(bench: Bench) -> None:
    pool = bench.pool(timeout=2 * patience.seconds)  # not the time that it is to wait
    for number in count(1, _STEP):
        race = _Race(bench, pool, number)
        if not race.instant.reached:
            break
        lost = f"A waiter timed out at {race.instant.place} and was handed a connection there; "
        try:
            eventually(
                lambda: not pool.stats().in_use, f"{lost}now nobody has it, but it counts as in use"
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
        # Whoever gives a connection back and wants one again is there before the waiter has woken.
        again = Call(partial(_overtakes, pool, held, waiter))
        bench.checkin(pool, waiter.result())
        turns = again.result()
        demand(
            turns == 0,
            f"Other threads were served {turns} times before one that had waited longer.",
        )


def _overtakes(pool: PoolAdapter[Any], held: PooledConnection, waiter: Call) -> int:
    """Give back and take again until *waiter* is served; return how often that was too early."""
    turns = 0
    for _ in range(_TURNS):
        pool.checkin(held)
        held = pool.checkout(patience.seconds)
        if waiter.ended:
            break
        turns += 1
    pool.checkin(held)
    return turns


class _Race:
    """A waiter's time is up; a connection is handed to it before its instruction *number*."""

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
            taken = self._pool.checkout(_SHORT)
        except Exception as error:
            if not self._bench.is_operational(error):
                raise
        else:
            self._pool.checkin(taken)

    def _give(self) -> None:
        self._giving = Call(self._hand_over)
        self._giving.wait(_HANDOVER)

    def _hand_over(self) -> None:
        self._pool.checkin(self._held)
        # Some pools do it in a thread of their own.
        comes_true(lambda: not self._pool.stats().waiting, _HANDOVER)
