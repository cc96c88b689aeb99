"""I3: session state keeps the lease, and is undone before others get the connection."""

import io
import logging
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management.color import no_style
from django.db import DatabaseError, NotSupportedError, OperationalError, connection, transaction
from django.db.backends.signals import connection_created
from testapp.models import Item

from relet import hold
from relet.backends import SessionStateError, SessionStateWarning
from relet.backends.leases import session_rules as session_state
from relet.backends.reports.dump import dump
from relet.core import Kind, State
from relet.core.session.baseline import Baseline
from relet.core.sql.fingerprint import fingerprint as fingerprint_of

from ..support import driver
from ..support.driver import execute, needs
from ..support.driver import sql as composed
from ..support.fingerprint import fingerprint
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill

MADE = {
    "SET": "SET statement_timeout = '55s'",
    "SET SESSION": "set session application_name to 'someone'",
    "SET TIME ZONE": "SET TIME ZONE 'Asia/Tokyo'",
    "set_config": "SELECT set_config('lock_timeout', '1h', false)",
    "CTE": "WITH x AS (SELECT set_config('lock_timeout', '1h', false)) SELECT * FROM x",
    "RESET": "RESET TimeZone",
    "CHARACTERISTICS": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "ROLE": "SET ROLE relet_other",
    "SESSION AUTHORIZATION": "SET SESSION AUTHORIZATION relet_other",
    "TEMP TABLE": "CREATE TEMP TABLE relet_t (a int)",
    "TEMP VIEW": "CREATE OR REPLACE TEMPORARY VIEW relet_t AS SELECT 1",
    "TEMP SEQUENCE": "CREATE TEMP SEQUENCE relet_t",
    "SELECT INTO": "SELECT 1 AS a INTO TEMP relet_t",
    "pg_temp": "CREATE TABLE pg_temp.relet_t (a int)",
    "LISTEN": "LISTEN relet_news",
    "lock": "SELECT pg_advisory_lock(4711)",
    "try lock": "SELECT pg_try_advisory_lock_shared(4711, 1)",
    "PREPARE": "PREPARE relet_p AS SELECT 1",
    "HOLD": "DECLARE relet_c CURSOR WITH HOLD FOR SELECT 1",
    "DO": "DO $$ BEGIN PERFORM set_config('lock_timeout', '1h', false); END $$",
    "several": "SELECT 1; SET lock_timeout = '7s'; SELECT 2",
}
made = pytest.mark.parametrize("statement", MADE.values(), ids=MADE)

NOT_MADE = {
    "SET LOCAL": "SET LOCAL statement_timeout = '55s'",
    "set_config": "SELECT set_config('app.tenant', '1', true)",
    "xact lock": "SELECT pg_advisory_xact_lock(4711)",
    "ON COMMIT DROP": "CREATE TEMP TABLE relet_t (a int) ON COMMIT DROP",
    "CONSTRAINTS": "SET CONSTRAINTS ALL DEFERRED",
    "TRANSACTION": "SET TRANSACTION READ ONLY",
    "cursor": "DECLARE relet_c CURSOR FOR SELECT 1",
    "NOTIFY": "NOTIFY relet_news",
}
not_made = pytest.mark.parametrize("statement", NOT_MADE.values(), ids=NOT_MADE)


CREATE_TABLE = ("CREATE TABLE relet_t (a int)", None)

#: Settings that the server does not list.
CUSTOM = ("app.tenant", "app.reader", "app.path")


@pytest.fixture(autouse=True)
def role(observer):
    observer.execute("DROP ROLE IF EXISTS relet_other")
    observer.execute("CREATE ROLE relet_other")
    yield
    observer.execute("DROP ROLE relet_other")


@pytest.fixture(autouse=True)
def nothing_logged(monkeypatch):
    monkeypatch.setattr(session_state, "_logged", set())


def run(wrapper, sql, params=None):
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


@contextmanager
def leased(wrapper):
    """The driver's connection of the pool's only one, whoever had it."""
    pool = wrapper._runner.find_pool().pool
    pool.open()
    connection = pool.checkout()
    try:
        yield connection.raw
    finally:
        pool.checkin(connection)


def in_session(wrapper):
    with leased(wrapper) as raw:
        return raw.info.backend_pid, fingerprint(raw, CUSTOM)


traces = needs("psycopg", "trace of what it sends")
row_factories = needs("psycopg", "row factories")
copies = needs("psycopg", "cursor.copy()")
streams = needs("psycopg", "cursor.stream()")
copies_at_once = needs("psycopg2", "COPY in one call")


@contextmanager
def round_trips(raw):
    """Collects the queries that the driver sends."""
    sent = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace")
        with path.open("w") as file:
            raw.pgconn.trace(file.fileno())
            yield sent
            raw.pgconn.untrace()
        sent += [
            line
            for line in path.read_text().splitlines()
            if "\tF\t" in line and ("Query" in line or "Parse" in line)
        ]


@contextmanager
def receiver(function):
    def receive(connection, **kwargs):
        function(connection)

    connection_created.connect(receive)
    try:
        yield
    finally:
        connection_created.disconnect(receive)


class TestPin:
    @made
    def test_it_keeps_the_lease_until_close_and_is_undone(self, db, statement):
        backend_pid(db)
        before = in_session(db)
        run(db, statement)
        assert stats(db).in_use == 1
        assert fingerprint(db.connection) != before[1]
        assert db._runner.lease.state is State.HELD
        pid = db.connection.info.backend_pid
        assert backend_pid(db) == pid
        db.close()
        assert at_rest(db)
        # The same connection, as it was.
        assert in_session(db) == before

    @made
    def test_close_old_connections_ends_it(self, db, statement):
        before = in_session(db)
        run(db, statement)
        db.close_if_unusable_or_obsolete()
        assert at_rest(db)
        assert in_session(db) == before

    @made
    def test_inside_a_transaction_it_counts_with_the_commit(self, db, statement):
        before = in_session(db)
        with transaction.atomic():
            run(db, statement)
        assert stats(db).in_use == 1
        db.close()
        assert in_session(db) == before

    @made
    def test_a_rollback_undoes_it_or_relet_does(self, db, statement):
        before = in_session(db)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            run(db, statement)
            raise ZeroDivisionError
        kept = stats(db).in_use
        assert kept == (db._runner.lease.session is not None)
        assert bool(kept) == any(
            word in statement for word in ("pg_advisory", "pg_try_advisory", "PREPARE")
        )
        db.close()
        assert in_session(db) == before

    @made
    def test_rolled_back_to_a_savepoint(self, db, statement):
        with transaction.atomic():
            run(db, "SELECT 1")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                run(db, statement)
                raise ZeroDivisionError
        pins = any(word in statement for word in ("pg_advisory", "pg_try_advisory", "PREPARE"))
        assert bool(stats(db).in_use) == pins

    @made
    def test_by_a_raw_transaction(self, db, statement):
        before = in_session(db)
        for end in "ROLLBACK", "COMMIT":
            run(db, "BEGIN")
            run(db, statement)
            run(db, end)
            if end == "COMMIT":
                assert stats(db).in_use == 1
            db.close()
            assert in_session(db) == before

    @made
    def test_with_autocommit_off(self, make, statement):
        wrapper = make(AUTOCOMMIT=False)
        run(wrapper, "SELECT 1")
        wrapper.rollback()
        before = in_session(wrapper)
        run(wrapper, statement)
        wrapper.commit()
        assert stats(wrapper).in_use == 1
        wrapper.close()
        assert in_session(wrapper) == before

    def test_commit_of_what_has_failed_is_a_rollback(self, make):
        wrapper = make(AUTOCOMMIT=False)
        run(wrapper, "SET lock_timeout = 5")
        with pytest.raises(DatabaseError):
            run(wrapper, "SELECT 1/0")
        wrapper.commit()
        assert stats(wrapper).in_use == 0

    @not_made
    def test_what_ends_with_its_transaction_is_none(self, db, statement):
        before = in_session(db)
        with transaction.atomic():
            run(db, statement)
            assert db._runner.lease.session is None
        assert at_rest(db)
        assert in_session(db) == before

    @traces
    def test_restoring_is_one_round_trip(self, db):
        for statement in MADE.values():
            with leased(db) as raw, round_trips(raw) as sent:
                pass
            assert sent == []
            run(db, statement)
            with round_trips(db._runner.lease.connection.raw) as sent:
                db.close()
            assert len(sent) == 1, statement

    @traces
    def test_a_lease_without_state_costs_none(self, db):
        with leased(db) as raw:
            pass
        with round_trips(raw) as sent:
            run(db, "SELECT 1")
            with transaction.atomic():
                run(db, "SET LOCAL lock_timeout = 5")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                run(db, "SET lock_timeout = 5")
                raise ZeroDivisionError
            db.close()
        # SELECT; BEGIN, SET LOCAL, COMMIT; BEGIN, SET, ROLLBACK.
        assert len(sent) == 7

    def test_a_session_that_its_owner_cleans_goes_back(self, db):
        before = in_session(db)
        for make, undo in {
            "SET lock_timeout = 5": "RESET lock_timeout",
            "SELECT pg_advisory_lock(7)": "SELECT pg_advisory_unlock(7)",
            "CREATE TEMP TABLE relet_t (a int)": "DROP TABLE relet_t",
            "LISTEN relet_news": "UNLISTEN relet_news",
            "PREPARE relet_p AS SELECT 1": "DEALLOCATE relet_p",
            "DECLARE relet_c CURSOR WITH HOLD FOR SELECT 1": "CLOSE relet_c",
            "SET ROLE relet_other": "RESET ROLE",
            "CREATE TEMP SEQUENCE relet_t": "DROP SEQUENCE relet_t",
        }.items():
            run(db, make)
            assert stats(db).in_use == 1
            run(db, undo)
            assert at_rest(db)
            assert in_session(db) == before

    def test_locks_are_counted(self, db, observer):
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 11"
        for _ in range(2):
            run(db, "SELECT pg_advisory_lock(%s)", [11])
        run(db, "SELECT pg_advisory_unlock(11)")
        assert stats(db).in_use == 1
        assert observer.execute(held).fetchone() == (1,)
        run(db, "SELECT pg_advisory_unlock(%s)", [11])
        assert at_rest(db)
        assert observer.execute(held).fetchone() == (0,)

    def test_a_lock_that_was_not_got_is_none(self, db, observer):
        observer.execute("SELECT pg_advisory_lock(12)")
        assert run(db, "SELECT pg_try_advisory_lock(%s)", [12]) == [(False,)]
        assert at_rest(db)
        observer.execute("SELECT pg_advisory_unlock(12)")
        assert run(db, "SELECT pg_try_advisory_lock(%s)", [12]) == [(True,)]
        assert stats(db).in_use == 1

    def test_a_lock_that_somebody_else_would_have_to_unlock(self, db):
        run(db, "SELECT pg_advisory_lock(13)")
        # False, and a warning of the server's.
        assert run(db, "SELECT pg_advisory_unlock(14)") == [(False,)]
        assert stats(db).in_use == 1

    def test_a_parameter_can_make_it_local(self, db):
        run(db, "SELECT set_config('app.tenant', %s, %s)", ["1", True])
        assert at_rest(db)
        run(db, "SELECT set_config('app.tenant', %s, %s)", ["1", False])
        assert stats(db).in_use == 1

    def test_a_library_ends_the_connection(self, db):
        before, _ = in_session(db)
        run(db, "LOAD 'auto_explain'")
        assert stats(db).in_use == 1
        db.close()
        assert in_session(db)[0] != before

    def test_state_of_another_kind_goes_with_it(self, db):
        before = in_session(db)
        run(db, "SET search_path = pg_temp")
        run(db, "CREATE TABLE relet_hidden (a int)")
        db.close()
        assert in_session(db) == before

    @pytest.mark.parametrize("release", ["cursor", "request"])
    @made
    def test_in_other_release_modes(self, make, release, statement):
        wrapper = make(policy={"release": release})
        backend_pid(wrapper)
        wrapper.close()
        before = in_session(wrapper)
        run(wrapper, statement)
        assert stats(wrapper).in_use == 1
        wrapper.close()
        assert in_session(wrapper) == before

    def test_without_a_pool(self, make):
        wrapper = make(pool=False)
        run(wrapper, "SET lock_timeout = 5")
        run(wrapper, "LISTEN relet_news")
        raw = wrapper.connection
        wrapper.close()
        assert raw.closed

    def test_a_tight_statement_timeout(self, db):
        """A restore that fails discards the connection, and whoever comes next has another."""
        before = in_session(db)[1]
        run(db, "SET statement_timeout = 1")
        db.close()
        assert in_session(db)[1] == before

    def test_a_client_encoding_that_has_not_every_character(self, db):
        with receiver(lambda c: run(c, "SET app.path = 'Ελλάδα'")):
            db.close_pool()
            pid = backend_pid(db)
            run(db, "SET client_encoding = LATIN1")
            db.close()
            assert at_rest(db)
            assert backend_pid(db) != pid
            assert run(db, "SHOW client_encoding") == [("UTF8",)]
            assert run(db, "SHOW app.path") == [("Ελλάδα",)]
        db.close_pool()

    def test_restored_with_backslashes_taken_literally_or_not(self, db):
        with receiver(lambda c: run(c, r"SET app.path = 'C:\temp'")):
            db.close_pool()
            backend_pid(db)
        before = in_session(db)
        run(db, "SET standard_conforming_strings = off")
        db.close()
        assert in_session(db) == before
        db.close_pool()


class TestLost:
    def test_a_session_that_is_lost_is_not_replaced_unawares(self, db, observer):
        run(db, "SET app.tenant = '1'")
        pid = backend_pid(db)
        kill(observer, pid)
        for _ in range(2):
            with pytest.raises(driver.CONNECTION_LOST):
                run(db, "SELECT current_setting('app.tenant')")
        assert stats(db).in_use == 1
        db.close()
        assert at_rest(db)
        assert backend_pid(db) != pid

    def test_one_in_a_pool_that_is_closed(self, db):
        run(db, "SET app.tenant = '1'")
        db.close_pool()
        assert run(db, "SELECT current_setting('app.tenant')") == [("1",)]
        db.close()
        assert run(db, "SELECT current_setting('app.tenant', true)") == [(None,)]

    def test_a_restore_that_fails_discards(self, db, observer):
        observer.execute("DROP ROLE IF EXISTS relet_gone")
        observer.execute("CREATE ROLE relet_gone")
        with receiver(lambda c: run(c, "SET ROLE relet_gone")):
            db.close_pool()
            pid = backend_pid(db)
        run(db, "SET app.tenant = '1'")
        observer.execute("DROP ROLE relet_gone")
        db.close()
        assert at_rest(db)
        assert backend_pid(db) != pid


class TestBaseline:
    def configure(self, connection):
        run(connection, "SET ROLE relet_other")
        run(connection, "SET app.tenant = 'O''Neill'")
        run(connection, "SET TIME ZONE 'Asia/Tokyo'")
        run(connection, "SELECT set_config('app.reader', %s, false)", ["x"])

    def test_what_receivers_set_stays(self, db):
        with receiver(self.configure):
            db.close_pool()
            pid = backend_pid(db)
        assert at_rest(db)
        before = in_session(db)
        assert before[0] == pid
        for statement in (
            "SET app.tenant = '2'",
            "RESET app.tenant",
            "RESET ALL",
            "RESET ROLE",
            "SET TIME ZONE DEFAULT",
            "DISCARD ALL",
        ):
            run(db, statement)
            assert stats(db).in_use == 1, statement
            db.close()
            assert in_session(db) == before, statement
        db.close_pool()

    @pytest.mark.parametrize(
        "statement", ["LISTEN relet_news", "CREATE TEMP TABLE relet_t (a int)"], ids=str.split
    )
    def test_what_cannot_be_told_from_it_ends_the_connection(self, db, statement):
        with receiver(lambda c: run(c, statement)):
            db.close_pool()
            pid, before = in_session_of_new(db)
            run(db, "SET lock_timeout = 5")
            db.close()
            assert in_session(db) == (pid, before)
            run(db, statement.replace("relet_", "relet_other_"))
            db.close()
            new_pid, after = in_session_of_new(db)
            assert (new_pid != pid, after) == (True, before)
        db.close_pool()

    @row_factories
    def test_a_driver_that_was_configured_to_return_something_else(self, db):
        def receive(connection):
            connection.connection.row_factory = driver.dbapi.rows.dict_row

        with receiver(receive):
            db.close_pool()
            pid = backend_row(db)
            run(db, "SET lock_timeout = 5")
            db.close()
            assert backend_row(db) == pid
        db.close_pool()

    @needs("psycopg2", "cursor factories that make rows")
    def test_a_driver_that_was_configured_to_return_dicts(self, db):
        from psycopg2.extras import RealDictCursor

        def receive(connection):
            connection.connection.cursor_factory = RealDictCursor

        with receiver(receive):
            db.close_pool()
            pid = backend_row(db)
            run(db, "SET lock_timeout = 5")
            assert run(db, "SELECT pg_try_advisory_lock(32) AS got") == [{"got": True}]
            db.close()
            assert backend_row(db) == pid
        db.close_pool()

    def test_what_is_set_by_a_name_that_nobody_sees_ends_the_connection(self, db):
        sql = "DO $$ BEGIN PERFORM set_config('app.' || 'tenant', '1', false); END $$"
        with receiver(lambda c: run(c, sql)):
            db.close_pool()
            pid = backend_pid(db)
            run(db, "SET lock_timeout = 5")
            db.close()
            assert run(db, "SELECT current_setting('app.tenant')") == [("1",)]
            assert backend_pid(db) != pid
        db.close_pool()


def backend_row(wrapper):
    return run(wrapper, "SELECT pg_backend_pid() AS pid")[0]["pid"]


def in_session_of_new(wrapper):
    backend_pid(wrapper)
    return in_session(wrapper)


class TestReset:
    @made
    def test_it_is_undone_with_the_lease_which_it_does_not_keep(self, make, statement):
        wrapper = make(policy={"session_state": "reset"})
        backend_pid(wrapper)
        before = in_session(wrapper)
        run(wrapper, statement)
        assert at_rest(wrapper)
        assert in_session(wrapper) == before

    def test_it_lasts_as_long_as_its_transaction(self, make):
        wrapper = make(policy={"session_state": "reset"})
        run(wrapper, "BEGIN; SET app.tenant = '1'")
        assert run(wrapper, "SELECT current_setting('app.tenant')") == [("1",)]
        run(wrapper, "COMMIT")
        assert at_rest(wrapper)
        assert run(wrapper, "SELECT current_setting('app.tenant', true)") != [("1",)]

    def test_nothing_is_logged(self, make, caplog):
        run(make(policy={"session_state": "reset"}), "SET app.tenant = '1'")
        assert caplog.records == []


class TestError:
    @made
    def test_it_is_refused_before_it_runs(self, make, statement):
        if statement.startswith("RESET"):
            return  # gives back
        wrapper = make(policy={"session_state": "error"})
        run(wrapper, "SELECT 1")
        before = stats(wrapper).checkouts
        with pytest.raises(SessionStateError, match=r"DATABASES\['extra'\]") as caught:
            run(wrapper, f"INSERT INTO testapp_item (name) VALUES ('never'); {statement}")
        assert isinstance(caught.value, NotSupportedError)
        assert "session_state" in str(caught.value)
        assert fingerprint_of(statement) in str(caught.value)
        assert "never" not in str(caught.value)
        assert at_rest(wrapper)
        assert stats(wrapper).checkouts == before
        assert not Item.objects.exists()

    @not_made
    def test_what_ends_with_its_transaction_is_allowed(self, make, statement):
        wrapper = make(policy={"session_state": "error"})
        run(wrapper, f"BEGIN; {statement}; COMMIT")
        assert at_rest(wrapper)

    def test_giving_back_is_allowed(self, make):
        wrapper = make(policy={"session_state": "error"})
        for statement in "RESET lock_timeout", "UNLISTEN *", "SELECT pg_advisory_unlock_all()":
            run(wrapper, statement)
        assert at_rest(wrapper)

    def test_a_parameter_that_makes_it_local(self, make):
        wrapper = make(policy={"session_state": "error"})
        run(wrapper, "SELECT set_config('app.tenant', %s, %s)", ["1", True])
        with pytest.raises(SessionStateError):
            run(wrapper, "SELECT set_config('app.tenant', %s, %s)", ["1", False])

    def test_the_transaction_goes_on_without_it(self, make):
        wrapper = make(policy={"session_state": "error"})
        run(wrapper, "BEGIN")
        with pytest.raises(SessionStateError):
            run(wrapper, "SET app.tenant = '1'")
        assert run(wrapper, "SELECT 1") == [(1,)]
        run(wrapper, "ROLLBACK")
        assert at_rest(wrapper)


class TestIgnore:
    def test_it_is_left_to_whoever_comes_next(self, make):
        wrapper = make(policy={"session_state": "ignore"})
        run(wrapper, "SET app.tenant = '1'")
        assert at_rest(wrapper)
        wrapper.close()
        assert run(wrapper.copy(), "SELECT current_setting('app.tenant')") == [("1",)]


class TestWaysToRunIt:
    """Whatever runs SQL is looked at."""

    SQL = "SELECT set_config('app.tenant', '1', false)"

    @pytest.fixture
    def kept(self, db):
        before = in_session(db)
        yield
        assert stats(db).in_use == 1
        assert run(db, "SELECT current_setting('app.tenant')") == [("1",)]
        db.close()
        assert in_session(db) == before

    def test_executemany(self, db, kept):
        with db.cursor() as cursor:
            cursor.executemany("SELECT set_config('app.tenant', %s, %s)", [("1", False)])

    def test_executemany_of_a_lock(self, db):
        with db.cursor() as cursor:
            cursor.executemany("SELECT pg_advisory_lock(%s)", [(31,), (31,)])
            cursor.execute("SELECT pg_advisory_unlock(31)")
            cursor.execute("SELECT pg_advisory_unlock(31)")
            # Of how often it was taken, nothing is known.
            assert stats(db).in_use == 1
            cursor.execute("SELECT pg_advisory_unlock_all()")
        assert at_rest(db)

    def test_callproc(self, db, kept):
        with db.cursor() as cursor:
            cursor.callproc("set_config", ["app.tenant", "1", False])

    @needs("psycopg", "functions that are called by an identifier")
    def test_callproc_of_an_identifier(self, db, kept):
        with db.cursor() as cursor:
            cursor.callproc(composed.Identifier("set_config"), ["app.tenant", "1", False])

    @pytest.mark.skipif(composed is None, reason="the driver composes no statements")
    def test_composed(self, db, kept):
        query = composed.SQL("SET {} = {}").format(
            composed.Identifier("app", "tenant"), composed.Literal("1")
        )
        with db.cursor() as cursor:
            cursor.execute(query)

    @needs("psycopg2", "composed values that are encoded for a connection")
    @pytest.mark.parametrize("value", ["Ελλάδα", ["Ελλάδα"], 5, None, True], ids=repr)
    def test_composed_values(self, db, value, recwarn):
        query = composed.SQL("SELECT {}, {}").format(
            composed.Literal(value), composed.Placeholder()
        )
        with db.cursor() as cursor:
            cursor.execute(query, ["SET x"])
            assert at_rest(db)
            assert cursor.fetchall() == [(value, "SET x")]

    @needs("psycopg", "adapters of a connection")
    def test_composed_values_that_only_the_connection_can_adapt(self, make):
        class Tenant:
            pass

        class Dumper(driver.dbapi.adapt.Dumper):
            def dump(self, obj):
                return b"hidden-4712"

        def register(connection, **kwargs):
            connection.connection.adapters.register_dumper(Tenant, Dumper)

        value = composed.Literal(Tenant())
        connection_created.connect(register)
        try:
            wrapper = make("adapted")
            with wrapper.cursor() as cursor:
                cursor.execute(composed.SQL("SELECT {}").format(value))
                assert cursor.fetchall() == [("hidden-4712",)]
                assert at_rest(wrapper)
                cursor.execute(composed.SQL("SET app.tenant = {}").format(value))
                assert stats(wrapper).in_use == 1
                cursor.execute("SHOW app.tenant")
                assert cursor.fetchall() == [("hidden-4712",)]
            assert "hidden-4712" not in dump()
            wrapper.close()
            assert at_rest(wrapper)
            with wrapper.cursor() as cursor:
                cursor.execute("SELECT current_setting('app.tenant', true)")
                assert cursor.fetchone()[0] in ("", None)
        finally:
            connection_created.disconnect(register)

    def test_bytes(self, db, kept):
        with db.cursor() as cursor:
            cursor.cursor.execute(self.SQL.encode())

    @needs("psycopg", "queries that are byte arrays")
    def test_a_byte_array(self, db, kept):
        with db.cursor() as cursor:
            cursor.cursor.execute(bytearray(self.SQL.encode()))

    def test_server_side(self, db, kept):
        with db.chunked_cursor() as cursor:
            cursor.execute(self.SQL)
            assert cursor.fetchall() == [("1",)]

    @copies
    def test_copy(self, db, kept):
        with db.cursor() as cursor, cursor.copy(f"COPY ({self.SQL}) TO STDOUT") as copy:
            assert list(copy.rows()) == [("1",)]

    @streams
    def test_stream(self, db, kept):
        with db.cursor() as cursor:
            assert list(cursor.stream(self.SQL)) == [("1",)]

    @streams
    def test_stream_with_parameters(self, db, kept):
        with db.cursor() as cursor:
            sql = "SELECT set_config('app.tenant', %s, false)"
            assert list(cursor.stream(sql, ["1"])) == [("1",)]

    @copies_at_once
    @pytest.mark.parametrize("write", [str, str.encode, getattr(composed, "SQL", str)])
    def test_copy_expert(self, db, kept, write):
        file = io.StringIO()
        with db.cursor() as cursor:
            cursor.copy_expert(write(f"COPY ({self.SQL}) TO STDOUT"), file)
        assert file.getvalue() == "1\n"

    def test_the_orm(self, db, kept):
        Item.objects.raw("SELECT 1 AS id, set_config('app.tenant', '1', false) AS name")[0]

    def test_refused_as_well(self, make):
        wrapper = make(policy={"session_state": "error"})
        with wrapper.cursor() as cursor:
            copy = f"COPY ({self.SQL}) TO STDOUT"
            for call in (
                lambda: cursor.executemany(self.SQL, [()]),
                lambda: cursor.callproc("set_config", ["app.tenant", "1", False]),
                lambda: wrapper.chunked_cursor().execute(self.SQL),
                # Each driver has its own; the statement is refused before it is looked for.
                lambda: list(cursor.stream(self.SQL)),
                lambda: cursor.copy(copy).__enter__(),
                lambda: cursor.copy_expert(copy, io.StringIO()),
                lambda: cursor.copy_expert(getattr(composed, "SQL", str)(copy), io.StringIO()),
            ):
                with pytest.raises(SessionStateError):
                    call()
                assert at_rest(wrapper)

    def test_what_is_done_with_the_drivers_connection_is_undone(self, db):
        before = in_session(db)
        with db.cursor() as cursor:
            execute(cursor.connection, "SET app.tenant = '1'")
        assert at_rest(db)
        assert in_session(db) == before

    def test_a_cursor_that_cannot_be_closed_is_undone(self, db):
        before = in_session(db)
        iterator = Item.objects.iterator(chunk_size=2)
        Item.objects.bulk_create(Item(name=str(n)) for n in range(5))
        next(iterator)
        with pytest.raises(DatabaseError), transaction.atomic():
            try:
                run(db, "SELECT 1/0")
            finally:
                iterator.close()  # WITH HOLD, and the transaction is aborted
        Item.objects.all().delete()
        assert at_rest(db)
        assert in_session(db) == before

    def test_a_statement_that_fails_leaves_nothing(self, db):
        with pytest.raises(DatabaseError):
            run(db, "SET no_such_setting = 1")
        with pytest.raises(DatabaseError):
            run(db, "SET lock_timeout = 5; SELECT 1/0")
        assert at_rest(db)
        with pytest.raises(DatabaseError):
            run(db, "SELECT pg_advisory_lock(1), 1/0")
        # Nobody knows.
        assert stats(db).in_use == 1


class TestLog:
    def test_once_for_statements_that_differ_in_values_alone(self, db, caplog):
        for _ in range(2):
            run(db, "SET app.tenant = '1'")
            run(db, "SET app.tenant = '2'")
            run(db, "SET app.tenant TO three")
            run(db, "LISTEN relet_news")
            db.close()
        texts = [record.getMessage() for record in caplog.records if record.name == "relet"]
        assert len(texts) == 3
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        for text in texts:
            assert "DATABASES['default']" in text
            assert "hold()" in text
        assert "SET app.tenant = ?" in texts[0]
        assert "SET app.tenant TO ?" in texts[1]
        for text in texts[:2]:
            assert "a setting" in text
            assert "SET LOCAL" in text

    def test_no_values(self, db, caplog):
        run(db, "SET app.token = 'secret'")
        run(db, "SET app.token TO secret")
        run(db, "SELECT set_config('app.token', 'secret', false)")
        run(db, "PREPARE relet_s AS SELECT 'secret'")
        assert len(caplog.records) == 4
        assert "secret" not in caplog.text
        if composed is not None:
            run(db, composed.SQL("SET app.pass = {}").format(composed.Literal("secret")))
            assert "SET app.pass = ?" in caplog.text
            assert "secret" not in caplog.text

    def test_texts_are_not_kept(self, db):
        for n in range(3):
            run(db, f"SET app.tenant = '{n}'")
        assert db._runner.lease.session.pinning_statements == {}

    def test_a_pin_by_a_commit(self, db, caplog):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            run(db, "LISTEN relet_news")
            raise ZeroDivisionError
        assert caplog.records == []
        with transaction.atomic():
            run(db, "LISTEN relet_news")
            assert caplog.records == []
        assert "a channel" in caplog.text

    def test_long_texts_are_shortened(self, db, caplog):
        run(db, f"SELECT set_config('app.tenant', '1', false) AS {'x' * 2000}")
        assert "xxx..." in caplog.text
        assert len(caplog.text) < 1500

    def test_not_for_ever(self, db, caplog, monkeypatch):
        monkeypatch.setattr(session_state, "_MAX_LOGGED", 3)
        for n in range(6):
            run(db, f"SET app.tenant_{n} = '1'")
        assert len(caplog.records) == 4
        assert "Further statements" in caplog.records[-1].getMessage()


#: What was overlooked once: statements of one transaction, with parameters.
OVERLOOKED = {
    "search path": [("SET LOCAL search_path TO missing, pg_temp", None), CREATE_TABLE],
    "schema": [("SET LOCAL SCHEMA 'pg_temp'", None), CREATE_TABLE],
    "search path with a parameter": [
        ("SET LOCAL search_path TO missing, %s", ["pg_temp"]),
        CREATE_TABLE,
    ],
    "set_config with a parameter": [
        ("SELECT set_config('search_path', %s, true)", ["missing, pg_temp"]),
        CREATE_TABLE,
    ],
    "set_config with a name as a parameter": [
        ("SELECT set_config(%(name)s, %(path)s, true)", {"name": "search_path", "path": "pg_temp"}),
        CREATE_TABLE,
    ],
    "a name of three parts": [("SELECT 1 AS a INTO {database}.pg_temp.relet_t", None)],
    "statistics": [("CREATE STATISTICS pg_temp.relet_t ON id, name FROM testapp_item", None)],
    "merge": [("SELECT 1 AS merge INTO TEMP relet_t FROM testapp_item ORDER BY id USING <", None)],
    "insert": [("SELECT 1 AS insert INTO TEMP values", None)],
    "options": [
        ("DECLARE relet_c NO SCROLL BINARY NO SCROLL BINARY CURSOR WITH HOLD FOR SELECT 1", None)
    ],
    "an operator": [
        ("SELECT 100 %(SELECT length(set_config('app.tenant', '1', false)))s", None),
    ],
    "a placeholder": [("SELECT %sINTO TEMP relet_t", ["a"])],
    "backslashes": [
        ("SET LOCAL standard_conforming_strings = off", None),
        (r"SELECT '\'', set_config('app.tenant', '1', false) --'", None),
    ],
    "a body": [
        ("CREATE TEMP TABLE relet_t (begin int)", None),
        (
            "CREATE TEMP TABLE relet_u AS SELECT t.begin atomic FROM relet_t t; LISTEN relet_news",
            None,
        ),
        ("DROP TABLE relet_t, relet_u", None),
    ],
}


class TestOverlooked:
    @pytest.mark.parametrize("name", OVERLOOKED)
    def test_it_is_kept_and_undone(self, db, name):
        before = in_session(db)
        with transaction.atomic():
            for sql, params in OVERLOOKED[name]:
                run(db, sql.replace("{database}", f'"{db.settings_dict["NAME"]}"'), params)
        assert stats(db).in_use == 1
        assert fingerprint(db.connection, CUSTOM) != before[1]
        db.close()
        assert in_session(db) == before

    def test_a_table_that_was_renamed(self, db):
        before = in_session(db)
        run(db, "CREATE TEMP TABLE relet_t (a int)")
        run(db, "ALTER TABLE relet_t RENAME TO relet_u")
        run(db, "DROP TABLE IF EXISTS relet_t")
        assert stats(db).in_use == 1
        assert run(db, "SELECT a FROM relet_u") == []
        db.close()
        assert in_session(db) == before

    def test_the_value_of_a_serial_column(self, db):
        run(db, "SELECT nextval(pg_get_serial_sequence('testapp_item', 'id'))")
        assert stats(db).in_use == 1
        run(db, "SELECT lastval()")

    @pytest.mark.parametrize(("sql", "params"), [("NULL", None), ("%s", [None])], ids=str)
    def test_set_config_gives_back(self, db, sql, params):
        before = in_session(db)
        run(db, "SET lock_timeout = '7s'")
        run(db, f"SELECT set_config('lock_timeout', {sql}, false) WHERE false", params)
        assert stats(db).in_use == 1
        run(db, f"SELECT set_config('lock_timeout', {sql}, false)", params)
        assert at_rest(db)
        assert in_session(db) == before

    def test_executemany_of_nothing_gives_nothing_back(self, db, observer):
        run(db, "SELECT pg_advisory_lock(4711)")
        run(db, "SET app.tenant = '1'")
        with db.cursor() as cursor:
            for sql in "SELECT pg_advisory_unlock(%s)", "RESET app.tenant", "DISCARD ALL", "COMMIT":
                cursor.executemany(sql, [])
        assert stats(db).in_use == 1
        assert run(db, "SELECT current_setting('app.tenant')") == [("1",)]
        assert run(db, "SELECT pg_advisory_unlock(4711)") == [(True,)]

    @pytest.mark.parametrize(
        "sql",
        [
            "EXPLAIN ANALYZE SELECT set_config('app.tenant', NULL, false)",
            "WITH x AS MATERIALIZED (SELECT set_config('app.tenant', NULL, false)) TABLE x",
            "DO $$ BEGIN RESET app.tenant; END $$",
            "DO $$ BEGIN EXECUTE 'RESET ' || 'ALL'; END $$",
        ],
    )
    def test_what_was_configured_and_is_gone(self, db, sql):
        with receiver(lambda c: run(c, "SET app.tenant = '1'")):
            db.close_pool()
            backend_pid(db)
        before = in_session(db)
        run(db, sql)
        assert stats(db).in_use == 1
        db.close()
        assert in_session(db) == before
        db.close_pool()


class TestSeeds:
    """Whoever sets the seed of random() knows what it returns; others are not to rely on that."""

    STATEMENTS = (
        "SELECT setseed(0.5)",
        "SET SEED TO 0.5",
        "SET LOCAL seed = 0.5",
        "SELECT set_config('seed', '0.5', true)",
        "DO $$ BEGIN PERFORM setseed(0.5); END $$",
    )

    @pytest.mark.parametrize("sql", STATEMENTS)
    def test_the_next_one_gets_random_numbers(self, db, observer, sql):
        observer.execute("SELECT setseed(0.5)")
        known = {observer.execute("SELECT random()").fetchone()[0] for _ in range(10)}
        pid = backend_pid(db)
        others = set()
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                run(db, sql)  # a rollback does not take it back
                raise ZeroDivisionError
            assert stats(db).in_use == 1
            assert run(db, "SELECT random()")[0][0] in known
            db.close()
            assert at_rest(db)
            assert backend_pid(db) == pid
            others.add(run(db, "SELECT random()")[0][0])
            db.close()
        assert len(others) == 3
        assert not others & known

    def test_numbers_are_spread(self, db):
        """All of what setseed() takes, and nothing else."""
        sql = Baseline({}, "none", "", frozenset()).undo(frozenset({Kind.SEED}))
        (call,) = re.findall(
            r"setseed\((.*)\)$", next(p for p in sql.split("; ") if "setseed" in p)
        )
        seeds = [seed for (seed,) in run(db, f"SELECT {call} FROM generate_series(1, 2000)")]
        assert all(-1 <= seed <= 1 for seed in seeds)
        assert len(set(seeds)) == 2000
        assert min(seeds) < -0.9 and max(seeds) > 0.9

    def test_hold(self, db):
        """A function may have set it."""
        pid = backend_pid(db)
        with hold():
            run(db, "SELECT 1")
            with db.connection.cursor() as cursor:
                cursor.execute("SELECT setseed(0.5)")
        first = run(db, "SELECT random()")
        with hold():
            run(db, "SELECT setseed(0.5)")
            known = run(db, "SELECT random()")
        assert backend_pid(db) == pid
        assert known != first


class TestSequences:
    @pytest.fixture(autouse=True)
    def sequence(self, observer):
        observer.execute("CREATE SEQUENCE relet_s")
        yield
        observer.execute("DROP SEQUENCE relet_s")

    @pytest.mark.parametrize("function", ["nextval('relet_s')", "setval('relet_s', 5)"])
    def test_the_value_stays_readable(self, db, function, recwarn):
        value = run(db, f"SELECT {function}")
        assert stats(db).in_use == 1
        assert run(db, "SELECT currval('relet_s')") == value
        db.close()
        with pytest.warns(SessionStateWarning), pytest.raises(OperationalError, match="not yet"):
            run(db, "SELECT currval('relet_s')")
        assert [w for w in recwarn if w.category is SessionStateWarning] == []

    @pytest.mark.parametrize("function", ["lastval()", "currval('relet_s')"])
    def test_a_lease_that_never_called_nextval_warns(self, db, function):
        with (
            pytest.warns(SessionStateWarning, match=r"DATABASES\['default'\].*RETURNING") as caught,
            pytest.raises(DatabaseError),
        ):
            run(db, f"SELECT {function}, 'secret'")
        assert caught[0].filename == __file__
        assert "secret" not in str(caught[0].message)

    def test_it_names_the_code_that_runs_it(self, db, recwarn):
        db.force_debug_cursor = True
        try:
            with (
                db.execute_wrapper(lambda execute, *args: execute(*args)),
                db.cursor() as cursor,
                pytest.warns(SessionStateWarning) as caught,
                pytest.raises(DatabaseError),
            ):
                cursor.execute("SELECT lastval()")
        finally:
            db.force_debug_cursor = False
        assert caught[0].filename == __file__

    @streams
    @pytest.mark.filterwarnings("ignore:.*lastval")
    def test_it_names_the_code_that_streams_it(self, db):
        with (
            db.cursor() as cursor,
            pytest.warns(SessionStateWarning) as caught,
            pytest.raises(driver.dbapi.Error),
        ):
            list(cursor.stream("SELECT lastval()"))
        assert caught[0].filename == __file__

    def test_what_django_sets_sequences_by_is_none(self, make):
        wrapper = make(policy={"session_state": "error"})
        style = no_style()
        for sql in wrapper.ops.sequence_reset_sql(style, [Item]):
            run(wrapper, sql)
        for sql in wrapper.ops.sequence_reset_by_name_sql(
            style, [{"table": "testapp_item", "column": "id"}]
        ):
            run(wrapper, sql)
        assert at_rest(wrapper)

    def test_one_text(self, db, recwarn):
        run(db, "SELECT nextval('relet_s'); SELECT lastval()")
        assert not recwarn.list

    def test_an_insert_in_the_same_transaction(self, db, recwarn):
        with transaction.atomic():
            run(db, "INSERT INTO testapp_item (name) VALUES ('a')")
            run(db, "SELECT lastval()")
            transaction.set_rollback(True)
        assert not recwarn.list


class Interrupted(KeyboardInterrupt):
    """Strikes as the driver returns, so when the server has done what it was told."""


def interrupting(monkeypatch, owner, name):
    """Have a method of the driver's do its work, and then be interrupted."""
    original = getattr(owner, name)

    def work(*args, **kwargs):
        original(*args, **kwargs)
        raise Interrupted

    monkeypatch.setattr(owner, name, work)


class TestInterrupts:
    """What cannot be known counts as left."""

    def test_a_statement(self, db, monkeypatch):
        before = in_session(db)
        with leased(db) as raw:
            pass
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupting(patch, driver.cursor_class(patch, raw), "execute")
            run(db, "SET lock_timeout = 5")
        assert stats(db).in_use == 1
        db.close()
        assert in_session(db) == before

    def test_a_statement_of_a_transaction(self, db, monkeypatch):
        before = in_session(db)
        with leased(db) as raw:
            pass
        with transaction.atomic():
            with monkeypatch.context() as patch, pytest.raises(Interrupted):
                interrupting(patch, driver.cursor_class(patch, raw), "execute")
                run(db, "SET lock_timeout = 5")
            assert stats(db).in_use == 1
        assert stats(db).in_use == 1
        db.close()
        assert in_session(db) == before

    def test_a_commit(self, make, monkeypatch):
        connection_class, options = driver.connection_class()
        wrapper = make(OPTIONS=options, AUTOCOMMIT=False)
        run(wrapper, "SELECT 1")
        wrapper.rollback()
        before = in_session(wrapper)
        run(wrapper, "SET lock_timeout = 5")
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupting(patch, connection_class, "commit")
            wrapper.commit()
        wrapper.close()
        assert in_session(wrapper) == before

    def test_a_server_side_cursor_that_is_never_fetched(self, db):
        """What it would have given back is there still."""
        run(db, "SELECT pg_advisory_lock(4711)")
        with transaction.atomic(), db.chunked_cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(4711)")
        assert stats(db).in_use == 1
        assert run(db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(1,)]
        # Outside of a transaction the server runs it to its end: WITH HOLD.
        with db.chunked_cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(4711)")
        assert stats(db).in_use == 1
        db.close()
        assert at_rest(db)

    @streams
    def test_a_stream_that_is_broken_off(self, db):
        before = in_session(db)
        with db.cursor() as cursor:
            stream = cursor.stream("SELECT set_config('lock_timeout', '7s', false)")
            next(stream)
            stream.close()
        db.close()
        assert in_session(db) == before

    def test_the_undoing(self, db, monkeypatch):
        before = in_session(db)
        run(db, "SET lock_timeout = 5")
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupting(patch, db._runner.lease.pool, "execute_internal")
            db.close()
        assert at_rest(db)
        assert in_session(db)[1] == before[1]


class TestDriver:
    """What the driver keeps for a session is not handed on either."""

    @pytest.fixture(autouse=True)
    def as_it_was(self, db):
        backend_pid(db)
        before = in_session(db)[1]
        yield
        assert at_rest(db)
        with leased(db) as raw:
            assert fingerprint(raw, CUSTOM) == before
            if driver.NAME == "psycopg":
                assert (raw.read_only, raw.isolation_level) == (None, None)
                assert raw._notice_handlers == raw._notify_handlers == []
                assert raw.row_factory is driver.dbapi.rows.tuple_row
            elif driver.NAME == "pg8000":
                assert (raw.read_only, raw.isolation_level) == (None, None)
                assert (raw.zone, raw.info.encoding) == (db.timezone, "utf-8")
            else:
                assert (raw.readonly, raw.isolation_level) == (None, None)
                assert (raw.cursor_factory, raw.encoding) == (driver.Cursor, "UTF8")
                assert raw.string_types.keys() <= {3802, 3807}  # jsonb, by Django
            execute(raw, "LISTEN relet_other")
            assert driver.notifications(raw) == []
            execute(raw, "UNLISTEN *")

    def test_what_is_set_in_a_transaction(self, db):
        with transaction.atomic():
            execute(db.connection, "SET lock_timeout = 5")
        assert at_rest(db)

    def test_what_is_set_after_ensure_connection(self, db):
        db.ensure_connection()
        execute(db.connection, "LISTEN relet_news")
        run(db, "SELECT 1")

    @needs("psycopg2", "attributes of psycopg2's connections")
    @pytest.mark.parametrize(
        "change",
        [
            lambda raw: setattr(raw, "cursor_factory", type("Own", (driver.Cursor,), {})),
            lambda raw: setattr(raw, "readonly", True),
            lambda raw: setattr(raw, "isolation_level", "SERIALIZABLE"),
            lambda raw: raw.set_session(deferrable=True),
            lambda raw: raw.set_client_encoding("LATIN1"),
            lambda raw: driver.dbapi.extensions.register_type(driver.dbapi.NUMBER, raw),
        ],
        ids=["cursors", "read only", "isolation", "deferrable", "encoding", "types"],
    )
    def test_attributes_of_psycopg2(self, db, change):
        with db.cursor() as cursor:
            change(cursor.connection)
        assert at_rest(db)
        with hold():
            run(db, "SELECT 1")
            change(db.connection)

    @row_factories
    def test_attributes(self, db):
        with db.cursor() as cursor:
            cursor.connection.row_factory = driver.dbapi.rows.dict_row
        with hold():
            run(db, "SELECT 1")
            db.connection.read_only = True
            db.connection.add_notice_handler(print)
            db.connection.add_notify_handler(print)

    def test_notifications_that_nobody_read(self, db, observer):
        run(db, "LISTEN relet_news")
        observer.execute("NOTIFY relet_news, 'secret'")
        run(db, "SELECT 1")
        db.close()

    def test_notifications_are_read_where_they_were_asked_for(self, db, observer):
        with hold():
            run(db, "LISTEN relet_news")
            observer.execute("NOTIFY relet_news, 'to whom it concerns'")
            (notification,) = driver.notifications(db.connection, timeout=10)
            assert notification.payload == "to whom it concerns"

    @traces
    def test_django_itself_looks_for_nothing(self, db):
        """Neither cursors nor health checks have the session restored."""
        with leased(db) as raw:
            pass
        Item.objects.bulk_create(Item(name=str(n)) for n in range(5))
        with round_trips(raw) as sent:
            list(Item.objects.iterator(chunk_size=10))
            assert db.is_usable()
        assert [line for line in sent if "DECLARE" in line]
        assert [line for line in sent if "RESET ALL" in line] == []
        Item.objects.all().delete()

    @needs("psycopg", "prepared statements of its own")
    def test_statements_prepared_at_once(self, make):
        wrapper = make(OPTIONS={"prepare_threshold": 0, "server_side_binding": True})
        pid = backend_pid(wrapper)
        for _ in range(3):
            run(wrapper, "SET lock_timeout = 5")
            wrapper.close()
            assert backend_pid(wrapper) == pid

    @needs("psycopg", "prepared statements of its own")
    @pytest.mark.parametrize("call", ["DO 'BEGIN DEALLOCATE ALL; END'", "SELECT relet_drop_all()"])
    def test_statements_that_code_drops(self, make, observer, call):
        observer.execute(
            "CREATE OR REPLACE FUNCTION public.relet_drop_all() RETURNS void LANGUAGE plpgsql"
            " AS 'BEGIN DEALLOCATE ALL; END'"
        )
        wrapper = make(OPTIONS={"prepare_threshold": 0, "server_side_binding": True})
        try:
            pid = backend_pid(wrapper)
            for _ in range(3):
                for _ in range(3):
                    assert run(wrapper, "SELECT %s::int + 1", [1]) == [(2,)]
                run(wrapper, call)
                assert at_rest(wrapper)
            assert backend_pid(wrapper) == pid
        finally:
            observer.execute("DROP FUNCTION public.relet_drop_all()")


def test_a_signal_handlers_close_in_a_statement(db, monkeypatch):
    """The session of a statement that close() came upon is gone with its connection."""
    pid = backend_pid(db)

    def close(*args):
        db.close()
        raise KeyboardInterrupt

    with db.cursor() as cursor:
        raw = db._runner.pin("x")
        cursor_class = driver.cursor_class(monkeypatch, raw)
        cursor.cursor._bind(raw)
        db._runner.unpin("x")
        monkeypatch.setattr(cursor_class, "execute", close)
        with pytest.raises(KeyboardInterrupt):
            cursor.execute("SET app.tenant = '1'")
        monkeypatch.undo()
    assert at_rest(db)
    assert backend_pid(db) != pid
    assert connection.connection is None
