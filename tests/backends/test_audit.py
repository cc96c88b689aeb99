"""The audit: what statements leave in their session, although their text does not show it."""

from __future__ import annotations

import io
import json
import logging
from contextlib import contextmanager

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from relet import ReleasePolicy, hold, policies, session_state_audit
from relet.backends import build
from relet.backends.leases import audit as auditing
from relet.backends.leases.findings import findings
from relet.backends.testing import audit_session_state
from relet.core import ConfigurationError
from relet.core.lease import TABLES
from relet.core.policy import STATE_MODES

from ..support import driver, engine
from ..support.aliases import Aliases
from ..support.driver import needs
from ..support.pools import at_rest, backend_pid, stats
from ..support.threads import Thread

#: A value that no report, log or row may have in it.
SECRET = "4711kuckuck"

#: Kind of state -> a body of a function that makes it, and the name of what is left.
BODIES = {
    "setting": ("PERFORM set_config('lock_timeout', '77s', false);", "lock_timeout"),
    "role": ("EXECUTE 'SET ROLE relet_other';", ""),
    "temporary object": ("CREATE TEMP TABLE relet_tmp (a int);", "relet_tmp"),
    "channel": ("EXECUTE 'LISTEN relet_news';", "relet_news"),
    "advisory lock": ("PERFORM pg_advisory_lock(4711);", ""),
    "prepared statement": ("EXECUTE 'PREPARE relet_p AS SELECT 1';", "relet_p"),
}
CUSTOM = f"PERFORM set_config('relet_app.tenant', '{SECRET}', false);"
LOCAL = "PERFORM set_config('lock_timeout', '78s', true); PERFORM pg_advisory_xact_lock(4711);"
#: Kinds that a transaction does not undo.
LASTING = ("advisory lock", "prepared statement")
#: What ends with the transaction, and shows in its text.
LOCAL_TEXTS = [
    "SET LOCAL work_mem = '5MB'",
    "SET LOCAL TIME ZONE 'Asia/Tokyo'",
    "SET LOCAL search_path = public",
    "SET LOCAL ROLE relet_other",
    "SET LOCAL SESSION AUTHORIZATION relet_other",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET TRANSACTION READ WRITE",
    "SAVEPOINT s; SET LOCAL work_mem = '5MB'; RELEASE s",
    "SET LOCAL work_mem = '5MB'; SELECT 1",
    "SELECT set_config('work_mem', '5MB', true)",
    "DO $$ BEGIN EXECUTE 'SET LOCAL work_mem = 5000'; END $$",
    "CREATE TEMP TABLE relet_t (a int) ON COMMIT DROP; DROP TABLE relet_t",
    "SELECT pg_advisory_xact_lock(4711)",
]

kinds = pytest.mark.parametrize("kind", BODIES)
releases = pytest.mark.parametrize("release", list(TABLES))
copies = needs("psycopg", "cursor.copy()")
streams = needs("psycopg", "cursor.stream()")
transfers = needs("psycopg", "cursor.copy() and cursor.stream()")
copies_at_once = needs("psycopg2", "COPY in one call")


pytestmark = pytest.mark.usefixtures("blind")


@pytest.fixture(autouse=True)
def nothing_found():
    def clear():
        findings.clear()
        auditing.forget_texts()

    clear()
    yield
    clear()


@pytest.fixture
def define(observer):
    """Define the function ``relet_unseen()``; drop it afterwards."""

    def define(body, name="relet_unseen", returns="int", end="RETURN 1;", arguments=""):
        observer.execute(
            f"CREATE OR REPLACE FUNCTION {name}({arguments}) RETURNS {returns} "
            f"LANGUAGE plpgsql AS $$ BEGIN {body} {end} END $$"
        )

    observer.execute("DROP ROLE IF EXISTS relet_other")
    observer.execute("CREATE ROLE relet_other")
    yield define
    observer.execute(
        "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE "
        "'relet_unseen%' LOOP EXECUTE 'DROP FUNCTION ' || f || ' CASCADE'; END LOOP; END $$"
    )
    observer.execute("DROP ROLE relet_other")


@pytest.fixture
def audited(make):
    """Make a wrapper of one connection whose leases are audited."""

    def audited(mode="all", **policy):
        return make("audited", policy={"session_state_audit": mode, **policy})

    return audited


@contextmanager
def audited_everywhere():
    policies.audit("all")
    yield
    policies.audit(None)


def run(wrapper, sql="SELECT relet_unseen()", params=None):
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def rows():
    return [(row.kind, row.name, row.sure) for row in session_state_audit().rows]


def state(wrapper):
    """What is in the session of the pool's only connection, which is at rest."""
    sql = (
        "SELECT (SELECT setting FROM pg_settings WHERE name = 'lock_timeout'), "
        "current_setting('relet_app.tenant', true) IS NULL OR "
        "current_setting('relet_app.tenant', true) = '', current_user = session_user, "
        "(SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), "
        "(SELECT count(*) FROM pg_listening_channels()), "
        "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), "
        "(SELECT count(*) FROM pg_prepared_statements WHERE from_sql)"
    )
    pool = wrapper._runner.find_pool().pool
    pool.open()
    leased = pool.checkout()
    try:
        return tuple(map(str, pool.execute_internal(leased.raw, sql)[0]))
    finally:
        pool.checkin(leased)


CLEAN = ("0", "True", "True", "0", "0", "0", "0")


class TestFinding:
    @kinds
    @releases
    def test_what_a_function_leaves_is_reported_and_undone(self, audited, define, kind, release):
        body, name = BODIES[kind]
        define(body)
        wrapper = audited(release=release)
        pid = backend_pid(wrapper)
        assert run(wrapper) == [(1,)]
        wrapper.close()
        assert rows() == [(kind, name, True)]
        assert state(wrapper) == CLEAN
        assert backend_pid(wrapper) == pid

    @kinds
    def test_without_the_audit_it_leaks(self, make, define, kind):
        define(BODIES[kind][0])
        wrapper = make()
        run(wrapper)
        wrapper.close()
        assert rows() == []
        assert state(wrapper) != CLEAN

    @kinds
    @releases
    def test_in_a_transaction_that_commits(self, audited, define, kind, release):
        body, name = BODIES[kind]
        define(body)
        wrapper = audited(release=release)
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1")
        assert run(wrapper) == [(1,)]
        run(wrapper, "SELECT 2")
        wrapper.commit()
        wrapper.close()
        (row,) = session_state_audit().rows
        assert (row.kind, row.name) == (kind, name)
        # LISTEN takes effect when the transaction commits.
        assert row.sql == (
            "COMMIT of SELECT ?; SELECT relet_unseen(); SELECT ?"
            if kind == "channel"
            else "SELECT relet_unseen()"
        )
        assert state(wrapper) == CLEAN

    @kinds
    def test_what_the_transaction_undoes_is_no_leak(self, audited, define, kind):
        body, name = BODIES[kind]
        define(body)
        wrapper = audited()
        wrapper.set_autocommit(False)
        run(wrapper)
        wrapper.rollback()
        wrapper.set_autocommit(True)
        assert rows() == ([(kind, name, True)] if kind in LASTING else [])
        assert state(wrapper) == CLEAN

    @kinds
    def test_a_savepoint_that_is_rolled_back(self, db, define, kind):
        body, name = BODIES[kind]
        define(body)
        with policies.override("default", session_state_audit="all"):
            with transaction.atomic():
                run(db, "SELECT 1")
                with pytest.raises(ZeroDivisionError), transaction.atomic():
                    run(db)
                    raise ZeroDivisionError
                run(db, "SELECT 2")
            assert at_rest(db)
        assert rows() == ([(kind, name, True)] if kind in LASTING else [])
        assert state(db) == CLEAN

    def test_a_setting_that_the_server_does_not_list(self, audited, define):
        wrapper = audited()
        run(wrapper, "SELECT 1")
        define(CUSTOM)
        run(wrapper)
        assert rows() == [("setting", "relet_app.tenant", True)]
        assert state(wrapper) == CLEAN

    def test_what_is_local_to_the_transaction_is_no_leak(self, audited, define):
        define(LOCAL)
        wrapper = audited()
        run(wrapper)
        wrapper.set_autocommit(False)
        run(wrapper)
        run(wrapper, "SELECT 1")
        wrapper.commit()
        wrapper.set_autocommit(True)
        assert rows() == []
        assert at_rest(wrapper)

    def test_a_setting_that_the_function_sets_back_is_no_leak(self, audited, define):
        define(
            "PERFORM set_config('lock_timeout', '5s', false);"
            "PERFORM set_config('lock_timeout', '0', false);"
        )
        run(audited())
        assert rows() == []

    def test_a_trigger(self, audited, define, observer):
        define("PERFORM pg_advisory_lock(4711);", returns="trigger", end="RETURN NEW;")
        observer.execute(
            "CREATE TRIGGER relet_unseen AFTER INSERT ON testapp_item "
            "FOR EACH ROW EXECUTE FUNCTION relet_unseen()"
        )
        wrapper = audited()
        wrapper.set_autocommit(False)
        run(wrapper, "INSERT INTO testapp_item (name) VALUES (%s)", [SECRET])
        wrapper.rollback()
        wrapper.set_autocommit(True)
        (row,) = session_state_audit().rows
        assert row.kind == "advisory lock"
        assert row.sql == "INSERT INTO testapp_item (name) VALUES (%s)"
        assert state(wrapper) == CLEAN

    def test_a_deferred_trigger_runs_at_the_commit(self, audited, define, observer):
        define("PERFORM pg_advisory_lock(4711);", returns="trigger", end="RETURN NEW;")
        observer.execute(
            "CREATE CONSTRAINT TRIGGER relet_unseen AFTER UPDATE ON testapp_item DEFERRABLE "
            "INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION relet_unseen()"
        )
        observer.execute("INSERT INTO testapp_item (name) VALUES ('a')")
        wrapper = audited()
        wrapper.set_autocommit(False)
        run(wrapper, "UPDATE testapp_item SET name = 'b'")
        assert rows() == []
        wrapper.commit()
        wrapper.set_autocommit(True)
        (row,) = session_state_audit().rows
        assert (row.kind, row.sql) == ("advisory lock", "UPDATE testapp_item SET name = ?")
        assert state(wrapper) == CLEAN
        observer.execute("DELETE FROM testapp_item")

    def test_several_kinds_of_one_statement(self, audited, define):
        define("".join(body for body, _ in BODIES.values()))
        wrapper = audited()
        run(wrapper)
        assert sorted(rows()) == sorted((kind, name, True) for kind, (_, name) in BODIES.items())
        assert state(wrapper) == CLEAN

    def test_a_baseline_that_is_taken_away(self, audited, define):
        from django.db.backends.signals import connection_created

        def receive(connection, **kwargs):
            run(connection, "SET lock_timeout = '9s'")

        define("EXECUTE 'RESET lock_timeout';")
        connection_created.connect(receive)
        try:
            wrapper = audited()
            run(wrapper)
        finally:
            connection_created.disconnect(receive)
        assert rows() == [("setting", "lock_timeout", True)]
        assert state(wrapper)[0] == "9000"

    def test_each_text_and_kind_once(self, audited, define):
        define("PERFORM pg_advisory_lock(n);", arguments="n int")
        wrapper = audited()
        for number in range(3):
            run(wrapper, f"SELECT relet_unseen({number})")
        assert rows() == [("advisory lock", "", True)]
        assert state(wrapper) == CLEAN

    def test_the_classifier_is_not_reported(self, audited):
        wrapper = audited()
        for sql in (
            "SET lock_timeout = '5s'",
            "SELECT pg_advisory_lock(4711)",
            "CREATE TEMP TABLE relet_t (a int)",
            "LISTEN relet_news",
            "PREPARE relet_p AS SELECT 1",
            "DECLARE relet_c CURSOR WITH HOLD FOR SELECT 1",
            "SET search_path = pg_temp",
            "CREATE TABLE relet_hidden (a int)",
            "CREATE TEMP SEQUENCE relet_s",
            "SELECT nextval('relet_s')",
        ):
            run(wrapper, sql)
        wrapper.close()
        run(wrapper, "SELECT 1; SET lock_timeout = '5s'")
        wrapper.close()
        wrapper.set_autocommit(False)
        run(wrapper, "LISTEN relet_news")
        run(wrapper, "SET LOCAL lock_timeout = '5s'")
        wrapper.commit()
        wrapper.close()
        assert rows() == []
        assert state(wrapper) == CLEAN

    def test_what_a_transaction_brings_back(self, audited, define):
        define("PERFORM set_config('lock_timeout', '7s', true);")
        wrapper = audited()
        run(wrapper, "SET lock_timeout = '5s'")
        wrapper.set_autocommit(False)
        run(wrapper, "SET LOCAL lock_timeout = '6s'")
        run(wrapper, "SELECT 1")
        run(wrapper)
        wrapper.commit()
        wrapper.set_autocommit(True)
        run(wrapper, "SELECT 2")
        wrapper.close()
        assert rows() == []
        assert state(wrapper) == CLEAN

    def test_state_of_both_kinds_in_one_lease(self, audited, define):
        define("PERFORM set_config('work_mem', '5MB', false);")
        wrapper = audited()
        run(wrapper, "SET lock_timeout = '5s'")
        run(wrapper)
        wrapper.close()
        assert rows() == [("setting", "work_mem", True)]
        assert state(wrapper) == CLEAN

    def test_hold_undoes_everything_so_nothing_is_reported(self, db, define):
        define(BODIES["setting"][0])
        with policies.override("default", session_state_audit="all"):
            with hold("default"):
                run(db)
            run(db, "SELECT 1")
        assert rows() == []
        assert state(db) == CLEAN

    @pytest.mark.parametrize("mode", STATE_MODES)
    def test_in_each_mode_of_session_state(self, audited, define, mode):
        define(BODIES["setting"][0])
        wrapper = audited(session_state=mode)
        run(wrapper)
        assert rows() == [("setting", "lock_timeout", True)]
        # "ignore" leaves state to the next user, as ever.
        assert (state(wrapper) == CLEAN) == (mode != "ignore")


class TestStatements:
    """What other than a plain statement may call functions."""

    def test_one_that_fails(self, audited, define):
        define("PERFORM pg_advisory_lock(4711); RAISE 'no';")
        wrapper = audited()
        with pytest.raises(DatabaseError):
            run(wrapper)
        assert rows() == [("advisory lock", "", True)]
        assert state(wrapper) == CLEAN

    def test_one_that_fails_in_a_transaction(self, audited, define):
        define("PERFORM pg_advisory_lock(4711); RAISE 'no';")
        wrapper = audited()
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1")
        with pytest.raises(DatabaseError):
            run(wrapper)
        with pytest.raises(DatabaseError):
            run(wrapper, "SELECT 2")
        wrapper.rollback()
        wrapper.set_autocommit(True)
        assert [row[0] for row in rows()] == ["advisory lock"]
        assert state(wrapper) == CLEAN

    def test_one_that_fails_below_a_savepoint(self, db, define):
        define("PERFORM pg_advisory_lock(4711); RAISE 'no';")
        with policies.override("default", session_state_audit="all"):
            with transaction.atomic():
                run(db, "SELECT 1")
                with pytest.raises(DatabaseError), transaction.atomic():
                    run(db)
                run(db, "SELECT 2")
            (row,) = session_state_audit().rows
        assert row.sql == "SELECT relet_unseen()"
        assert state(db) == CLEAN

    def test_executemany(self, audited, define):
        define("PERFORM pg_advisory_lock(n);", arguments="n int")
        wrapper = audited()
        with wrapper.cursor() as cursor:
            cursor.executemany("SELECT relet_unseen(%s)", [[1], [2]])
        (row,) = session_state_audit().rows
        assert (row.kind, row.sql) == ("advisory lock", "SELECT relet_unseen(%s)")
        assert state(wrapper) == CLEAN

    def test_callproc(self, audited, define):
        define("PERFORM pg_advisory_lock(n);", arguments="n int")
        wrapper = audited()
        with wrapper.cursor() as cursor:
            cursor.callproc("relet_unseen", [7])
        assert rows() == [("advisory lock", "", True)]
        assert state(wrapper) == CLEAN

    def test_several_in_one_text(self, audited, define):
        define(BODIES["setting"][0])
        wrapper = audited()
        run(wrapper, "SELECT 1; SELECT relet_unseen()")
        assert rows() == [("setting", "lock_timeout", True)]
        run(wrapper, "BEGIN; SELECT relet_unseen()")
        run(wrapper, "COMMIT")
        assert len(rows()) == 2
        assert state(wrapper) == CLEAN

    def test_a_server_side_cursor(self, audited, define):
        define(BODIES["setting"][0])
        wrapper = audited()
        cursor = wrapper.chunked_cursor()
        cursor.execute("SELECT relet_unseen() FROM generate_series(1, 5)")
        assert len(cursor.fetchmany(2)) == 2
        cursor.close()
        wrapper.close()
        (row,) = session_state_audit().rows
        assert row.sql == "SELECT relet_unseen() FROM generate_series(?, ...)"
        assert state(wrapper) == CLEAN

    def test_a_server_side_cursor_in_a_transaction(self, db, define):
        define(BODIES["setting"][0])
        with policies.override("default", session_state_audit="all"):
            with transaction.atomic():
                with db.chunked_cursor() as cursor:
                    cursor.execute("SELECT relet_unseen() FROM generate_series(1, 5)")
                    assert cursor.fetchmany(2) == [(1,), (1,)]
                    run(db, "SELECT 1")
                    assert cursor.fetchmany(9) == [(1,), (1,), (1,)]
                run(db, "SELECT 2")
            assert rows() == [("setting", "lock_timeout", True)]
        assert state(db) == CLEAN

    def test_statements_while_a_cursor_is_open(self, db, define):
        define(BODIES["setting"][0])
        with policies.override("default", session_state_audit="all"):
            with transaction.atomic(), db.chunked_cursor() as cursor:
                cursor.execute("SELECT relet_unseen() FROM generate_series(1, 5)")
                for _ in cursor:
                    run(db, "SELECT 1")
            (row,) = session_state_audit().rows
        assert row.sql == "one of SELECT relet_unseen() FROM generate_series(?, ...); SELECT ?"
        assert state(db) == CLEAN

    @streams
    def test_a_stream(self, audited, define):
        define(BODIES["setting"][0])
        wrapper = audited()
        with wrapper.cursor() as cursor:
            sql = "SELECT relet_unseen() FROM generate_series(1, 3)"
            assert len(list(cursor.stream(sql))) == 3
        (row,) = session_state_audit().rows
        assert row.sql == "SELECT relet_unseen() FROM generate_series(?, ...)"
        assert state(wrapper) == CLEAN

    @copies
    @pytest.mark.parametrize("inside", [False, True])
    def test_a_copy(self, audited, define, inside):
        define(BODIES["setting"][0])
        wrapper = audited()
        wrapper.set_autocommit(not inside)
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
            with cursor.copy("COPY (SELECT relet_unseen()) TO STDOUT") as copy:
                assert b"".join(copy) == b"1\n"
            cursor.execute("SELECT 2")
        if inside:
            wrapper.commit()
            wrapper.set_autocommit(True)
        (row,) = session_state_audit().rows
        assert row.sql == "COPY (SELECT relet_unseen()) TO STDOUT"
        assert state(wrapper) == CLEAN

    @copies_at_once
    def test_a_copy_in_one_call(self, audited, define):
        define(BODIES["setting"][0])
        wrapper = audited()
        with wrapper.cursor() as cursor:
            cursor.copy_expert("COPY (SELECT relet_unseen()) TO STDOUT", io.StringIO())
        assert rows() == [("setting", "lock_timeout", True)]
        assert state(wrapper) == CLEAN

    def test_the_drivers_connection_is_undone_in_any_case(self, audited, define):
        define(BODIES["setting"][0])
        wrapper = audited()
        with wrapper.cursor() as cursor:
            driver.execute(cursor.connection, "SELECT relet_unseen()")
        assert rows() == []
        assert state(wrapper) == CLEAN


class TestFirst:
    def test_each_text_once(self, audited, define, observer):
        define("PERFORM 1;")
        wrapper = audited("first")
        run(wrapper)
        define(BODIES["setting"][0])
        run(wrapper)
        assert rows() == []
        run(wrapper, "SELECT relet_unseen() + 1")
        assert rows() == []  # it was there before
        wrapper = audited("first")
        run(wrapper, "SELECT relet_unseen() + 2")
        assert rows() == []

    def test_what_has_left_something_is_audited_again(self, audited, define):
        define(BODIES["setting"][0])
        wrapper = audited("first")
        for _ in range(2):
            run(wrapper)
            assert state(wrapper) == CLEAN
        assert rows() == [("setting", "lock_timeout", True)]

    @kinds
    def test_in_a_transaction(self, audited, define, kind):
        body, name = BODIES[kind]
        define(body)
        wrapper = audited("first")
        for _ in range(2):
            wrapper.set_autocommit(False)
            run(wrapper, "SELECT 1")
            run(wrapper, "SELECT 2")
            wrapper.commit()
        run(wrapper, "SELECT 1")
        run(wrapper)
        wrapper.commit()
        wrapper.set_autocommit(True)
        (row,) = session_state_audit().rows
        assert (row.kind, row.name, row.sql) == (kind, name, "SELECT relet_unseen()")
        assert state(wrapper) == CLEAN

    @needs("psycopg", "trace of what it sends")
    def test_it_asks_once(self, audited, monkeypatch):
        wrapper, asked = audited("first"), []
        pool = type(wrapper._runner.find_pool().pool)
        execute = pool.execute_internal
        run(wrapper, "SELECT 1")
        monkeypatch.setattr(
            pool, "execute_internal", lambda *args: asked.append(args[2]) or execute(*args)
        )
        run(wrapper, "SELECT 1")
        assert asked == []
        run(wrapper, "SELECT 2")
        assert len(asked) == 2


@contextmanager
def in_testcase():
    """Enter what `TestCase` enters around a test."""
    atomic = transaction.atomic(using="default")
    atomic._from_testcase = True
    with policies.override("default", session_state_audit="all"), pytest.raises(Exit), atomic:
        yield connection
        raise Exit
    assert at_rest(connection)
    assert state(connection) == CLEAN


class TestInTests:
    """Inside of Django's `TestCase` all is in a transaction that is rolled back."""

    @pytest.fixture
    def testcase(self, db):
        with in_testcase() as wrapper:
            yield wrapper

    @kinds
    def test_what_would_be_left(self, testcase, define, kind):
        body, name = BODIES[kind]
        define(body)
        run(testcase)
        expected = [(kind, name, kind == "prepared statement")]
        if kind in ("channel", "advisory lock"):
            expected = []  # the server shows the one nowhere, the other is told later
        assert rows() == expected

    def test_what_lasts_is_told_when_the_test_has_ended(self, db, define):
        define(BODIES["advisory lock"][0])
        atomic = transaction.atomic(using="default")
        atomic._from_testcase = True
        with policies.override("default", session_state_audit="all"):
            with pytest.raises(Exit), atomic:
                run(db)
                raise Exit
            assert rows() == [("advisory lock", "", True)]
        assert state(db) == CLEAN

    def test_when_the_projects_transaction_ends(self, testcase, define):
        define(BODIES["setting"][0])
        with transaction.atomic():
            run(testcase)
            run(testcase, "SELECT 1")
            assert rows() == []
        assert rows() == [("setting", "lock_timeout", False)]

    def test_what_the_projects_transaction_undoes(self, testcase, define):
        define(BODIES["setting"][0])
        with pytest.raises(Exit), transaction.atomic():
            run(testcase)
            raise Exit
        run(testcase, "SELECT 1")
        assert rows() == []

    @pytest.mark.parametrize("mode", ["first", "all"])
    @pytest.mark.parametrize("sql", LOCAL_TEXTS)
    def test_what_is_local_is_judged_by_its_text(self, testcase, define, sql, mode):
        define(BODIES["setting"][0])
        with policies.override("default", session_state_audit=mode):
            for number in range(2):
                with transaction.atomic():
                    run(testcase, "SELECT 0")
                    run(testcase, sql)
                    run(testcase, f"SELECT {number}, 'after'")
                with pytest.raises(Exit), transaction.atomic():
                    run(testcase, sql)
                    run(testcase, f"SELECT {number} + 1")
                    raise Exit
                run(testcase, f"SELECT {number} + 2")
            assert rows() == []
            run(testcase)
        assert [(row.name, row.sql) for row in session_state_audit().rows] == [
            ("lock_timeout", "SELECT relet_unseen()")
        ]

    @transfers
    def test_what_is_local_in_a_transfer(self, testcase):
        with transaction.atomic(), testcase.cursor() as cursor:
            query = "SELECT set_config('work_mem', '5MB', true)"
            with cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
                assert b"".join(copy) == b"5MB\n"
            list(cursor.stream(query.replace("5MB", "6MB")))
        run(testcase, "SELECT 1")
        assert rows() == []

    def test_what_is_local_in_a_server_side_cursor(self, testcase):
        with transaction.atomic(), testcase.chunked_cursor() as cursor:
            cursor.execute(
                "SELECT set_config('work_mem', n || 'MB', true) FROM generate_series(5, 8) n"
            )
            assert cursor.fetchmany(2) == [("5MB",), ("6MB",)]
            run(testcase, "SELECT 1")
        run(testcase, "SELECT 2")
        assert rows() == []

    @pytest.mark.parametrize("setter", ["SET LOCAL", "SET"])
    def test_what_a_savepoint_brings_back(self, testcase, setter):
        with transaction.atomic():
            run(testcase, f"{setter} work_mem = '5MB'")
            run(testcase, "SELECT 1")
            for number in range(2):
                with pytest.raises(ZeroDivisionError), transaction.atomic():
                    run(testcase, f"{setter} work_mem = '6MB'")
                    run(testcase, "SELECT 2")
                    if number:
                        with pytest.raises(DatabaseError):
                            run(testcase, "SELECT 1 / 0")
                    raise ZeroDivisionError
                run(testcase, "SELECT 3")
            run(testcase, "SAVEPOINT a")
            run(testcase, "SET LOCAL work_mem = '7MB'; SELECT 4")
            run(testcase, "ROLLBACK TO a; SELECT 5")
            run(testcase, "RELEASE a; SELECT 6")
        assert rows() == []

    @pytest.mark.parametrize("table", ["relet_unseen_item", "relet_unseen_attempt"])
    @pytest.mark.parametrize(
        "sql", ["INSERT INTO {} VALUES (2)", "UPDATE {} SET a = 2", "DELETE FROM {}"]
    )
    def test_what_a_trigger_leaves(self, db, define, observer, table, sql):
        define(BODIES["setting"][0], returns="trigger", end="RETURN NULL;")
        observer.execute(f"CREATE TABLE {table} (a int)")
        try:
            observer.execute(f"INSERT INTO {table} VALUES (1)")
            observer.execute(
                f"CREATE TRIGGER relet_unseen AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION relet_unseen()"
            )
            with in_testcase() as wrapper:
                run(wrapper, sql.format(table))
        finally:
            observer.execute(f"DROP TABLE {table}")
        assert rows() == [("setting", "lock_timeout", False)]

    def test_a_block_begins_in_the_lease_that_there_is(self, db, define):
        define(BODIES["setting"][0] + BODIES["advisory lock"][0])
        atomic = transaction.atomic(using="default")
        atomic._from_testcase = True
        with pytest.raises(Exit), atomic:
            run(db, "SELECT 1")
            with audit_session_state() as audit:
                run(db)
                assert [(row.kind, row.sure) for row in audit.rows] == [
                    ("setting", False),
                    ("advisory lock", False),
                ]
                audit.clear()
                assert audit.rows == ()
                run(db, "SELECT 2")
            assert policies.audit_mode is None
            raise Exit
        # What was in doubt is known now.
        assert rows() == [("setting", "lock_timeout", False), ("advisory lock", "", True)]
        run(db, "SELECT 1")
        assert db._runner.lease.table is TABLES["statement"]
        assert state(db) == CLEAN

    def test_blocks_see_what_was_reported_before(self, db, define):
        define(BODIES["setting"][0])
        for _ in range(2):
            with audit_session_state() as audit:
                run(db)
            (row,) = audit.rows
            assert (row.kind, row.sure, row.sql) == ("setting", True, "SELECT relet_unseen()")
        assert len(rows()) == 1


class Exit(Exception):
    pass


class TestUndisturbed:
    """The audit's own queries change nothing that the project can see."""

    def test_results_and_queries(self, audited):
        wrapper = audited()
        with CaptureQueriesContext(wrapper) as captured, wrapper.cursor() as cursor:
            cursor.execute("SELECT n FROM generate_series(1, 5) n")
            assert cursor.fetchone() == (1,)
            assert cursor.rowcount == 5
            wrapper.set_autocommit(False)
            cursor.execute("SELECT n FROM generate_series(1, 3) n")
            assert [column[0] for column in cursor.description] == ["n"]
            assert cursor.fetchall() == [(1,), (2,), (3,)]
            wrapper.rollback()
            wrapper.set_autocommit(True)
        assert len([query for query in captured if "SELECT" in query["sql"]]) == 2
        assert not [query for query in captured if "SAVEPOINT" in query["sql"]]

    @pytest.mark.parametrize("first", [None, "SELECT 1"])
    def test_the_isolation_level_can_be_set_and_the_snapshot_is_the_projects(
        self, audited, observer, first
    ):
        wrapper = audited()
        if first:
            run(wrapper, first)
        wrapper.set_autocommit(False)
        run(wrapper, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        run(wrapper, "SET TRANSACTION READ ONLY")
        run(wrapper, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        run(wrapper, "LOCK TABLE testapp_item IN ACCESS SHARE MODE")
        observer.execute("INSERT INTO testapp_item (name) VALUES ('new')")
        assert run(wrapper, "SELECT name FROM testapp_item") == [("new",)]
        observer.execute("DELETE FROM testapp_item")
        assert run(wrapper, "SELECT name FROM testapp_item") == [("new",)]
        assert run(wrapper, "SHOW transaction_isolation") == [("serializable",)]
        wrapper.commit()
        wrapper.set_autocommit(True)
        assert rows() == []

    def test_the_isolation_level_can_be_set_after_a_setting(self, audited):
        wrapper = audited()
        for setter in "SET LOCAL", "SET":
            wrapper.set_autocommit(False)
            run(wrapper, f"{setter} lock_timeout = '5s'")
            run(wrapper, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            assert run(wrapper, "SHOW transaction_isolation") == [("serializable",)]
            run(wrapper, "SELECT 1")
            wrapper.commit()
            wrapper.set_autocommit(True)
            wrapper.close()
        assert rows() == []
        assert state(wrapper) == CLEAN

    def test_a_query_of_the_audit_that_fails(self, audited, define, caplog):
        define("PERFORM pg_sleep(0.2);")
        wrapper = audited()
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1")
        # The next query of the audit fails, as by a cancel that was meant for a statement.
        query = auditing.Snapshot.query
        auditing.Snapshot.query = staticmethod(lambda *arguments: "SELECT 1 / 0")
        try:
            run(wrapper, "SELECT 2")
        finally:
            auditing.Snapshot.query = query
        assert run(wrapper, "SELECT 3") == [(3,)]
        wrapper.commit()
        wrapper.set_autocommit(True)
        assert at_rest(wrapper)
        assert rows() == []

    @needs("psycopg", "prepared statements of its own")
    def test_the_drivers_prepared_statements(self, audited):
        wrapper = audited()
        for _ in range(10):
            run(wrapper, "SELECT 1")
        sql = "SELECT statement FROM pg_prepared_statements"
        found = [statement for (statement,) in run(wrapper, sql)]
        assert not [statement for statement in found if "pg_settings" in statement]

    def test_notices(self, db, define):
        define("RAISE NOTICE 'heard';")

        def heard():
            found = []
            with transaction.atomic(), db.cursor() as cursor:
                cursor.execute("SELECT 1")
                raw = db._runner.lease.connection.raw
                if driver.NAME == "psycopg":
                    raw.add_notice_handler(found.append)
                cursor.execute("SELECT relet_unseen()")
                if driver.NAME == "psycopg":
                    raw.remove_notice_handler(found.append)
                else:
                    found = list(raw.notices)
            return len(found)

        assert heard() == 1
        with policies.override("default", session_state_audit="all"):
            assert heard() == 1

    def test_a_log_handler_that_writes_to_the_database(self, audited, define):
        define(BODIES["setting"][0])
        wrapper, seen = audited(), []

        class Handler(logging.Handler):
            def emit(self, record):
                seen.append(run(wrapper, "SELECT 41 + 1"))

        logger, handler = logging.getLogger("relet"), Handler()
        logger.addHandler(handler)
        try:
            assert run(wrapper) == [(1,)]
        finally:
            logger.removeHandler(handler)
        assert seen == [[(42,)]]
        assert at_rest(wrapper)


class TestSecrets:
    def test_no_value_is_in_any_report(
        self, audited, define, caplog, capsys, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("RELET_SESSION_STATE_AUDIT_REPORT", str(tmp_path))
        body = (
            "PERFORM set_config('relet_app.tenant', secret, false); "
            "PERFORM set_config('application_name', secret, false); "
            "PERFORM pg_advisory_lock(hashtext(secret)); "
            "EXECUTE format('LISTEN %I', secret); "
            "EXECUTE format('CREATE TEMP TABLE %I (a int)', secret); "
            "EXECUTE format('PREPARE %I AS SELECT 1', secret);"
        )
        define(body, arguments="secret text")
        wrapper = audited()
        with caplog.at_level(logging.DEBUG, "relet"):
            run(wrapper, "SELECT relet_unseen(%s)", [SECRET])
            run(wrapper, f"SELECT 1, relet_unseen('{SECRET}') -- {SECRET}")
        assert len(rows()) == 10
        report = session_state_audit()
        for text in (
            *(str(report), report.as_table(), json.dumps(report.as_dict()), repr(report)),
            *(caplog.text, *capsys.readouterr()),
            *(path.read_text() for path in tmp_path.iterdir()),
        ):
            assert SECRET not in text
        assert "relet_app.tenant" in caplog.text
        assert "relet_app.tenant" in str(report)
        assert __file__ in str(report)
        assert state(wrapper) == CLEAN


class TestSwitch:
    def test_it_is_off_by_default(self, db):
        assert ReleasePolicy().session_state_audit is None
        run(db, "SELECT 1")
        assert session_state_audit().audited == {}
        assert db._runner.lease.table is TABLES["statement"]

    @pytest.mark.parametrize("value", ["yes", True, 1, [], "First"])
    def test_a_wrong_value(self, value, make):
        with pytest.raises(ConfigurationError, match=r"session_state_audit.*'first', 'all'"):
            ReleasePolicy(session_state_audit=value)
        wrapper = make(policy={"session_state_audit": value})
        with pytest.raises(ImproperlyConfigured, match="session_state_audit"):
            run(wrapper, "SELECT 1")

    @pytest.mark.parametrize("mode", ["every", True, 1, [], "First"])
    def test_a_wrong_mode(self, mode):
        says = r"'first', 'all', None, False"
        with pytest.raises(ConfigurationError, match=rf"audit_session_state\(.*{says}"):
            audit_session_state(mode).__enter__()
        with pytest.raises(ConfigurationError, match=rf"policies.audit\(.*{says}"):
            policies.audit(mode)
        assert policies.audit_mode is None
        for off in None, False:
            with audit_session_state(off):
                assert policies.audit_mode is None

    def test_for_a_block(self, db, define):
        define(BODIES["setting"][0])
        with policies.override("default", session_state_audit="all"):
            run(db)
            assert state(db) == CLEAN
        run(db)
        assert state(db) != CLEAN
        assert len(rows()) == 1
        assert db._runner.lease.table is TABLES["statement"]
        db.close()
        db._runner.find_pool().pool.close()

    def test_for_a_block_of_a_task(self, db, define):
        define(BODIES["setting"][0])

        def leak():
            run(connection)
            connection.close()

        async def task():
            async with policies.override("default", session_state_audit="all"):
                await sync_to_async(leak)()

        async_to_sync(task)()
        assert rows() == [("setting", "lock_timeout", True)]
        assert state(db) == CLEAN

    def test_other_threads(self, db, define):
        define(BODIES["setting"][0])
        with audit_session_state() as audit:
            thread = Thread()
            thread(lambda: (run(connection), connection.close()))
            thread.end()
        assert [row.kind for row in audit.rows] == ["setting"]
        assert state(db) == CLEAN

    def test_a_wrapper_that_threads_share(self, db, define):
        define(BODIES["setting"][0])
        db.inc_thread_sharing()
        try:
            with audit_session_state() as audit:
                thread = Thread()
                thread(lambda: run(db))
                thread.end()
        finally:
            db.dec_thread_sharing()
        assert [row.kind for row in audit.rows] == ["setting"]
        assert state(db) == CLEAN

    def test_settings_that_a_backend_keeps(self, db, define):
        """As django-tenants does: they stay in the session, and relet knows them."""

        class Tenants(driver.Django):
            tenant = "public"

            def _cursor(self, name=None):
                cursor = super()._cursor(name)
                cursor.execute(f"SET search_path = {self.tenant}, public")
                return cursor

        define(BODIES["setting"][0])
        with Aliases() as aliases:
            wrapper = aliases.make("tenants", db.settings_dict, build(engine.NAME, base=Tenants))
            with audited_everywhere():
                for tenant in "public", "pg_catalog":
                    wrapper.tenant = tenant
                    run(wrapper, "SELECT 1")
                    wrapper.set_autocommit(False)
                    run(wrapper, "SELECT 2")
                    wrapper.commit()
                    wrapper.close()
                assert rows() == []
                wrapper.tenant = "public"
                run(wrapper)
                wrapper.close()
            assert rows() == [("setting", "lock_timeout", True)]

    def test_a_lease_that_outlives_its_block_is_audited_to_its_end(self, db, define):
        define(BODIES["setting"][0])
        with transaction.atomic():
            with policies.override("default", session_state_audit="all"):
                run(db)
            run(db, "SELECT 1")
        assert rows() == [("setting", "lock_timeout", True)]
        assert db._runner.lease.table is TABLES["statement"]
        assert state(db) == CLEAN

    def test_for_a_lease_that_begins_only(self, db, define):
        define(BODIES["setting"][0])
        with transaction.atomic():
            run(db, "SELECT 1")
            with policies.override("default", session_state_audit="all"):
                run(db, "SELECT 2")
        assert session_state_audit().audited == {}

    def test_by_assignment(self, db, define):
        define(BODIES["setting"][0])
        run(db, "SELECT 1")
        policies["default"] = ReleasePolicy(session_state_audit="first")
        try:
            run(db)
        finally:
            del policies["default"]
        assert rows() == [("setting", "lock_timeout", True)]
        assert session_state_audit().audited == {"default": connection.settings_dict["ENGINE"]}

    def test_by_the_environment(self, make, define, monkeypatch):
        define(BODIES["setting"][0])
        monkeypatch.setenv("RELET_SESSION_STATE_AUDIT", "all")
        wrapper = make()
        run(wrapper)
        assert rows() == [("setting", "lock_timeout", True)]
        assert state(wrapper) == CLEAN

    def test_by_an_environment_that_is_wrong(self, make, monkeypatch):
        monkeypatch.setenv("RELET_SESSION_STATE_AUDIT", "yes")
        with pytest.raises(ImproperlyConfigured, match="RELET_SESSION_STATE_AUDIT is 'yes'"):
            run(make(), "SELECT 1")
        (error,) = [one for one in checks.run_checks(tags=["relet"]) if one.id == "relet.E009"]
        assert "'first' or 'all'" in error.msg

    def test_i5_connections_are_counted(self, audited, define):
        define(BODIES["setting"][0])
        wrapper = audited()
        for _ in range(3):
            run(wrapper)
            assert stats(wrapper).in_use == 0
