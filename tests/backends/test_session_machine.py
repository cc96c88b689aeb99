"""A machine that leaves things in sessions, in lockstep with a model: I3 and I4.

Three threads share a pool of two connections. They make session state of every kind and give it
back, in transactions, savepoints, hold() and override() blocks that commit and fail, and close,
fail and lose their connections in the middle of it. After each step the model, the wrappers,
the pool's counts and what the server says of each session agree. Whenever a connection is
checked in, its session is what it was when it had been configured.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, Error, connections
from django.db.backends.signals import connection_created
from django.db.transaction import Atomic
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from relet import ReleasePolicy, hold, policies
from relet.backends import SessionStateError
from relet.backends.leases.hold import Hold
from relet.backends.pools import pools

from ..support import driver
from ..support.engine import put_small_pool
from ..support.fingerprint import fingerprint
from ..support.threads import Thread

ACTORS = 3
CONNECTIONS = 2
ALIAS = "session machine"

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.filterwarnings("ignore::relet.backends.SessionStateWarning"),
]

#: Settings that the server does not list.
CUSTOM = ("app.region", "app.tenant")
#: What the server says of a session, in the model's words.
FACTS = """
SELECT 'lock_timeout' WHERE current_setting('lock_timeout') <> '0'
UNION ALL SELECT 'timezone' WHERE current_setting('TimeZone') <> 'Asia/Tokyo'
UNION ALL SELECT 'app.region' WHERE current_setting('app.region', true) IS DISTINCT FROM 'eu'
UNION ALL SELECT 'app.tenant' WHERE coalesce(current_setting('app.tenant', true), '') <> ''
UNION ALL SELECT 'role' WHERE current_setting('role') <> 'none'
UNION ALL SELECT 'temp ' || relname FROM pg_class
  WHERE relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'v', 'S')
UNION ALL SELECT 'channel ' || channel FROM pg_listening_channels() AS channel
UNION ALL SELECT DISTINCT 'lock ' || objid::int % 10 FROM pg_locks
  WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements WHERE from_sql
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable AND name LIKE 'relet%'
"""

#: What a transaction does not take back.
FOR_GOOD = ("lock ", "prepared ", "sequence", "seed")

#: SQL, and what it makes. `{n}` is the number of the actor: locks are not to be waited for.
MAKES = [
    ("SET lock_timeout = 5000", ["lock_timeout"]),
    ("/* x */ set Session LOCK_TIMEOUT to '6s'", ["lock_timeout"]),
    ("SET TIME ZONE 'UTC'", ["timezone"]),
    ("RESET TimeZone", ["timezone"]),
    ("SELECT set_config('app.tenant', 'seven', false)", ["app.tenant"]),
    ("WITH x AS (SELECT set_config('app.region', 'us', false)) TABLE x", ["app.region"]),
    ("SET lock_timeout = 7; SET app.tenant = 'x'", ["lock_timeout", "app.tenant"]),
    ("SET ROLE relet_machine", ["role"]),
    ("CREATE TEMP TABLE relet_t1 (a int)", ["temp relet_t1"]),
    ("CREATE TEMPORARY SEQUENCE relet_t2", ["temp relet_t2"]),
    ("CREATE VIEW pg_temp.relet_t3 AS SELECT 1", ["temp relet_t3"]),
    ("SELECT 1 AS a INTO TEMP relet_t4", ["temp relet_t4"]),
    ("LISTEN relet_a", ["channel relet_a"]),
    ("LISTEN relet_b", ["channel relet_b"]),
    ("SELECT pg_advisory_lock({n}1)", ["lock 1"]),
    ("SELECT pg_try_advisory_lock({n}2)", ["lock 2"]),
    ("SELECT pg_advisory_lock_shared(3)", ["lock 3"]),
    ("SELECT pg_advisory_lock({n}1), pg_advisory_lock({n}1)", ["lock 1", "lock 1"]),
    ("PREPARE relet_p AS SELECT 1", ["prepared relet_p"]),
    ("DECLARE relet_c CURSOR WITH HOLD FOR SELECT 1", ["cursor relet_c"]),
    ("SELECT nextval('relet_machine')", ["sequence"]),
    ("SELECT setseed(0.5)", ["seed"]),
]
#: SQL, and what it gives back.
GIVES_BACK = [
    ("RESET lock_timeout", "lock_timeout"),
    ("SET app.tenant TO DEFAULT", "app.tenant"),
    ("RESET ROLE", "role"),
    ("DROP TABLE relet_t1", "temp relet_t1"),
    ("DROP SEQUENCE relet_t2", "temp relet_t2"),
    ("DROP TABLE IF EXISTS pg_temp.relet_t4", "temp relet_t4"),
    ("UNLISTEN relet_a", "channel relet_a"),
    ("SELECT pg_advisory_unlock({n}1)", "lock 1"),
    ("SELECT pg_advisory_unlock({n}2)", "lock 2"),
    ("SELECT pg_advisory_unlock_shared(3)", "lock 3"),
    ("DEALLOCATE relet_p", "prepared relet_p"),
    ("CLOSE relet_c", "cursor relet_c"),
]
HARMLESS = [
    "SELECT 'SET lock_timeout = 5; LISTEN x'",
    "SELECT pg_advisory_xact_lock_shared(99)",
    "SELECT set_config('app.tenant', 'never', true)",
    "SELECT $$ SELECT pg_advisory_lock(1) $$ -- ; SET lock_timeout = 5",
    "UPDATE testapp_item SET name = 'lock_timeout' WHERE false",
    "SET LOCAL statement_timeout = '1h'",
]
#: Outside of a transaction. None has an effect.
FAILS = [
    "SELECT 1/0",
    "SET lock_timeout = 5; SELECT 1/0",
    "BEGIN; SET lock_timeout = 5; ROLLBACK; SELECT 1/0",
    "SET no_such_setting = 5",
    "LISTEN relet_a; CREATE TEMP TABLE relet_t1 (a int); SELECT 1/0",
]


@dataclass
class Session:
    """What the model knows of a session."""

    facts: Counter[str] = field(default_factory=Counter)
    #: Those that keep the lease.
    kept: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Session:
        return Session(self.facts.copy(), self.kept.copy())

    def rolled_back_to(self, then: Session) -> Session:
        return Session(_mixed(then.facts, self.facts), _mixed(then.kept, self.kept))

    def drop(self, fact: str) -> None:
        for counter in self.facts, self.kept:
            if fact.startswith("lock ") and counter[fact] > 1:
                counter[fact] -= 1
            else:
                del counter[fact]


def _mixed(then: Counter[str], now: Counter[str]) -> Counter[str]:
    return Counter(
        {fact: n for fact, n in then.items() if not fact.startswith(FOR_GOOD)}
        | {fact: n for fact, n in now.items() if fact.startswith(FOR_GOOD)}
    )


class Actor:
    """A thread with a wrapper, and what the model knows of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.thread = Thread()
        self.db = self.thread(lambda: connections[ALIAS])
        #: Blocks that are open: atomic(), hold(), override().
        self.blocks: list[Any] = []
        self.session = Session()
        #: What it was at the start of each atomic() block, and at each SAVEPOINT in it.
        self.marks: list[list[tuple[str, Session]]] = []
        self.raw = False  # a transaction begun by a raw BEGIN
        self.begun = False  # the transaction has a connection
        self.ran = False  # there is a lease, or hold() keeps it
        self.iterator: Any = None
        self.opened_at = 0  # the number of transactions and savepoints around it
        self.policy: ReleasePolicy | None = None  # of the lease

    @property
    def holds(self) -> int:
        return sum(isinstance(block, Hold) for block in self.blocks)

    @property
    def in_transaction(self) -> bool:
        return self.raw or any(isinstance(block, Atomic) for block in self.blocks)

    @property
    def leased(self) -> bool:
        return self.policy is not None and bool(
            self.begun
            or self.raw
            or self.iterator
            or self.holds
            or self.session.kept
            or self.policy.release == "request"
        )

    @property
    def next_policy(self) -> ReleasePolicy:
        if self.policy is not None:
            return self.policy
        return self.thread(lambda: policies[ALIAS])  # type: ignore[no-any-return]

    def settle(self) -> None:
        """The lease has ended, if nothing keeps it; then everything is undone."""
        if not self.leased:
            self.policy = None
            self.session = Session()


class SessionMachine(stateful.RuleBasedStateMachine):
    observer: driver.Observer
    checkins: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.checkins.clear()
        self.actors = [Actor(number + 1) for number in range(ACTORS)]
        #: The server processes of the connections that leases had, while these may be open.
        self.processes: dict[int, Any] = {}

    def teardown(self) -> None:
        try:
            for actor in self.actors:
                self._give_up(actor)
            self.agree()
        finally:
            for actor in self.actors:
                actor.thread(actor.db.close)
                actor.thread.end()

    def _await_ends(self) -> None:
        """Wait until the server has ended what was thrown away: until then it has its locks."""
        for pid in [pid for pid, raw in self.processes.items() if raw.closed]:
            self.observer.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])
            del self.processes[pid]
        for actor in self.actors:
            if (connection := actor.db._runner.lease.connection) is not None:
                raw = connection.raw
                if not raw.closed:
                    self.processes[raw.info.backend_pid] = raw

    def _in_use(self) -> int:
        return sum(entry.pool.stats().in_use for entry in pools if entry.alias == ALIAS)

    def _may_run(self, actor: Actor) -> bool:
        """Whether it would not have to wait."""
        return actor.policy is not None or self._in_use() < CONNECTIONS

    def _run(self, actor: Actor, sql: str) -> Any:
        def run() -> Any:
            with actor.db.cursor() as cursor:
                cursor.execute(sql.format(n=actor.number))
                return cursor.fetchall() if cursor.description else None

        policy = actor.next_policy
        # Definitions that have to be read first take a lease.
        reads = actor.db._runner.effects.stale
        try:
            return actor.thread(run)
        except SessionStateError:
            if actor.policy is None and not reads:
                policy = None  # type: ignore[assignment]
            raise
        finally:
            if policy is not None:
                actor.policy = policy
                actor.begun = actor.begun or actor.in_transaction

    # Statements.

    actors_ = st.integers(0, ACTORS - 1)

    @stateful.rule(who=actors_, what=st.sampled_from(MAKES))
    def make(self, who: int, what: tuple[str, list[str]]) -> None:
        actor, (sql, facts) = self.actors[who], what
        exist = any(fact in actor.session.facts for fact in facts)
        if not self._may_run(actor) or (exist and facts[0].startswith(("temp", "prep", "curs"))):
            return
        policy = actor.next_policy
        if policy.session_state == "error" and not actor.holds and not sql.startswith("RESET"):
            with pytest.raises(SessionStateError):
                self._run(actor, sql)
            actor.settle()
            return
        self._run(actor, sql)
        for fact in facts:
            actor.session.facts[fact] += 1
            if policy.session_state == "pin" and not actor.holds:
                actor.session.kept[fact] += 1
        actor.settle()

    @stateful.rule(who=actors_, what=st.sampled_from(GIVES_BACK))
    def give_back(self, who: int, what: tuple[str, str]) -> None:
        actor, (sql, fact) = self.actors[who], what
        if fact not in actor.session.facts:
            return
        if fact.startswith("cursor") and actor.in_transaction:
            return  # a rollback would not bring it back, and relet does not know
        self._run(actor, sql)
        actor.session.drop(fact)
        actor.settle()

    @stateful.rule(who=actors_)
    def discard_all(self, who: int) -> None:
        actor = self.actors[who]
        if actor.in_transaction or actor.iterator or not self._may_run(actor):
            return
        policy = actor.next_policy
        self._run(actor, "DISCARD ALL")
        # And with it, what was configured.
        configured = Counter(["timezone", "app.region"])
        keep = policy.session_state == "pin" and not actor.holds
        # DISCARD ALL does not reset the seed of random(), and what is unknown may be one.
        stays = Counter({fact: 1 for fact in ("seed", "unknown") if actor.session.kept[fact]})
        actor.session = Session(configured, stays + configured if keep else stays)
        actor.settle()

    @stateful.rule(who=actors_, sql=st.sampled_from(HARMLESS))
    def harmless(self, who: int, sql: str) -> None:
        actor = self.actors[who]
        if self._may_run(actor):
            self._run(actor, sql)
            actor.settle()

    @stateful.rule(who=actors_, sql=st.sampled_from(FAILS))
    def fail(self, who: int, sql: str) -> None:
        actor = self.actors[who]
        if actor.raw or not self._may_run(actor):
            return
        if actor.next_policy.session_state == "error" and not actor.holds and sql != "SELECT 1/0":
            return
        if actor.in_transaction:
            if "BEGIN" in sql or len(actor.blocks) > 5:
                return  # no block of its own could be entered for it
            self.enter(who)
        with pytest.raises(DatabaseError):
            self._run(actor, sql)
        if actor.in_transaction:
            self.leave(who, commit=False)
        elif "BEGIN" in sql and actor.next_policy.session_state == "pin" and not actor.holds:
            # Of how far it came, nobody knows.
            actor.session.kept["unknown"] += 1
        actor.settle()

    # Transactions.

    @stateful.rule(who=actors_)
    def enter(self, who: int) -> None:
        actor = self.actors[who]
        if actor.raw or len(actor.blocks) > 5 or not self._may_run(actor):
            return
        block = Atomic(ALIAS, True, False)
        actor.thread(block.__enter__)
        actor.blocks.append(block)
        actor.marks.append([("", actor.session.copy())])
        actor.begun = actor.begun or actor.policy is not None

    @stateful.rule(who=actors_, commit=st.booleans())
    def leave(self, who: int, commit: bool) -> None:
        """Leave the innermost block, of whatever kind."""
        actor = self.actors[who]
        if actor.raw or not actor.blocks:
            return
        block = actor.blocks[-1]
        closes = isinstance(block, Atomic) and actor.opened_at == len(actor.marks)
        if closes and actor.iterator is not None:
            self.close_iterator(who)  # else the transaction would
        actor.blocks.pop()
        error = None if commit else ZeroDivisionError
        actor.thread(lambda: block.__exit__(error, error and error(), None))
        if isinstance(block, Atomic):
            ((_, then), *_) = actor.marks.pop()
            if not commit:
                actor.session = actor.session.rolled_back_to(then)
            if not actor.in_transaction:
                actor.begun = False
        elif isinstance(block, Overriding) and actor.policy is block.policy:
            actor.policy = actor.thread(lambda: policies[ALIAS])
        elif isinstance(block, Hold) and not (
            actor.holds or actor.in_transaction or actor.iterator or actor.session.kept
        ):
            actor.session = Session()  # undone, also where the release mode keeps the lease
        actor.settle()

    @stateful.rule(who=actors_)
    def begin(self, who: int) -> None:
        actor = self.actors[who]
        if actor.in_transaction or not self._may_run(actor):
            return
        self._run(actor, "BEGIN")
        actor.raw = True
        actor.marks.append([("", actor.session.copy())])

    @stateful.rule(who=actors_, commit=st.booleans())
    def end(self, who: int, commit: bool) -> None:
        actor = self.actors[who]
        if not actor.raw:
            return
        if actor.iterator is not None:
            self.close_iterator(who)
        self._run(actor, "COMMIT" if commit else "ROLLBACK")
        ((_, then), *_) = actor.marks.pop()
        if not commit:
            actor.session = actor.session.rolled_back_to(then)
        actor.raw = actor.begun = False
        actor.settle()

    names = st.sampled_from(["a", "b"])

    @stateful.rule(who=actors_, name=names)
    def savepoint(self, who: int, name: str) -> None:
        actor = self.actors[who]
        if actor.in_transaction and actor.iterator is None and self._may_run(actor):
            self._run(actor, f"SAVEPOINT {name}")
            actor.marks[-1].append((name, actor.session.copy()))

    @stateful.rule(who=actors_, name=names, release=st.booleans())
    def end_savepoint(self, who: int, name: str, release: bool) -> None:
        actor = self.actors[who]
        if not actor.in_transaction or actor.iterator is not None:
            return
        marks = actor.marks[-1]
        found = [n for n, (known, _) in enumerate(marks) if known == name]
        if not found:
            return
        position = found[-1]
        self._run(actor, f"{'RELEASE' if release else 'ROLLBACK TO'} {name}")
        if release:
            del marks[position:]
        else:
            actor.session = actor.session.rolled_back_to(marks[position][1])
            del marks[position + 1 :]
        actor.settle()

    # Blocks.

    @stateful.rule(who=actors_)
    def hold(self, who: int) -> None:
        actor = self.actors[who]
        if len(actor.blocks) < 6 and not actor.raw:
            block = hold(ALIAS)
            actor.thread(block.__enter__)
            actor.blocks.append(block)

    @stateful.rule(
        who=actors_,
        release=st.sampled_from(["statement", "cursor", "request"]),
        state=st.sampled_from(["pin", "reset", "error"]),
    )
    def override(self, who: int, release: Any, state: Any) -> None:
        actor = self.actors[who]
        if len(actor.blocks) < 6 and not actor.raw:
            block = Overriding(ReleasePolicy(release=release, session_state=state))
            actor.thread(block.__enter__)
            actor.blocks.append(block)

    # Server-side cursors.

    @stateful.rule(who=actors_)
    def open_iterator(self, who: int) -> None:
        actor = self.actors[who]
        if actor.raw or actor.iterator is not None or not self._may_run(actor):
            return
        policy = actor.next_policy

        def declare() -> Any:
            cursor = actor.db.chunked_cursor()
            cursor.execute("SELECT generate_series(1, 1000)")
            return cursor

        actor.iterator = actor.thread(declare)
        actor.opened_at = len(actor.marks)
        actor.policy = policy
        actor.begun = actor.begun or actor.in_transaction

    @stateful.rule(who=actors_)
    def close_iterator(self, who: int) -> None:
        actor = self.actors[who]
        if actor.iterator is not None:
            assert len(actor.thread(lambda: actor.iterator.fetchmany(2))) == 2
            actor.thread(actor.iterator.close)
            actor.iterator = None
            actor.settle()

    # Ends.

    @stateful.rule(who=actors_)
    def close(self, who: int) -> None:
        actor = self.actors[who]
        if actor.in_transaction:
            self._give_up(actor)
            return
        actor.thread(actor.db.close)
        if actor.iterator is not None:
            actor.thread(actor.iterator.close)
        actor.iterator = actor.policy = None
        actor.session = Session()

    def _give_up(self, actor: Actor) -> None:
        """close(), in the middle of whatever it was."""
        actor.thread(actor.db.close)
        for block in reversed(actor.blocks):
            actor.thread(lambda block=block: block.__exit__(None, None, None))
        if actor.iterator is not None:
            actor.thread(actor.iterator.close)
        actor.blocks, actor.marks, actor.iterator, actor.policy = [], [], None, None
        actor.raw = actor.begun = False
        actor.session = Session()

    @stateful.rule(who=actors_)
    def kill(self, who: int) -> None:
        """The server ends the process under a lease: nothing goes on in another session."""
        actor = self.actors[who]
        if not actor.leased:
            return
        pid = actor.thread(lambda: actor.db._runner.lease.connection.raw.info.backend_pid)
        self.observer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        with pytest.raises(Error):
            self._run(actor, "SELECT 1")
        if actor.policy is not None and actor.policy.release != "request":
            with pytest.raises(Error):
                self._run(actor, "SELECT 1")
        self._give_up(actor)

    # What must always hold.

    @stateful.invariant()
    def agree(self) -> None:
        self._await_ends()
        assert self.checkins == []
        for actor in self.actors:
            lease = actor.db._runner.lease
            assert (lease.connection is not None) == actor.leased, (
                f"actor {actor.number}: {lease!r}, but the model says leased={actor.leased}"
            )
            if lease.connection is not None and not actor.in_transaction:
                ask = partial(driver.execute, lease.connection.raw, FACTS)
                facts = {fact for (fact,) in actor.thread(lambda ask=ask: ask().fetchall())}
                known = set(actor.session.facts) - {"sequence", "seed"}  # which no view shows
                assert facts == known, f"actor {actor.number}"
        assert self._in_use() == sum(actor.leased for actor in self.actors)


class Overriding(ExitStack):
    """`policies.override`, and the policy that it gives."""

    def __init__(self, policy: ReleasePolicy) -> None:
        super().__init__()
        self.policy = policy

    def __enter__(self) -> Overriding:
        super().__enter__()
        self.policy = self.enter_context(policies.override(ALIAS, self.policy))
        return self


def configure(connection: Any, **kwargs: Any) -> None:
    if connection.alias == ALIAS:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
            cursor.execute("SET app.region = 'eu'")


@pytest.fixture
def machine(server: dict[str, Any], observer: driver.Observer) -> Iterator[Any]:
    """The machine's class, on an alias of its own, with a pool that looks at each checkin."""
    configured = copy.deepcopy(connections["default"].settings_dict)
    put_small_pool(configured, size=CONNECTIONS, timeout=10)
    connections.settings[ALIAS] = configured
    observer.execute("DROP ROLE IF EXISTS relet_machine")
    observer.execute("CREATE ROLE relet_machine SUPERUSER")
    observer.execute("CREATE SEQUENCE IF NOT EXISTS relet_machine")
    connection_created.connect(configure)
    wrapper = connections[ALIAS]
    pool = wrapper._runner.find_pool().pool
    checkins: list[str] = []
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    pool.open()
    connection = pool.checkout()
    baseline = fingerprint(connection.raw, CUSTOM)
    checkin = pool.checkin
    checkin(connection)

    def looking(connection: Any) -> None:
        found = fingerprint(connection.raw, CUSTOM)
        left = driver.execute(connection.raw, FACTS).fetchall()
        if found != baseline or left:
            checkins.append(f"{found} is not {baseline}: {left}")
            pool.discard(connection)  # so that it does not spoil the next example
        else:
            checkin(connection)

    pool.checkin = looking
    yield type("Machine", (SessionMachine,), {"observer": observer, "checkins": checkins})
    connection_created.disconnect(configure)
    connections[ALIAS].close()
    pools.close_alias(ALIAS)
    del connections[ALIAS]
    del connections.settings[ALIAS]
    observer.execute("DROP SEQUENCE relet_machine")
    observer.execute("DROP ROLE relet_machine")


def test_session_state(machine: Any) -> None:
    stateful.run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("RELET_EXAMPLES", "20")),
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seeds", [True, False])
def test_what_is_for_good_outlasts_discard_all(machine: Any, seeds: bool) -> None:
    """Found by the machine: what "pin" kept keeps the lease, under another policy, too."""
    state = machine()
    (actor, *_) = state.actors
    try:
        state.override(release="statement", state="reset", who=0)
        state.override(release="statement", state="pin", who=0)
        if seeds:
            state.make(what=("SELECT setseed(0.5)", ["seed"]), who=0)
        else:
            state.fail(sql="BEGIN; SET lock_timeout = 5; ROLLBACK; SELECT 1/0", who=0)
        state.leave(commit=False, who=0)
        state.discard_all(who=0)
        assert actor.leased
        state.agree()
    finally:
        state.teardown()
