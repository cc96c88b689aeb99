"""A machine that drives two threads through everything at once, in lockstep with a model.

After every step the model, the wrappers, the pool's counts and the server's own view
must agree: I1 to I9 and I12. Two threads share a pool of two connections, so nobody
waits, and each of the four can be wrong on its own.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, Error, connections
from django.db.transaction import Atomic
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from relet.backends.pools import pools
from relet.core import State

from ..support import driver
from ..support.engine import put_small_pool
from ..support.threads import Thread

ACTORS = 2
APPLICATION = "relet machine"

pytestmark = pytest.mark.usefixtures("database")


class Actor:
    """A thread with a wrapper, and what the model knows of it."""

    def __init__(self, number: int, alias: str) -> None:
        self.number = number
        self.thread = Thread()
        self.db = self.thread(lambda: connections[alias])
        self.cursor = self.thread(self.db.cursor)  # never closed
        self.blocks: list[Atomic] = []
        self.marks: list[int] = []  # of `pending`, at each block's start
        self.manual = False
        self.raw = False
        self.begun = False  # the transaction has a connection
        self.courtesy = False  # ensure_connection() took one
        self.pending: list[str] = []
        self.iterators: list[tuple[int, Any]] = []  # depth it was opened at, cursor
        self.pid: int | None = None  # of the transaction's server process
        self.hooks: list[int] = []

    @property
    def managed(self) -> bool:
        return bool(self.blocks) or self.manual

    @property
    def leased(self) -> bool:
        return self.begun or self.raw or bool(self.iterators) or self.courtesy

    def sql(self, sql: str, params: Any = None, *, old_cursor: bool = False) -> list[Any]:
        """Run a statement; check that a transaction stays on its server process (I8)."""

        def run() -> list[Any]:
            cursor = self.cursor if old_cursor else self.db.cursor()
            cursor.execute(sql, params)
            rows: list[Any] = cursor.fetchall() if cursor.description else []
            # I7: the driver's cursor is on the connection that was leased for it.
            return rows

        try:
            return self.thread(run)  # type: ignore[no-any-return]
        finally:
            self.courtesy = False
            if self.managed:
                self.begun = True

    def check_process(self) -> None:
        (pid,) = self.sql("SELECT pg_backend_pid()")[0]
        if self.begun or self.raw:
            assert self.pid in (None, pid), "a transaction changed its connection"
            self.pid = pid

    def transaction_ended(self) -> None:
        self.begun = self.raw = self.courtesy = False
        self.pid = None


class LeaseMachine(stateful.RuleBasedStateMachine):
    observer: driver.Observer
    alias: str

    def __init__(self) -> None:
        super().__init__()
        self.committed: set[str] = set()
        self.names = 0
        self.observer.execute("TRUNCATE testapp_item")
        self.actors = [Actor(number, self.alias) for number in range(ACTORS)]
        self.hook_failures: list[str] = []

    def teardown(self) -> None:
        try:
            for actor in self.actors:
                self._give_up(actor)
            self._agree()
        finally:
            for actor in self.actors:
                actor.thread(actor.db.close)
                actor.thread.end()
        # I5: nothing is in use when nobody is left.
        assert self._in_use() == 0

    def _in_use(self) -> int:
        return sum(entry.pool.stats().in_use for entry in pools if entry.alias == self.alias)

    # Statements.

    actors_ = st.integers(0, ACTORS - 1)

    @stateful.rule(who=actors_, old_cursor=st.booleans())
    def insert(self, who: int, old_cursor: bool) -> None:
        actor = self.actors[who]
        self.names += 1
        name = f"name {self.names}"
        actor.sql("INSERT INTO testapp_item (name) VALUES (%s)", [name], old_cursor=old_cursor)
        if actor.managed or actor.raw:
            actor.pending.append(name)
        else:
            self.committed.add(name)

    @stateful.rule(who=actors_, old_cursor=st.booleans())
    def select(self, who: int, old_cursor: bool) -> None:
        actor = self.actors[who]
        rows = actor.sql("SELECT name FROM testapp_item", old_cursor=old_cursor)
        assert {name for (name,) in rows} == self.committed | set(actor.pending)

    @stateful.rule(who=actors_)
    def same_process(self, who: int) -> None:
        self.actors[who].check_process()

    @stateful.rule(who=actors_)
    def fail(self, who: int) -> None:
        """An error; inside a transaction, in a block of its own, as one should."""
        actor = self.actors[who]
        if actor.raw:
            return
        if actor.managed:
            self.enter(who)
        with pytest.raises(DatabaseError, match="division by zero"):
            actor.sql("SELECT 1/0")
        if actor.managed:
            self.leave(who, commit=False)

    @stateful.rule(who=actors_)
    def ensure_connection(self, who: int) -> None:
        actor = self.actors[who]
        actor.thread(actor.db.ensure_connection)
        if not actor.leased:
            if actor.managed and not actor.manual:
                actor.begun = True  # kept to the block's end
            else:
                actor.courtesy = True

    # Transactions.

    @stateful.rule(who=actors_)
    def enter(self, who: int) -> None:
        actor = self.actors[who]
        if actor.raw or len(actor.blocks) > 4:
            return
        leased = actor.leased
        block = Atomic(self.alias, True, False)
        was_managed = actor.managed
        actor.thread(block.__enter__)
        actor.blocks.append(block)
        actor.marks.append(len(actor.pending))
        if leased:
            # What has a connection keeps it in the block; a SAVEPOINT is a statement.
            actor.begun, actor.courtesy = True, False
        if not was_managed:
            actor.hooks = []

    @stateful.rule(who=actors_, commit=st.booleans())
    def leave(self, who: int, commit: bool) -> None:
        actor = self.actors[who]
        if not actor.blocks:
            return
        self._close_iterators(actor, depth=len(actor.blocks))
        block, mark = actor.blocks.pop(), actor.marks.pop()
        error = None if commit else ZeroDivisionError
        outermost = not actor.managed
        actor.thread(lambda: block.__exit__(error, error and error(), None))
        if not commit:
            del actor.pending[mark:]
        if outermost:
            if commit:
                self.committed.update(actor.pending)
            actor.pending = []
            actor.transaction_ended()

    @stateful.rule(who=actors_)
    def on_commit(self, who: int) -> None:
        actor = self.actors[who]
        if not actor.blocks or actor.manual:
            return

        def hook() -> None:
            # I9: what is still leased is pinned.
            lease = actor.db._runner.lease
            if lease.connection is not None and not lease.pins:
                self.hook_failures.append(f"actor {who}: hook ran before checkin")

        actor.thread(lambda: actor.db.on_commit(hook))

    @stateful.rule(who=actors_, on=st.booleans())
    def manual(self, who: int, on: bool) -> None:
        actor = self.actors[who]
        if actor.blocks or actor.raw or actor.manual == on:
            return
        if on:
            actor.thread(lambda: actor.db.set_autocommit(False))
            actor.manual = True
        else:
            self.end_manual(who, commit=True)
            actor.thread(lambda: actor.db.set_autocommit(True))
            actor.manual = False

    @stateful.rule(who=actors_, commit=st.booleans())
    def end_manual(self, who: int, commit: bool) -> None:
        actor = self.actors[who]
        if not actor.manual or actor.blocks:
            return
        self._close_iterators(actor, depth=1)
        actor.thread(actor.db.commit if commit else actor.db.rollback)
        if commit:
            self.committed.update(actor.pending)
        actor.pending = []
        actor.transaction_ended()

    @stateful.rule(who=actors_)
    def begin_raw(self, who: int) -> None:
        actor = self.actors[who]
        if actor.managed or actor.raw:
            return
        actor.sql("BEGIN")
        actor.raw = True

    @stateful.rule(who=actors_, commit=st.booleans())
    def end_raw(self, who: int, commit: bool) -> None:
        actor = self.actors[who]
        if not actor.raw:
            return
        actor.sql("COMMIT" if commit else "ROLLBACK")
        if commit:
            self.committed.update(actor.pending)
        actor.pending = []
        actor.transaction_ended()

    # Server-side cursors.

    @stateful.rule(who=actors_)
    def open_iterator(self, who: int) -> None:
        actor = self.actors[who]
        if actor.raw or len(actor.iterators) > 2:
            return

        def declare() -> Any:
            cursor = actor.db.chunked_cursor()
            cursor.execute("SELECT generate_series(1, 1000)")
            return cursor

        cursor = actor.thread(declare)
        actor.courtesy = False
        if actor.managed:
            actor.begun = True
        actor.iterators.append((len(actor.blocks) + actor.manual, cursor))

    @stateful.rule(who=actors_)
    def step_iterator(self, who: int) -> None:
        actor = self.actors[who]
        for _, cursor in actor.iterators:
            assert len(actor.thread(lambda cursor=cursor: cursor.fetchmany(2))) == 2

    @stateful.rule(who=actors_)
    def close_iterator(self, who: int) -> None:
        actor = self.actors[who]
        if actor.iterators:
            _, cursor = actor.iterators.pop()
            actor.thread(cursor.close)

    def _close_iterators(self, actor: Actor, depth: int) -> None:
        """Close those that the end of the transaction at *depth* would close."""
        for opened_at, cursor in list(actor.iterators):
            if opened_at >= depth:
                actor.thread(cursor.close)
                actor.iterators.remove((opened_at, cursor))

    # Ends.

    @stateful.rule(who=actors_)
    def close(self, who: int) -> None:
        self._give_up(self.actors[who])

    def _give_up(self, actor: Actor) -> None:
        """close(), in the middle of whatever it was."""
        actor.thread(actor.db.close)
        for block in reversed(actor.blocks):
            actor.thread(lambda block=block: block.__exit__(None, None, None))
        for _, cursor in actor.iterators:
            actor.thread(cursor.close)
        actor.iterators, actor.blocks, actor.marks, actor.pending = [], [], [], []
        actor.manual = False
        actor.transaction_ended()

    @stateful.rule(who=actors_)
    def kill(self, who: int) -> None:
        """The server ends the process under a lease."""
        actor = self.actors[who]
        if not actor.leased:
            return
        pid = actor.thread(lambda: actor.db.connection.info.backend_pid)
        self.observer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        in_use = actor.begun or actor.raw or actor.iterators
        with pytest.raises(Error):
            actor.sql("SELECT 1")
        if in_use:
            # Never silently replaced: each statement fails until the owner gives up.
            assert actor.db._runner.lease.connection is not None
            with pytest.raises(Error):
                actor.sql("SELECT 1")
            assert actor.db._runner.lease.connection is not None
        self._give_up(actor)

    # What must always hold.

    @stateful.invariant()
    def agree(self) -> None:
        self._agree()

    def _agree(self) -> None:
        pids: dict[int, Actor] = {}
        for actor in self.actors:
            lease = actor.db._runner.lease
            assert (lease.connection is not None) == actor.leased, (
                f"actor {actor.number}: {lease!r}, but the model says leased={actor.leased}"
            )
            assert (lease.state is not State.RELEASED) == actor.leased
            if lease.connection is not None:
                pids[lease.connection.raw.info.backend_pid] = actor
        assert self._in_use() == len(pids)
        rows = self.observer.execute(
            "SELECT pid, state FROM pg_stat_activity WHERE application_name = %s", [APPLICATION]
        ).fetchall()
        for pid, state in rows:
            # I1: whoever is not leased is in no transaction (but may be being opened).
            if pid not in pids:
                assert "transaction" not in (state or ""), f"one in the pool is {state!r}"
        assert pids.keys() <= {pid for pid, _ in rows}
        for pid, state in rows:
            if pid in pids and pids[pid].raw:
                assert state == "idle in transaction"
        # I12: what was committed is there once, and nothing else is.
        found = self.observer.execute("SELECT name FROM testapp_item").fetchall()
        assert sorted(name for (name,) in found) == sorted(self.committed)
        assert not self.hook_failures


@pytest.fixture
def machine(server: dict[str, Any], observer: driver.Observer) -> Iterator[Any]:
    """The machine's class, on an alias of its own."""
    alias = "machine"
    configured = copy.deepcopy(connections["default"].settings_dict)
    configured["OPTIONS"]["application_name"] = APPLICATION
    put_small_pool(configured, size=ACTORS, timeout=10)
    connections.settings[alias] = configured
    yield type("Machine", (LeaseMachine,), {"observer": observer, "alias": alias})
    observer.execute("TRUNCATE testapp_item")
    pools.close_alias(alias)
    del connections.settings[alias]


def test_invariants(machine: Any) -> None:
    examples = int(os.environ.get("RELET_EXAMPLES", "20"))
    stateful.run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
