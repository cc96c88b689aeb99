"""``OPTIONS["budget"]``: connections that many pools share, counted by the server.

Each wrapper here has a pool of its own, and so stands for a process; `faults/test_budget.py` has
processes.
"""

from __future__ import annotations

import getpass
import logging
import os
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, OperationalError, connections, transaction

import relet
from relet.backends.config.dsn import database_of
from relet.core import PoolTimeout
from relet.core.budget import Budget, Share, shares

from ..support import driver, engine
from ..support.dsn import parameters_for, uri_of
from ..support.forks import child_of, needs_fork
from ..support.pools import backend_pid, stats
from ..support.sessions import kill
from ..support.threads import Thread
from ..support.waiting import until

pytestmark = pytest.mark.skipif(
    not engine.adapter().can_share_budget({}),
    reason=f"the pool of the engine {engine.NAME} cannot share a budget",
)

GROUP = "test"


def the_pool(wrapper):
    return wrapper._runner.find_pool().pool


@pytest.fixture
def make(make, request):
    """Make a wrapper whose pool has a part in the budget of this test."""

    def with_budget(alias, *, connections, group=GROUP, size=2, **settings):
        options = {"budget": {"connections": connections, "group": f"{group} {request.node.name}"}}
        options.update(settings.pop("OPTIONS", {}))
        return make(alias, size=size, OPTIONS=options, **settings)

    return with_budget


@pytest.fixture
def thread():
    """A thread of its own, for whoever waits."""
    thread = Thread()
    yield thread
    thread.end()


def permits(observer, wrapper):
    """The process ids of the sessions that hold permits, as the server knows them."""
    budget = the_pool(wrapper).config.budget
    return {pid for _, pid, _ in observer.execute(budget.holders()).fetchall()}


def shares_of(observer, wrapper):
    rows = observer.execute(the_pool(wrapper).config.budget.look()).fetchall()
    return sorted(shares(rows).values())


@contextmanager
def all_taken(wrapper):
    """Keep one connection of *wrapper* in a transaction."""
    with transaction.Atomic(wrapper.alias, True, False), wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        yield


@pytest.fixture
def added():
    """Let transaction.atomic() find wrappers by their aliases."""
    found = []

    def add(wrapper):
        connections[wrapper.alias] = wrapper
        found.append(wrapper)
        return wrapper

    yield add
    for wrapper in found:
        wrapper.close()
        del connections[wrapper.alias]


def waits_in(thread, wrapper):
    """Have *thread* run a statement on the pool of *wrapper*, which has to ask for a permit."""
    other = wrapper.copy()
    other.inc_thread_sharing()
    thread.begin(lambda: backend_pid(other))
    until(lambda: the_pool(wrapper).permits.asking)


def test_a_permit_lasts_as_long_as_its_session(make, observer):
    first, second = make("first", connections=2), make("second", connections=2)
    pid, other = backend_pid(first), backend_pid(second)
    assert permits(observer, first) == {pid, other}
    kill(observer, other)
    assert permits(observer, first) == {pid}
    with pytest.raises(driver.CONNECTION_LOST):
        backend_pid(second)
    other = backend_pid(second)
    assert permits(observer, first) == {pid, other}
    first.close_pool()
    until(lambda: pid not in permits(observer, second))
    assert backend_pid(second) in permits(observer, second)


def test_whoever_waits_is_served_by_his_own_pool(make, observer, added, thread):
    db = added(make("waits", connections=1))
    with all_taken(db):
        waits_in(thread, db)
        assert shares_of(observer, db) == [(1, True)]
    assert thread.result() == backend_pid(db)
    until(lambda: shares_of(observer, db) == [(1, False)])  # the one that asked is closed
    until(lambda: stats(db).size == 1)


def test_whoever_waits_is_served_when_another_process_ends(make, observer, added, thread):
    first, second = added(make("first", connections=1)), make("second", connections=1)
    with all_taken(first):
        waits_in(thread, second)
        kill(observer, *permits(observer, first))
        assert thread.result() in permits(observer, second)
        first.needs_rollback = True


def test_idle_connections_are_given_up(make, observer, added, thread):
    """By a pool that has more than it is to keep, and only then."""
    first, second = added(make("first", connections=2)), make("second", connections=2)
    other = first.copy()
    with all_taken(first):
        backend_pid(other)
    assert len(permits(observer, first)) == 2
    waits_in(thread, second)
    assert thread.result() in permits(observer, second)
    until(lambda: shares_of(observer, first) == [(1, False), (1, False)])
    until(lambda: stats(first).size == 1)
    waits_in(thread, third := make("third", connections=2))
    # These keep what they have, until one ends.
    assert shares_of(observer, third) == [(0, True), (1, False), (1, False)]
    second.close_pool()
    assert thread.result() in permits(observer, third)


@engine.needs("psycopg", "a min_size")
def test_what_is_guaranteed_is_not_given_up(make, observer, thread):
    pool = {"min_size": 2, "max_size": 2}
    first, second = make("first", connections=2, pool=pool), make("second", connections=2)
    backend_pid(first)
    until(lambda: stats(first).idle == 2)
    waits_in(thread, second)
    assert the_pool(first).permits.look()  # as its thread does once a second
    assert stats(first).size == 2
    first.close_pool()
    assert thread.result() in permits(observer, second)


def test_the_error_names_the_holders_of_the_group(make, added):
    options = {"application_name": "the holder"}
    first = added(make("first", connections=1, OPTIONS=options))
    second = make("second", connections=1, timeout=0.5)
    with all_taken(first):
        pid = backend_pid(first)
        with pytest.raises(OperationalError) as caught:
            backend_pid(second)
    assert isinstance(caught.value.__cause__, PoolTimeout)
    text = str(caught.value)
    assert "DATABASES['second']: couldn't get a connection after 0.50 sec. 0 of 2" in text
    assert "The budget of the group 'test test_the_error_names_the_holders_of_the_group" in text
    assert "1 connections, is spent. Raise OPTIONS['budget']['connections'], " in text
    assert f"Its holders:\n  the holder has 1: pid {pid} idle in transaction" in text
    assert "server has not answered" not in text


def test_groups_do_not_share(make, observer):
    first = make("first", connections=1)
    second = make("second", connections=1, group="another")
    assert permits(observer, first) == set()
    pids = backend_pid(first), backend_pid(second)
    assert (permits(observer, first), permits(observer, second)) == ({pids[0]}, {pids[1]})


def test_of_those_who_ask_the_poorest_is_first(make, observer):
    params = parameters_for(make("any", connections=2).settings_dict)
    budget = Budget(2, "the poorest")

    def take(session, pool, **asks):
        return session.execute(budget.take(pool, **asks)).fetchone()[1:]

    def pools():
        return shares(observer.execute(budget.look()).fetchall())

    with ExitStack() as stack:
        sessions = (stack.enter_context(driver.connect(**params)) for _ in range(9))
        assert take(next(sessions), 1) == (0, 1)
        with driver.connect(**params) as ends:
            assert take(ends, 2) == (0, 2)
            rich, poor = next(sessions), next(sessions)
            assert take(rich, 1) == (1, None)
            assert take(poor, 3) == (0, None)
            rich.execute(budget.ask(1))
            poor.execute(budget.ask(3))
        until(lambda: pools() == {1: Share(1, True), 3: Share(0, True)})
        assert take(rich, 1, asks=True) == (1, None)
        assert take(next(sessions), 1) == (1, None)
        assert take(poor, 3, asks=True) == (0, 2)
        assert pools() == {1: Share(1, True), 3: Share(1, False)}
        # Others may have been told another number.
        assert next(sessions).execute(Budget(3, "the poorest").take(1)).fetchone()[2] == 3


def test_the_thread_that_looks_ends_with_its_pool(make, observer):
    db = make("looks", connections=2)
    group = the_pool(db).config.budget.group
    backend_pid(db)

    def looks():
        return [each for each in threading.enumerate() if each.name.endswith(group)]

    assert len(looks()) == 1
    db.close_pool()
    until(lambda: not looks())


def test_no_budget_is_no_cost(db):
    backend_pid(db)
    assert the_pool(db).permits is None


# The session.

#: Locks that a session may have beside its permit, and how each is listed.
LOCKS = [
    "pg_advisory_lock(-7), pg_advisory_lock(-7)",
    "pg_advisory_lock_shared(9223372036854775807)",
    "pg_advisory_lock(-1, 2147483647)",
    "pg_try_advisory_lock_shared(5, -5)",
]


@pytest.mark.parametrize("policy", [{"session_state": "reset"}, {"session_state": "pin"}])
def test_a_restored_session_keeps_its_permit(make, observer, policy):
    db = make("restored", connections=2, policy=policy)
    pid = backend_pid(db)
    with closing(db), db.cursor() as cursor:
        for lock in LOCKS:
            cursor.execute(f"SELECT {lock}, set_config('app.x', 'y', false)")
    assert permits(observer, db) == {pid}
    mine = f"locktype = 'advisory' AND pid = {pid}"
    rows = observer.execute(f"SELECT mode FROM pg_locks WHERE {mine} ORDER BY 1").fetchall()
    assert [*map(tuple, rows)] == [("ExclusiveLock",), ("ShareLock",)]  # the permit, and whose
    assert backend_pid(db) == pid


@pytest.fixture
def unlocking(observer):
    """A function and a procedure that release all locks."""
    body = "LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_unlock_all(); END'"
    observer.execute(
        f"CREATE FUNCTION relet_unlock() RETURNS int {body.replace('END', 'RETURN 1; END')}"
    )
    observer.execute(f"CREATE PROCEDURE relet_unlock_p() {body}")
    yield
    observer.execute("DROP FUNCTION relet_unlock(); DROP PROCEDURE relet_unlock_p()")


UNLOCK = "SELECT pg_advisory_unlock_all()"


@pytest.mark.parametrize(
    "statement",
    [
        UNLOCK,
        "DISCARD ALL",
        "SELECT * FROM pg_advisory_unlock_all()",
        "SELECT pg_advisory_unlock_all()::text",
        "SELECT pg_advisory_unlock_all(), 1",
        "SELECT (pg_advisory_unlock_all())",
        f"{UNLOCK} WHERE true",
        f"WITH done AS MATERIALIZED ({UNLOCK}) SELECT * FROM done",
        "SELECT CASE WHEN true THEN pg_advisory_unlock_all() END",
        f"EXPLAIN ANALYZE {UNLOCK}",
        f"PREPARE unlock AS {UNLOCK}; EXECUTE unlock",
        "DO $$ BEGIN PERFORM pg_advisory_unlock_all(); END $$",
        "SELECT relet_unlock()",
        "CALL relet_unlock_p()",
    ],
)
def test_a_session_that_has_lost_its_permit_is_closed(make, observer, unlocking, statement):
    db = make("lost", connections=1)
    pid = backend_pid(db)
    with closing(db), db.cursor() as cursor:
        cursor.execute(statement)
    assert backend_pid(db) != pid
    assert permits(observer, db) == {backend_pid(db)}


@pytest.mark.parametrize("statement", [UNLOCK, "DISCARD ALL", f"DO $$ BEGIN {UNLOCK}; END $$"])
@pytest.mark.parametrize("mode", ["reset", "ignore", "error"])
def test_it_is_closed_in_every_mode(make, observer, mode, statement):
    db = make("lost", connections=1, policy={"session_state": mode})
    pid = backend_pid(db)
    with closing(db), db.cursor() as cursor:
        cursor.execute(statement.replace("SELECT", "PERFORM") if "DO" in statement else statement)
    assert backend_pid(db) != pid
    assert permits(observer, db) == {backend_pid(db)}


def test_it_is_closed_after_a_statement_that_failed(make, observer):
    db = make("lost", connections=1)
    pid = backend_pid(db)
    with closing(db), db.cursor() as cursor, pytest.raises(DatabaseError):
        cursor.execute("SELECT pg_advisory_unlock_all(), 1 / (random() * 0)::int")
    assert backend_pid(db) != pid
    assert permits(observer, db) == {backend_pid(db)}


@pytest.mark.parametrize("mode", ["pin", "ignore"])
def test_locks_that_are_not_all_keep_nothing(make, observer, mode):
    db = make("kept", connections=1, policy={"session_state": mode})
    pid = backend_pid(db)
    with db.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock_shared(1) FROM generate_series(1, 1)")
        assert stats(db).in_use == 0
    assert permits(observer, db) == {pid} == {backend_pid(db)}


def test_without_a_budget_unlocking_keeps_nothing(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT * FROM pg_advisory_unlock_all()")
        assert stats(db).in_use == 0


def test_the_permit_is_no_state_of_its_session(make):
    db = make("audited", connections=1, policy={"session_state_audit": "all"})
    with closing(db), db.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection = the_pool(db).checkout()
    assert connection.baseline.kinds == frozenset()
    the_pool(db).checkin(connection)
    assert not [row for row in relet.session_state_audit().rows if row.alias == "audited"]


# Processes and poolers.


@needs_fork
def test_a_child_takes_permits_of_its_own(make, observer):
    db = make("forked", connections=2)
    pid = backend_pid(db)

    def child():
        assert backend_pid(db) != pid
        with driver.connect(**parameters_for(db.settings_dict)) as beside:
            assert len(permits(beside, db)) == 2

    assert child_of(child) == 0
    until(lambda: permits(observer, db) == {pid})


def test_a_pooler_is_noticed(make, caplog):
    """What a pooler says at the login is not the process id of the session."""
    caplog.set_level(logging.WARNING, "relet")
    db = make("pooled", connections=2)
    pool = the_pool(db)
    pool.backend_pid = lambda raw: 1
    backend_pid(db)
    with all_open(db):
        pass
    (message,) = (record.getMessage() for record in caplog.records if record.name == "relet")
    assert "DATABASES['pooled']['OPTIONS']['budget']: there is a pooler between" in message


@contextmanager
def all_open(db):
    other = db.copy()
    with db.temporary_connection(), other.temporary_connection():
        yield


# Settings.


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (80, "it is 80; it must be a dict such as {'connections': 80, 'group': 'shop'}, or None."),
        ({"connections": 80}, "'group' is missing."),
        ({"connections": 80, "groop": "shop"}, "unknown 'groop' (did you mean 'group'?)"),
        ({"connections": "80", "group": "shop"}, "'connections' is '80'; it must be a whole numb"),
        ({"connections": 0, "group": "shop"}, "'connections' is 0; it must be a whole number, 1"),
        ({"connections": 10**6, "group": "shop"}, "no server has more than 262143."),
        ({"connections": 80, "group": ""}, "'group' is ''; it must be a name, such as 'shop'."),
    ],
)
def test_checks(db, budget, says):
    checked(db, {"budget": budget}, says)


def test_checks_refuse_no_pooling(db):
    budget = {"connections": 80, "group": "shop"}
    checked(db, {"budget": budget, "pool": False}, "'pool' cannot be False")


@engine.needs("sqlalchemy", "another class of pools")
def test_checks_refuse_another_pool(db):
    budget = {"connections": 80, "group": "shop"}
    pool = {"class": "sqlalchemy.pool.NullPool"}
    checked(db, {"budget": budget, "pool": pool}, "or have another 'class'")


@engine.needs("psycopg", "a min_size")
def test_checks_refuse_what_cannot_be_guaranteed(db):
    budget = {"connections": 3, "group": "shop"}
    checked(db, {"budget": budget, "pool": {}}, "the pool of each process keeps 4 open")


def checked(db, options, says):
    settings = {**db.settings_dict, "OPTIONS": {**db.settings_dict["OPTIONS"], **options}}
    connections["wrong"] = wrapper = type(db)(settings, "wrong")
    connections.settings["wrong"] = settings
    try:
        (found,) = run_checks(tags=["relet"])
        assert found.id == "relet.E012"
        assert found.msg.startswith("DATABASES['wrong']['OPTIONS']['budget']: ")
        assert says in found.msg
        with pytest.raises(ImproperlyConfigured):
            wrapper.ensure_connection()
    finally:
        del connections["wrong"], connections.settings["wrong"]


@pytest.mark.parametrize(
    ("group", "connections", "name", "warned"),
    [
        ("shop", 80, None, False),
        ("shop", 40, None, True),
        ("till", 40, None, False),
        ("shop", 40, "another", False),
    ],
)
def test_checks_compare_aliases_with_one_budget(two_aliases, group, connections, name, warned):
    two_aliases(("shop", 80, None), (group, connections, name))
    found = [message for message in run_checks(tags=["relet"]) if message.id == "relet.W004"]
    assert len(found) == warned
    for message in found:
        assert message.msg.startswith(
            "DATABASES['second']['OPTIONS']['budget'] and DATABASES['first']['OPTIONS']['budget'] "
            "are one budget, the group 'shop' in one database, but 'connections' is 40 in one and "
            "80 in the other."
        )


@pytest.fixture
def two_aliases(db):
    def make(*budgets):
        for alias, (group, limit, name) in zip(("first", "second"), budgets, strict=True):
            options = {
                **db.settings_dict["OPTIONS"],
                "budget": {"connections": limit, "group": group},
            }
            settings = {**db.settings_dict, "OPTIONS": options}
            if name is not None:
                settings["NAME"] = name
            connections[alias] = type(db)(settings, alias)
            connections.settings[alias] = settings

    yield make
    for alias in "first", "second":
        del connections[alias], connections.settings[alias]


# The command.


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "relet.backends.cli", "budget", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        **environment,
    )


def test_command(make, observer, tmp_path):
    db = make("default", connections=2, OPTIONS={"application_name": "the holder"})
    pid = backend_pid(db)
    group = the_pool(db).config.budget.group
    (tmp_path / "shop.py").write_text(f"DATABASES = {{'default': {db.settings_dict!r}}}\n")
    result = command("--settings", "shop", cwd=tmp_path)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == f"Budget of the group {group!r}: 2 connections (DATABASES['default'])"
    assert "  held: 1, by 1 pools, of which 0 ask for more" in lines
    assert "  at most now: 2, 1 processes x max_size" in lines
    deploy = "  at most in a deploy: 4, 2 processes x max_size"
    assert f"{deploy}: more than the budget, so under full load threads wait" in lines
    assert any(line.startswith("  server: max_connections ") for line in lines)
    assert lines[-1] == f"  the holder has 1: pid {pid} idle"
    assert result.returncode == 0
    uri = uri_of(parameters_for(db.settings_dict))
    result = command("--dsn", uri, "--group", group)
    assert "  held: 1, by 1 pools, of which 0 ask for more" in result.stdout
    assert f"  the holder has 1: pid {pid} idle" in result.stdout


def test_command_asks_the_database_of_a_service(make, observer, tmp_path):
    db = make("default", connections=2)
    pid = backend_pid(db)
    group = the_pool(db).config.budget.group
    lines = [f"{name}={value}" for name, value in parameters_for(db.settings_dict).items()]
    (tmp_path / "services").write_text("\n".join(["[shop]", *lines]))
    environment = {**os.environ, "PGSERVICEFILE": str(tmp_path / "services")}
    result = command("--dsn", "postgresql://?service=shop", "--group", group, env=environment)
    assert result.stderr == ""
    assert f"pid {pid} idle" in result.stdout


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_the_database_of_a_uri_for_a_user_without_a_name(monkeypatch, error):
    """As in a container that runs as any number; which of these, depends on Python's version."""

    def getuser():
        raise error

    monkeypatch.setattr(getpass, "getuser", getuser)
    for variable in "PGDATABASE", "PGUSER", "PGSERVICE":
        monkeypatch.delenv(variable, raising=False)
    assert database_of("postgresql://somewhere")["NAME"] == "postgres"


@pytest.mark.parametrize(
    ("uri", "variables", "name"),
    [
        ("postgresql://somebody@", {"PGDATABASE": "shop", "PGUSER": "nobody"}, "shop"),
        ("postgresql://somebody@", {"PGUSER": "nobody"}, "somebody"),
        ("postgresql://", {"PGUSER": "nobody"}, "nobody"),
        ("postgresql://", {}, "relet_os_user"),
        ("postgresql://somebody@", {"PGSERVICE": "shop", "PGDATABASE": "other"}, ""),
    ],
)
def test_the_database_of_a_uri_without_a_name(monkeypatch, uri, variables, name):
    monkeypatch.setattr(getpass, "getuser", lambda: "relet_os_user")
    for variable in "PGDATABASE", "PGUSER", "PGSERVICE":
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert database_of(uri)["NAME"] == name


@pytest.fixture
def second_database(observer):
    observer.execute("DROP DATABASE IF EXISTS relet_second WITH (FORCE)")
    observer.execute("CREATE DATABASE relet_second")
    yield "relet_second"
    observer.execute("DROP DATABASE relet_second WITH (FORCE)")


@pytest.mark.slow
def test_command_adds_up_what_databases_of_one_server_share(
    make, observer, tmp_path, second_database
):
    """They may have one budget in the settings: locks belong to a database."""
    db = make("default", connections=60)
    backend_pid(db)
    usable = observer.execute(
        "SELECT current_setting('max_connections')::int "
        "- current_setting('superuser_reserved_connections')::int"
    ).fetchone()[0]
    settings = db.settings_dict
    settings["OPTIONS"]["budget"]["connections"] = number = usable * 2 // 3
    databases = {"default": settings, "logs": {**settings, "NAME": second_database}}
    (tmp_path / "shop.py").write_text(f"DATABASES = {databases!r}\n")
    result = command("--settings", "shop", cwd=tmp_path)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [line.rpartition("(")[2] for line in lines if line.startswith("Budget")] == [
        "DATABASES['default'])",
        "DATABASES['logs'])",
    ]
    # The pool of the other number is of the same group.
    held = [line for line in lines if line.startswith("  held")]
    assert [line.partition(",")[0] for line in held] == ["  held: 1", "  held: 0"]
    assert lines[-1] == (
        "All budgets on the server of DATABASES['default'], DATABASES['logs']: "
        f"{2 * number + 1} connections; together they DO NOT FIT the server"
    )
    assert result.returncode == 1
    settings["OPTIONS"]["budget"]["connections"] = 3
    (tmp_path / "shop.py").write_text(f"DATABASES = {databases!r}\n")
    result = command("--settings", "shop", cwd=tmp_path)
    assert result.stdout.splitlines()[-1].endswith("7 connections; together they fit the server")
    assert result.returncode == 0


@pytest.mark.slow
def test_command_is_none_of_the_fleet(make, tmp_path):
    db = make("default", connections=2)
    text = (
        f"DATABASES = {{'default': {db.settings_dict!r}}}\nINSTALLED_APPS = ['relet.dashboard']\n"
    )
    (tmp_path / "shop.py").write_text(text)
    # Its first beat would be now, and fail without the tables.
    code = (
        "import relet.dashboard.reporter as reporter; reporter.FIRST_S = 0.0\n"
        "reporter.reporter = reporter.Reporter()\n"
        "from relet.backends.cli import main; code = main(['budget', '--settings', 'shop'])\n"
        "assert not reporter.reporter._beats.goes_on; raise SystemExit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_command_takes_settings_or_a_dsn():
    result = command("--settings", "shop", "--dsn", "postgresql://h/x", "--group", "g")
    assert result.returncode == 2
    assert "not allowed with argument --settings" in result.stderr


@pytest.mark.slow
def test_command_shows_nothing_of_a_dsn():
    result = command("--dsn", "postgresql://u:s3cr3t/x@h/db", "--group", "g")
    assert result.returncode == 2
    assert "not a libpq URI" in result.stderr and "s3cr3t" not in result.stderr
