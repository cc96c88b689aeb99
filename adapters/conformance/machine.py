"""A state machine: any calls of a pool, in any order, in lockstep with a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from relet.core import PoolAdapter, PooledConnection, TransactionStatus

from .bench import Bench, Call, demand, eventually

SIZE = 2
WAITERS = 3

#: Selects one of the checked-out connections.
CHOICE = st.integers(0, SIZE - 1)


def run_machine(
    adapter: type[PoolAdapter[Any]],
    parameters: Mapping[str, Any],
    settings: hypothesis_settings,
) -> None:
    """Run the machine; raise `Broken` if the pool and the model differ."""
    machine: Any = partial(PoolMachine, adapter, parameters)
    run_state_machine_as_test(machine, settings=settings)


class PoolMachine(RuleBasedStateMachine):
    """A pool of two connections, their holders and the threads that wait."""

    def __init__(self, adapter: type[PoolAdapter[Any]], parameters: Mapping[str, Any]) -> None:
        super().__init__()
        self.bench = Bench(adapter, parameters)
        self.pool = self.bench.pool(SIZE, timeout=60.0)
        #: The checked-out connections, and the server process of each.
        self.held: list[tuple[PooledConnection, int]] = []
        self.waiters: list[Call] = []
        #: Server processes that were killed while their connections were in the pool.
        self.killed: set[int] = set()

    def teardown(self) -> None:
        try:
            for call in (self.pool.close, *(waiter.result for waiter in self.waiters)):
                Call(call)
            for connection, _ in self.held:
                self.bench.discard(self.pool, connection)
            eventually(lambda: not self.bench.alive(), "After close(), connections stay open")
        finally:
            self.bench.__exit__()

    # The model.

    @property
    def full(self) -> bool:
        return len(self.held) == SIZE

    def take(self, connection: PooledConnection) -> None:
        """Check a connection that was just checked out, and record it."""
        pool, raw = self.pool, connection.raw
        if not self.killed:
            status = pool.transaction_status(raw)
            demand(
                status == TransactionStatus.IDLE,
                f"checkout() returned a connection in the status {status!r}.",
            )
        demand(
            raw.autocommit is True, f"checkout() gave one whose autocommit is {raw.autocommit!r}."
        )
        demand(
            all(connection is not other for other, _ in self.held),
            "A checked-out connection was handed out again.",
        )
        # If the server closed it while it was idle, the engine would discard it.
        if self.killed and not pool.ping(raw):
            self.bench.discard(pool, connection)
            if self.killed:
                self.killed.pop()
            self.take(self.bench.checkout(pool))
            return
        pid = self.bench.pid(pool, raw)
        demand(pid in self.bench.pids, "A connection was handed out without being configured.")
        self.held.append((connection, pid))

    def serve(self) -> None:
        """A connection has come free: the first waiter must get it."""
        if self.waiters:
            first = self.waiters.pop(0)
            eventually(
                lambda: first.ended, "A connection came free, but the first waiter still waits"
            )
            self.take(first.result())

    def pick(self, choice: int) -> tuple[PooledConnection, int]:
        return self.held.pop(choice % len(self.held))

    # The steps.

    @precondition(lambda self: not self.full)
    @rule()
    def checkout(self) -> None:
        self.take(self.bench.checkout(self.pool))

    @precondition(lambda self: self.full)
    @rule()
    def checkout_in_vain(self) -> None:
        pool = self.pool
        self.bench.must_fail(lambda: self.bench.take(pool, 0.02), pool, "checkout() with none left")

    @precondition(lambda self: self.full and len(self.waiters) < WAITERS)
    @rule()
    def wait(self) -> None:
        self.waiters.append(self.bench.waiter(self.pool))

    @precondition(lambda self: self.held)
    @rule(choice=CHOICE)
    def checkin(self, choice: int) -> None:
        connection, _ = self.pick(choice)
        self.bench.checkin(self.pool, connection)
        self.serve()

    @precondition(lambda self: self.held)
    @rule(choice=CHOICE)
    def discard(self, choice: int) -> None:
        connection, pid = self.pick(choice)
        self.bench.discard(self.pool, connection)
        eventually(lambda: pid not in self.bench.alive(), "A discarded connection stays open")
        self.serve()

    @precondition(lambda self: self.held)
    @rule(choice=CHOICE)
    def break_and_discard(self, choice: int) -> None:
        connection, pid = self.pick(choice)
        self.bench.kill(pid)
        demand(
            not self.pool.ping(connection.raw),
            "ping() is true for a connection that the server closed.",
        )
        self.bench.discard(self.pool, connection)
        self.serve()

    @precondition(lambda self: not self.full)
    @rule()
    def break_idle(self) -> None:
        held = {pid for _, pid in self.held}
        for pid in self.bench.alive() - held:
            self.bench.kill(pid)
            self.killed.add(pid)

    @precondition(lambda self: self.held)
    @rule(choice=CHOICE)
    def transaction(self, choice: int) -> None:
        connection, _ = self.held[choice % len(self.held)]
        pool, raw = self.pool, connection.raw
        pool.execute_internal(raw, "BEGIN")
        status = pool.transaction_status(raw)
        demand(
            status == TransactionStatus.IN_TRANSACTION,
            f"After BEGIN, transaction_status() is {status!r}.",
        )
        pool.execute_internal(raw, "ROLLBACK")

    @rule()
    def open_again(self) -> None:
        self.pool.open()

    @invariant()
    def counted(self) -> None:
        stats = self.pool.stats()
        demand(
            stats.in_use == len(self.held),
            f"in_use is {stats.in_use}, with {len(self.held)} checked out.",
        )
        demand(
            stats.waiting == len(self.waiters),
            f"waiting is {stats.waiting}, with {len(self.waiters)} waiting.",
        )
        demand(stats.size <= SIZE, f"size is {stats.size}, of {SIZE} at most.")
