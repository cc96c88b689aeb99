"""I3 inside functions and triggers: their definitions count like a statement's own text."""

from __future__ import annotations

import io
import threading
from contextlib import contextmanager, nullcontext

import pytest
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate

from relet import policies
from relet.backends import SessionStateError
from relet.backends.leases import definitions, session_rules
from relet.backends.leases.definitions import PoolDefinitions
from relet.backends.pools import pools

from ..support import driver
from ..support.driver import needs
from ..support.fingerprint import fingerprint
from ..support.forks import child_of
from ..support.pools import at_rest
from ..support.waiting import until

SCHEMA = "relet_catalogue"
SETUP = (
    f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
DROP SCHEMA IF EXISTS {SCHEMA}_2 CASCADE;
CREATE SCHEMA {SCHEMA};
CREATE SCHEMA {SCHEMA}_2;
SET search_path = {SCHEMA};
CREATE FUNCTION trap() RETURNS int LANGUAGE plpgsql AS $$
  BEGIN PERFORM set_config('app.trapped', 'yes', false); RETURN 1; END $$;
CREATE FUNCTION outer_trap(int DEFAULT 1) RETURNS int LANGUAGE sql AS
  $$ SELECT $1 + {SCHEMA}.trap() $$;
CREATE FUNCTION standard() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT outer_trap(); END;
CREATE FUNCTION local() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.x', '1', true) $$;
CREATE FUNCTION harmless(name text) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN EXECUTE format('SELECT %L, 1 AS %I', name, name); END $$;
CREATE FUNCTION dynamic(command text) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN EXECUTE command; END $$;
CREATE FUNCTION first_of_two() RETURNS int LANGUAGE plpgsql AS $$
  BEGIN RETURN {SCHEMA}.second_of_two(0); END $$;
CREATE FUNCTION second_of_two(n int) RETURNS int LANGUAGE plpgsql AS $$
  BEGIN
    IF n > 0 THEN RETURN {SCHEMA}.first_of_two(); END IF;
    PERFORM pg_advisory_lock(4711);
    RETURN 1;
  END $$;
CREATE PROCEDURE committing() LANGUAGE plpgsql AS $$
  BEGIN COMMIT; SET lock_timeout = '7s'; COMMIT; END $$;
CREATE TABLE plain (id int PRIMARY KEY);
CREATE TABLE audited (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES audited ON DELETE CASCADE);
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);
CREATE TABLE defaulted (id int DEFAULT {SCHEMA}.trap());
CREATE FUNCTION locking() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM pg_advisory_lock(4712); RETURN NULL; END $$;
CREATE TRIGGER audit AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION locking();
CREATE TRIGGER gone AFTER DELETE ON child FOR EACH ROW EXECUTE FUNCTION locking();
CREATE TRIGGER part AFTER INSERT ON parts_1 FOR EACH ROW EXECUTE FUNCTION locking();
CREATE VIEW seen AS SELECT {SCHEMA}.trap() AS n;
CREATE VIEW seen_again AS SELECT n FROM seen;
CREATE VIEW writable AS SELECT id FROM audited;
CREATE VIEW setting AS SELECT set_config('app.trapped', 'yes', false) AS n;
CREATE TABLE ruled (id int);
CREATE RULE rule_1 AS ON INSERT TO ruled DO ALSO SELECT {SCHEMA}.trap();
CREATE OPERATOR === (FUNCTION = {SCHEMA}.outer_or, LEFTARG = int, RIGHTARG = int);
""".replace(
        "CREATE OPERATOR",
        f"CREATE FUNCTION outer_or(int, int) RETURNS bool LANGUAGE sql AS\n"
        f"  $$ SELECT {SCHEMA}.trap() = $1 $$;\nCREATE OPERATOR",
    )
    + f"""
CREATE FUNCTION {SCHEMA}_2.trap() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
RESET search_path;
"""
)
TEARDOWN = f"DROP SCHEMA {SCHEMA} CASCADE; DROP SCHEMA {SCHEMA}_2 CASCADE"
PATH = {"OPTIONS": {"options": f"-c search_path={SCHEMA},public"}}

MADE = {
    "a function": ("SELECT trap()", "called in function relet_catalogue.trap"),
    "one that calls it": ("SELECT outer_trap(2)", "called in function relet_catalogue.trap"),
    "in capitals": ("SELECT TRAP ()", "called in function relet_catalogue.trap"),
    "by its schema": (f'SELECT "{SCHEMA}".trap()', "called in function relet_catalogue.trap"),
    "a body without a string": ("SELECT standard()", "called in function relet_catalogue.trap"),
    "a cycle": ("SELECT first_of_two()", "called in function relet_catalogue.second_of_two"),
    "in FROM": ("SELECT * FROM trap()", "called in function relet_catalogue.trap"),
    "a procedure": ("CALL committing()", "called in function relet_catalogue.committing"),
    "DO": ("DO $$ BEGIN PERFORM trap(); END $$", "called in function relet_catalogue.trap"),
    "a trigger": (
        "INSERT INTO audited VALUES (1)",
        "by trigger audit on table relet_catalogue.audited",
    ),
    "WITH": (
        "WITH x AS (INSERT INTO audited VALUES (2) RETURNING id) SELECT * FROM x",
        "by trigger audit on table relet_catalogue.audited",
    ),
    "a cascade": (
        "INSERT INTO plain VALUES (1); DELETE FROM audited",
        "by trigger gone on table relet_catalogue.child",
    ),
    "a partition": (
        "INSERT INTO parts VALUES (1)",
        "by trigger part on table relet_catalogue.parts_1",
    ),
    "a default": (
        "INSERT INTO defaulted DEFAULT VALUES",
        "by a default of table relet_catalogue.defaulted",
    ),
    "a view": ("SELECT * FROM seen", "by view relet_catalogue.seen"),
    "a view of a view": ("SELECT n FROM seen_again", "by view relet_catalogue.seen_again"),
    "a view that is written": (
        "INSERT INTO writable VALUES (3)",
        "by trigger audit on table relet_catalogue.audited",
    ),
    "PostgreSQL's function in a view": ("TABLE setting", "by view relet_catalogue.setting"),
    "a rule": ("INSERT INTO ruled VALUES (1)", "by rule rule_1 on table relet_catalogue.ruled"),
    "an operator": ("SELECT 1 === 2", "called in function relet_catalogue.trap"),
}
made = pytest.mark.parametrize(("statement", "origin"), MADE.values(), ids=MADE)

NOT_MADE = {
    "a local setting": "SELECT local()",
    "a command that can be read": "SELECT harmless('x')",
    "the same name elsewhere": f"SELECT {SCHEMA}_2.trap()",
    "no call": "SELECT 1 AS trap, 'trap()' /* trap() */",
    "another table": "INSERT INTO plain VALUES (7)",
    "another command": "UPDATE audited SET id = id",
    "a definition": "CREATE OR REPLACE VIEW seen_2 AS SELECT trap()",
    "EXPLAIN": "EXPLAIN SELECT trap()",
    "a function that is dropped": "DROP FUNCTION IF EXISTS trap() CASCADE",
    "a function that is given away": "GRANT EXECUTE ON FUNCTION trap() TO PUBLIC",
    "a default that is set": "ALTER TABLE plain ALTER id SET DEFAULT trap()",
    "a table with a default": "CREATE TABLE kept (id int DEFAULT trap() CHECK (trap() = id))",
    "a table that is renamed": "ALTER TABLE defaulted RENAME TO renamed",
    "a table that is called like a function": 'WITH "trap" ("id") AS (VALUES (1)) SELECT 1',
}
not_made = pytest.mark.parametrize("statement", NOT_MADE.values(), ids=NOT_MADE)

CUSTOM = ("app.trapped", "app.x")


@pytest.fixture(autouse=True)
def schema(observer):
    observer.execute(SETUP)
    yield
    observer.execute(TEARDOWN)


@pytest.fixture(autouse=True)
def nothing_logged(monkeypatch):
    monkeypatch.setattr(session_rules, "_logged", set())


def run(wrapper, sql, params=None):
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


@contextmanager
def leased(wrapper):
    """The driver's connection of the pool's only one."""
    pool = wrapper._runner.find_pool().pool
    pool.open()
    connection = pool.checkout()
    try:
        yield connection.raw
    finally:
        pool.checkin(connection)


def state(wrapper):
    with leased(wrapper) as raw:
        return fingerprint(raw, CUSTOM)


@made
def test_it_keeps_the_lease_and_is_undone(make, statement, origin, caplog):
    wrapper = make(**PATH)
    run(wrapper, "SELECT 1")
    before = state(wrapper)
    run(wrapper, statement)
    assert wrapper._runner.lease.connection is not None
    (record,) = caplog.records
    assert f"in its session ({origin}):" in record.getMessage()
    wrapper.close()
    assert at_rest(wrapper)
    assert state(wrapper) == before


@made
def test_it_is_the_first_statement_of_the_pool(make, statement, origin):
    wrapper = make(**PATH)
    run(wrapper, statement)
    assert wrapper._runner.lease.connection is not None


@made
def test_it_is_refused(make, statement, origin):
    wrapper = make(policy={"session_state": "error"}, **PATH)
    with pytest.raises(SessionStateError) as caught:
        run(wrapper, statement)
    assert f" ({origin}), which the policy forbids" in str(caught.value)
    assert at_rest(wrapper)


@made
def test_it_is_undone_when_the_lease_ends(make, statement, origin):
    wrapper = make(policy={"session_state": "reset"}, **PATH)
    run(wrapper, "SELECT 1")
    before = state(wrapper)
    run(wrapper, statement)
    assert at_rest(wrapper)
    assert state(wrapper) == before


@not_made
def test_what_leaves_nothing_keeps_nothing(make, statement, caplog):
    wrapper = make(**PATH)
    run(wrapper, statement)
    assert at_rest(wrapper)
    assert caplog.records == []


@not_made
def test_what_leaves_nothing_is_not_refused(make, statement):
    wrapper = make(policy={"session_state": "error"}, **PATH)
    run(wrapper, statement)
    assert at_rest(wrapper)


def test_a_text_seen_before_is_one_look_up(make, monkeypatch):
    wrapper = make(**PATH)
    run(wrapper, "SELECT outer_trap(), 1")
    wrapper.close()
    monkeypatch.setattr("relet.core.catalogue.memo.classify", None)
    run(wrapper, "SELECT outer_trap(), 1")
    assert wrapper._runner.lease.connection is not None


class TestTransactions:
    def test_what_is_rolled_back_keeps_nothing(self, make):
        wrapper = make(**PATH)
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT trap()")
        wrapper.rollback()
        wrapper.set_autocommit(True)
        assert at_rest(wrapper)

    def test_a_lock_is_kept_even_so(self, make):
        wrapper = make(**PATH)
        wrapper.set_autocommit(False)
        run(wrapper, "INSERT INTO audited VALUES (1)")
        wrapper.rollback()
        wrapper.set_autocommit(True)
        assert wrapper._runner.lease.connection is not None

    def test_what_is_committed(self, make):
        wrapper = make(**PATH)
        with transaction_of(wrapper):
            run(wrapper, "SELECT trap()")
        assert wrapper._runner.lease.connection is not None

    def test_a_trigger_that_runs_at_commit(self, make, observer):
        observer.execute(
            f"CREATE CONSTRAINT TRIGGER late AFTER INSERT ON {SCHEMA}.plain DEFERRABLE"
            f" INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.locking()"
        )
        wrapper = make(**PATH)
        with transaction_of(wrapper):
            run(wrapper, "INSERT INTO plain VALUES (1)")
            run(wrapper, "SELECT pg_advisory_unlock_all()")
        assert wrapper._runner.lease.connection is not None


class TestOtherCalls:
    def test_executemany(self, make):
        wrapper = make(**PATH)
        with wrapper.cursor() as cursor:
            cursor.executemany("INSERT INTO audited VALUES (%s)", [(1,), (2,)])
        assert wrapper._runner.lease.connection is not None

    def test_callproc(self, make):
        wrapper = make(**PATH)
        with wrapper.cursor() as cursor:
            cursor.callproc("outer_trap", [1])
        assert wrapper._runner.lease.connection is not None

    @pytest.mark.skipif(driver.NAME == "psycopg2", reason="psycopg2 does not quote the name")
    def test_callproc_of_a_name_in_quotes(self, make, observer):
        observer.execute(
            f'CREATE FUNCTION {SCHEMA}."setTrap"() RETURNS int LANGUAGE sql'
            f" AS 'SELECT {SCHEMA}.trap()'"
        )
        wrapper = make(**PATH)
        with wrapper.cursor() as cursor:
            cursor.callproc("setTrap")
        assert wrapper._runner.lease.connection is not None

    def test_a_server_side_cursor(self, make):
        wrapper = make(**PATH)
        with wrapper.chunked_cursor() as cursor:
            cursor.execute("SELECT n FROM seen")
            cursor.fetchall()
        assert wrapper._runner.lease.connection is not None

    @pytest.mark.parametrize("release", ["cursor", "request"])
    def test_release_modes(self, make, release):
        wrapper = make(policy={"release": release}, **PATH)
        run(wrapper, "SELECT 1")
        before = state(wrapper) if release == "cursor" else None
        run(wrapper, "SELECT trap()")
        assert wrapper._runner.lease.connection is not None
        wrapper.close()
        assert at_rest(wrapper)
        if before is not None:
            assert state(wrapper) == before

    def test_hold(self, make):
        wrapper = make(policy={"session_state": "error"}, **PATH)
        wrapper.hold()
        run(wrapper, "SELECT trap()")
        wrapper.release_hold()
        assert at_rest(wrapper)
        assert run(wrapper, "SELECT current_setting('app.trapped', true)") in ([("",)], [(None,)])


class TestReading:
    def test_it_is_read_by_one_thread(self, make, monkeypatch):
        wrapper = make(size=4, **PATH)
        read = []
        compare = PoolDefinitions._read

        def counted(self, pool, raw, tentative):
            before = self._signature
            compare(self, pool, raw, tentative)
            if self._signature != before:
                read.append(raw)

        monkeypatch.setattr(PoolDefinitions, "_read", counted)
        kept = []

        def work():
            copied = wrapper.copy()
            run(copied, "SELECT trap()")
            kept.append(copied._runner.lease.connection is not None)
            copied.close()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert kept == [True] * 8
        assert len(read) == 1

    def test_in_a_child(self, make):
        wrapper = make(**PATH)
        run(wrapper, "SELECT 1")

        def child():
            run(wrapper, "SELECT trap()")
            assert wrapper._runner.lease.connection is not None

        assert child_of(child) == 0

    def test_without_a_pool(self, make):
        wrapper = make(pool=False, **PATH)
        run(wrapper, "SELECT trap()")
        assert not wrapper._runner.effects.has_effects

    def test_definitions_that_cannot_be_judged(self, make, monkeypatch, caplog):
        monkeypatch.setattr("relet.core.catalogue.closure.may_set", None)
        wrapper = make(**PATH)
        run(wrapper, "SELECT trap()")
        assert wrapper._runner.lease.connection is not None
        assert "cannot be read: TypeError" in caplog.text

    def test_the_first_statement_is_in_a_transaction(self, make):
        wrapper = make(**PATH)
        with transaction_of(wrapper):
            run(wrapper, "SELECT trap()")
            assert wrapper._runner.lease.session is not None
        assert wrapper._runner.lease.connection is not None

    def test_an_error_in_a_transaction_does_not_abort_it(self, make, monkeypatch):
        wrapper = make(**PATH)
        run(wrapper, "SELECT 1")
        with transaction_of(wrapper):
            run(wrapper, "INSERT INTO plain VALUES (1)")
            wrapper._runner.effects.expire()
            monkeypatch.setattr(definitions, "SIGNATURE", "SELECT 1/0")
            run(wrapper, "INSERT INTO plain VALUES (2)")
        assert run(wrapper, "SELECT count(*) FROM plain") == [(2,)]


class TestDynamicSql:
    def test_it_pins(self, make, caplog):
        wrapper = make(**PATH)
        run(wrapper, "SELECT dynamic('SET lock_timeout = ''9s''')")
        assert wrapper._runner.lease.connection is not None
        assert "dynamic_sql" in caplog.text
        wrapper.close()
        assert run(wrapper, "SHOW lock_timeout") != [("9s",)]

    def test_it_is_never_refused(self, make):
        wrapper = make(policy={"session_state": "error"}, **PATH)
        run(wrapper, "SELECT dynamic('SELECT 1')")
        assert wrapper._runner.lease.connection is not None

    def test_ignored(self, make):
        wrapper = make(policy={"dynamic_sql": "ignore"}, **PATH)
        run(wrapper, "SELECT dynamic('SELECT 1')")
        assert at_rest(wrapper)

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT dynamic('SELECT 1')",
            "DECLARE c CURSOR FOR SELECT dynamic('SELECT 1')",
            "EXPLAIN ANALYZE SELECT dynamic('SELECT 1')",
            "CREATE TABLE dynamic_made AS SELECT 1 AS a FROM dynamic('SELECT 1')",
            "DO $$ BEGIN PERFORM dynamic('SELECT 1'); END $$",
            "DECLARE c CURSOR FOR SELECT query_to_xml(lower('SELECT 1'), true, true, '')",
        ],
    )
    @pytest.mark.parametrize("dynamic_sql", ["pin", "ignore"])
    @pytest.mark.parametrize("session_state", ["error", "reset", "pin"])
    def test_in_statements_of_all_kinds(self, make, sql, dynamic_sql, session_state):
        wrapper = make(policy={"dynamic_sql": dynamic_sql, "session_state": session_state}, **PATH)
        with transaction_of(wrapper):
            run(wrapper, "SAVEPOINT s")
            run(wrapper, sql)
            run(wrapper, "ROLLBACK TO s")
        pins = dynamic_sql == "pin" and session_state != "reset"
        assert at_rest(wrapper) == (not pins)

    @pytest.mark.parametrize("dynamic_sql", ["pin", "ignore"])
    @pytest.mark.parametrize("session_state", ["error", "reset", "pin"])
    def test_in_a_server_side_cursor(self, make, dynamic_sql, session_state):
        wrapper = make(policy={"dynamic_sql": dynamic_sql, "session_state": session_state}, **PATH)
        with transaction_of(wrapper), wrapper.chunked_cursor() as cursor:
            cursor.execute("SELECT dynamic('SELECT 1') FROM generate_series(1, 3)")
            assert len(cursor.fetchall()) == 3
        pins = dynamic_sql == "pin" and session_state != "reset"
        assert at_rest(wrapper) == (not pins)

    def test_in_a_prepared_statement(self, make):
        wrapper = make(policy={"dynamic_sql": "ignore"}, **PATH)
        run(wrapper, "PREPARE p AS SELECT dynamic('SELECT 1')")
        run(wrapper, "EXECUTE p")
        assert wrapper._runner.lease.connection is not None
        run(wrapper, "DEALLOCATE p")
        assert at_rest(wrapper)

    @needs("psycopg", "cursor.copy() and cursor.stream()")
    @pytest.mark.parametrize("session_state", ["error", "reset", "pin"])
    def test_in_a_transfer(self, make, session_state):
        policy = {"dynamic_sql": "ignore", "session_state": session_state}
        wrapper = make(policy=policy, **PATH)
        query = "SELECT dynamic('SELECT 1')"
        with wrapper.cursor() as cursor:
            with cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
                list(copy)
            list(cursor.stream(query))
        assert at_rest(wrapper)


class TestChanges:
    def test_this_process_defines_a_function(self, make):
        wrapper = make(**PATH)
        run(wrapper, "SELECT harmless('x')")
        run(
            wrapper,
            "CREATE OR REPLACE FUNCTION harmless(text) RETURNS void LANGUAGE sql AS "
            "$$ SELECT pg_advisory_lock(1) $$".replace("harmless(text)", "harmless(name text)"),
        )
        run(wrapper, "SELECT harmless('x')")
        assert wrapper._runner.lease.connection is not None
        wrapper.close()
        run(wrapper, "DROP FUNCTION harmless")
        run(
            wrapper,
            "CREATE FUNCTION harmless(text) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
        )
        run(wrapper, "SELECT harmless('x')")
        assert at_rest(wrapper)

    def test_in_a_transaction_that_commits(self, make):
        wrapper = make(size=2, **PATH)
        other = wrapper.copy()
        run(other, "INSERT INTO plain VALUES (1)")
        with transaction_of(wrapper):
            run(
                wrapper,
                "CREATE TRIGGER t AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION locking()",
            )
            run(wrapper, "INSERT INTO plain VALUES (2)")
            assert wrapper._runner.lease.session is not None
        wrapper.close()
        run(other, "INSERT INTO plain VALUES (3)")
        assert other._runner.lease.connection is not None
        other.close()

    def test_in_a_transaction_others_have_the_old_one(self, make):
        wrapper = make(size=2, **PATH)
        other = wrapper.copy()
        run(other, "SELECT 1")
        with transaction_of(wrapper):
            run(
                wrapper,
                "CREATE OR REPLACE FUNCTION trap() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
            )
            run(wrapper, "SELECT 2")
            run(other, "SELECT trap(), 1")
            assert other._runner.lease.connection is not None
            other.close()
        run(other, "SELECT trap(), 1")
        assert at_rest(other)

    def test_another_process_and_a_new_connection(self, make, observer):
        wrapper = make(size=2, **PATH)
        run(wrapper, "INSERT INTO plain VALUES (1)")
        observer.execute(
            f"CREATE TRIGGER t AFTER INSERT ON {SCHEMA}.plain FOR EACH ROW"
            f" EXECUTE FUNCTION {SCHEMA}.locking()"
        )
        with transaction_of(wrapper):
            run(wrapper, "SELECT 1")
            copied = wrapper.copy()
            with transaction_of(copied):
                run(copied, "SELECT 1")  # on a new connection, if the first is in use
        copied.close()
        wrapper.close()
        run(wrapper, "INSERT INTO plain VALUES (2)")
        assert wrapper._runner.lease.connection is not None

    def test_another_process_after_some_time(self, make, observer):
        wrapper = make(policy={"catalogue_ttl": 0}, **PATH)
        run(wrapper, "INSERT INTO plain VALUES (1)")
        observer.execute(
            f"CREATE TRIGGER t AFTER DELETE ON {SCHEMA}.plain FOR EACH ROW"
            f" EXECUTE FUNCTION {SCHEMA}.locking()"
        )

        def is_seen():
            wrapper.close()
            run(wrapper, "DELETE FROM plain WHERE false")
            return wrapper._runner.lease.connection is not None

        until(is_seen)

    def test_never_read(self, make):
        wrapper = make(policy={"catalogue_ttl": None}, **PATH)
        run(wrapper, "SELECT trap()")
        assert at_rest(wrapper)

    def test_a_policy_from_code(self, db):
        policies["default"] = {"catalogue_ttl": None}
        try:
            run(db, f"SELECT {SCHEMA}.trap()")
            assert at_rest(db)
            policies["default"] = {"catalogue_ttl": 60}
            run(db, "SELECT 1")
            run(db, f"SELECT {SCHEMA}.trap()")
            assert db._runner.lease.connection is not None
            db.close()
        finally:
            del policies["default"]
            pools.close_alias("default")

    def test_post_migrate(self, make):
        wrapper = make(**PATH)
        run(wrapper, "SELECT 1")
        assert not wrapper._runner.effects.stale
        post_migrate.send(sender=None, using="extra")
        assert wrapper._runner.effects.stale


class TestSearchPath:
    def test_what_is_not_in_it(self, make):
        wrapper = make()
        run(wrapper, "SELECT * FROM (VALUES (1)) AS trap (a)")
        assert at_rest(wrapper)

    def test_it_is_changed(self, make):
        wrapper = make()
        with transaction_of(wrapper):
            run(wrapper, f"SET LOCAL search_path = {SCHEMA}")
            run(wrapper, "SELECT trap()")
        assert wrapper._runner.lease.connection is not None

    def test_a_schema_that_is_first(self, make):
        path = {"OPTIONS": {"options": f"-c search_path={SCHEMA}_2"}}
        wrapper = make(**path)
        run(wrapper, "SELECT trap()")
        assert at_rest(wrapper)


class TestWithoutRights:
    def test_it_is_logged_once(self, make, observer, caplog):
        user = "relet_unprivileged"
        observer.execute(f"DROP ROLE IF EXISTS {user}")
        observer.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'secret'")
        observer.execute("REVOKE SELECT ON pg_catalog.pg_proc FROM PUBLIC")
        try:
            wrapper = make(USER=user, PASSWORD="secret", policy={"check_idle": 3600})
            for _ in range(3):
                run(wrapper, "SELECT 1")
                wrapper.close()
            messages = [record.getMessage() for record in caplog.records]
            assert len(messages) == 1
            assert "permission denied for table pg_proc" in messages[0]
            run(wrapper, "SET lock_timeout = '1s'")
            assert wrapper._runner.lease.connection is not None
            wrapper.close()
            pools.close_alias("extra")
        finally:
            observer.execute("GRANT SELECT ON pg_catalog.pg_proc TO PUBLIC")
            observer.execute(f"DROP ROLE {user}")


@driver.needs("psycopg2", "copy_from()")
def test_copy_from(make):
    wrapper = make(**PATH)
    with wrapper.cursor() as cursor:
        cursor.copy_from(io.StringIO("5\n"), "audited")
    assert wrapper._runner.lease.connection is not None


@driver.needs("psycopg", "cursor.copy()")
def test_copy(make):
    wrapper = make(**PATH)
    with wrapper.cursor() as cursor, cursor.copy("COPY audited FROM STDIN") as copy:
        copy.write("5\n")
    assert wrapper._runner.lease.connection is not None


@contextmanager
def transaction_of(wrapper):
    wrapper.set_autocommit(False)
    try:
        yield
        wrapper.commit()
    except BaseException:
        wrapper.rollback()
        raise
    finally:
        wrapper.set_autocommit(True)


def keeps(wrapper, sql):
    """Whether *sql* keeps its lease until close()."""
    run(wrapper, sql)
    kept = not at_rest(wrapper)
    wrapper.close()
    return kept


def trapped(wrapper):
    """What the next lease of the connection has of the setting of trap()."""
    ((found,),) = run(wrapper, "SELECT current_setting('app.trapped', true)")
    wrapper.close()
    return found


class TestWhenTheyAreRead:
    """Never in a way that keeps the caller's statement from what it would do by itself."""

    def test_whoever_locks_a_table_is_not_waited_for(self, make, observer, caplog):
        """The server locks what a function in standard SQL names, to show its text."""
        observer.execute(f"""
            CREATE FUNCTION {SCHEMA}.of_a_table() RETURNS bigint LANGUAGE sql
            BEGIN ATOMIC SELECT count(*) FROM {SCHEMA}.plain; END
        """)
        observer.execute("BEGIN")
        observer.execute(f"LOCK TABLE {SCHEMA}.plain IN ACCESS EXCLUSIVE MODE")
        wrapper = make(**PATH)
        try:
            run(wrapper, "SELECT trap()")
            assert not at_rest(wrapper)  # it may have left anything
            assert "cannot be read" in caplog.text
        finally:
            observer.execute("ROLLBACK")
        wrapper.close()
        assert trapped(wrapper) in (None, "")
        wrapper._runner.handle.pool.definitions._failed_at -= 60
        assert not keeps(wrapper, "SELECT 1 AS harmless")
        assert keeps(wrapper, "SELECT trap()")

    @pytest.mark.parametrize("in_transaction", [True, False])
    def test_a_thread_whose_server_does_not_answer_stops_no_other(
        self, make, monkeypatch, in_transaction
    ):
        """The other may have what it waits for, such as the only server of PgBouncer's."""
        wrapper = make(size=2, **PATH)
        run(wrapper, "SELECT 1")
        monkeypatch.setattr(definitions, "_OTHERS_S", 0.01)
        waits, answer = threading.Event(), threading.Event()
        read_signature = definitions.read_signature

        def unanswered(rows):
            if threading.current_thread() is thread:
                waits.set()
                assert answer.wait(60)
            return read_signature(rows)

        def read():
            other = wrapper.copy()
            run(other, "SELECT trap()")
            other.close()

        monkeypatch.setattr(definitions, "read_signature", unanswered)
        thread = threading.Thread(target=read)
        try:
            with transaction_of(wrapper) if in_transaction else nullcontext():
                run(wrapper, f"CREATE VIEW {SCHEMA}.harmless_view AS SELECT 1")
                thread.start()
                assert waits.wait(60)
                run(wrapper, "SELECT id FROM plain")
                assert thread.is_alive()
        finally:
            answer.set()
            thread.join(60)
        wrapper.close()
        # Who waited in vain reads them as soon as nobody else does.
        wrapper._runner.handle.pool.definitions.expire()
        assert not keeps(wrapper, "SELECT 1 AS harmless")
        assert keeps(wrapper, "SELECT trap()")

    def test_what_was_read_before_is_not_believed_then(self, make, observer):
        """A further connection sees that something has changed, and cannot read what."""
        wrapper = make(size=2, **PATH)
        other = wrapper.copy()
        run(wrapper, "SELECT harmless('x')")
        observer.execute(f"""
            CREATE FUNCTION {SCHEMA}.of_a_table() RETURNS bigint LANGUAGE sql
            BEGIN ATOMIC SELECT count(*) FROM {SCHEMA}.plain; END;
            CREATE OR REPLACE FUNCTION {SCHEMA}.harmless(name text) RETURNS void LANGUAGE sql AS
            $$ SELECT set_config('app.trapped', 'yes', false) $$
        """)
        observer.execute("BEGIN")
        observer.execute(f"LOCK TABLE {SCHEMA}.plain IN ACCESS EXCLUSIVE MODE")
        try:
            with transaction_of(wrapper):
                run(wrapper, "SELECT 1")
                run(other, "SELECT 1")
            run(other, "SELECT harmless('x')")
            assert other._runner.lease.connection is not None
        finally:
            observer.execute("ROLLBACK")
            other.close()
            wrapper.close()

    def test_an_interrupt_leaves_no_transaction(self, make, monkeypatch):
        def strike(*_):
            raise KeyboardInterrupt

        wrapper = make(**PATH)
        with monkeypatch.context() as patched:
            run(wrapper, "SELECT 1")
            run(wrapper, "CREATE VIEW harmless_view AS SELECT 1")
            patched.setattr(definitions, "read_sources", strike)
            with pytest.raises(KeyboardInterrupt):
                run(wrapper, "SELECT trap()")
        assert at_rest(wrapper)
        assert keeps(wrapper, "SELECT trap()")

    @pytest.mark.parametrize("when", ["before the savepoint", "in it", "after an error", "after"])
    def test_an_interrupt_leaves_the_callers_transaction_as_it_was(self, make, monkeypatch, when):
        wrapper = make(**PATH)
        run(wrapper, "SELECT 1")
        pool = wrapper._runner.handle.pool
        execute = pool.execute_internal

        def struck(raw, sql):
            savepoint = sql == "SAVEPOINT relet_definitions"
            leaves = sql == definitions._LEAVE
            if when == "before the savepoint" and savepoint:
                raise KeyboardInterrupt
            found = execute(raw, sql)
            if when == "in it" and savepoint:
                raise KeyboardInterrupt
            if when == "after an error" and savepoint:
                with pytest.raises(Exception, match="no_such"):
                    execute(raw, "SELECT no_such")
                raise KeyboardInterrupt
            if when == "after" and leaves:
                monkeypatch.undo()
                raise KeyboardInterrupt
            return found

        with transaction_of(wrapper):
            run(wrapper, f"CREATE TABLE {SCHEMA}.kept ()")
            run(wrapper, f"CREATE VIEW {SCHEMA}.harmless_view AS SELECT 1")
            monkeypatch.setattr(pool, "execute_internal", struck)
            with pytest.raises(KeyboardInterrupt):
                run(wrapper, "SELECT trap()")
            monkeypatch.undo()
            assert run(wrapper, "SHOW lock_timeout") == [("0",)]
            run(wrapper, f"SELECT FROM {SCHEMA}.kept")
            run(wrapper, "SAVEPOINT own")
            with pytest.raises(Exception, match='"relet_definitions" does not exist'):
                run(wrapper, "RELEASE SAVEPOINT relet_definitions")
            run(wrapper, "ROLLBACK TO own")
        run(wrapper, f"SELECT FROM {SCHEMA}.kept")

    def test_set_transaction_may_come_first(self, make):
        wrapper = make(**PATH)
        for beginning in "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "LOCK TABLE plain":
            run(
                wrapper,
                f"CREATE OR REPLACE FUNCTION {SCHEMA}.made() RETURNS int LANGUAGE sql RETURN 1",
            )
            with transaction_of(wrapper):
                run(wrapper, beginning)
                run(wrapper, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                run(wrapper, "SELECT 1")

    def test_so_it_may_while_others_define_something(self, make):
        wrapper = make(size=2, **PATH)
        other = wrapper.copy()
        other.set_autocommit(False)
        run(other, f"CREATE FUNCTION {SCHEMA}.made() RETURNS int LANGUAGE sql RETURN 1")
        try:
            with transaction_of(wrapper):
                run(wrapper, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                run(wrapper, "SET TRANSACTION READ ONLY")
        finally:
            other.rollback()
            other.close()

    def test_what_a_savepoint_had_is_not_believed(self, make):
        wrapper = make(**PATH)
        define = "CREATE OR REPLACE FUNCTION {}.made() RETURNS text LANGUAGE sql AS $$ SELECT {} $$"
        run(wrapper, "SELECT 1")
        with transaction_of(wrapper):
            run(wrapper, define.format(SCHEMA, "set_config('app.trapped', 'yes', false)"))
            run(wrapper, "SAVEPOINT before")
            run(wrapper, define.format(SCHEMA, "'harmless'"))
            run(wrapper, "SELECT made()")
            run(wrapper, "ROLLBACK TO before")
            run(wrapper, "SELECT made()")
        assert not at_rest(wrapper)
        wrapper.close()
        assert trapped(wrapper) in (None, "")

    def test_a_search_path_that_a_receiver_sets_on_the_drivers_connection(self, make):
        def receiver(connection, **kwargs):
            driver.execute(connection.connection, f"SET search_path = {SCHEMA}")

        connection_created.connect(receiver)
        try:
            wrapper = make()
            assert keeps(wrapper, "SELECT trap()")
        finally:
            connection_created.disconnect(receiver)

    def test_a_role_that_a_receiver_sets_on_the_drivers_connection(self, make, observer):
        """Its "$user" is another schema."""
        role = f"{SCHEMA}_role"

        def receiver(connection, **kwargs):
            driver.execute(connection.connection, f"SET ROLE {role}")

        observer.execute(f"CREATE ROLE {role}; CREATE SCHEMA {role} AUTHORIZATION {role}")
        connection_created.connect(receiver)
        try:
            observer.execute(f"""
                CREATE FUNCTION {role}.roles_trap() RETURNS text LANGUAGE sql AS
                $$ SELECT set_config('app.trapped', 'yes', false) $$
            """)
            assert keeps(make(), "SELECT roles_trap()")
        finally:
            connection_created.disconnect(receiver)
            observer.execute(f"DROP SCHEMA {role} CASCADE; DROP ROLE {role}")

    @pytest.mark.parametrize("first", ["SELECT 1", "SET TRANSACTION READ WRITE", "LOCK plain"])
    def test_they_are_read_once_for_all_transactions(self, make, monkeypatch, first):
        """Those of REPEATABLE READ see what there was when they began, which is what was read."""
        isolation = " -c default_transaction_isolation=repeatable\\ read"
        wrapper = make(OPTIONS={"options": PATH["OPTIONS"]["options"] + isolation})
        reads = []

        def counted(*arguments):
            reads.append(arguments)
            return read_sources(*arguments)

        read_sources = definitions.read_sources
        monkeypatch.setattr(definitions, "read_sources", counted)
        run(wrapper, "SELECT 1")
        run(wrapper, f"CREATE VIEW {SCHEMA}.harmless_view AS SELECT 1")
        assert len(reads) == 1
        for number in range(5):
            with transaction_of(wrapper):
                run(wrapper, first)
                run(wrapper, f"SELECT {number} FROM plain")
        assert len(reads) == 2


#: What checks the domain of a table's column.
OF_ROWS = [
    "SELECT '(1,a)'::member",
    "SELECT row(1, 'a')::member",
    """SELECT * FROM jsonb_populate_record(null::member, '{"id": 1, "mail": "a"}')""",
    "INSERT INTO staff VALUES ('(1,a)')",
    "SELECT mail_of('(1,a)')",
]


class TestRowTypes:
    @pytest.fixture
    def wrapper(self, make, observer):
        observer.execute(f"""
            SET search_path = {SCHEMA};
            CREATE FUNCTION checked(text) RETURNS bool LANGUAGE plpgsql AS $$
              BEGIN PERFORM {SCHEMA}.trap(); RETURN true; END $$;
            CREATE DOMAIN mail AS text CHECK (checked(VALUE));
            CREATE TABLE member (id int, mail mail);
            CREATE TABLE staff (boss member);
            CREATE FUNCTION mail_of(m member) RETURNS text LANGUAGE sql AS $$ SELECT m.mail $$;
            RESET search_path
        """)
        return make(**PATH)

    @pytest.mark.parametrize("sql", OF_ROWS)
    def test_of_tables(self, wrapper, sql):
        assert keeps(wrapper, sql)
        assert trapped(wrapper) in (None, "")
        assert not keeps(wrapper, "SELECT id FROM plain")

    @pytest.mark.parametrize(
        "made",
        ["SELECT * INTO made FROM member", "EXPLAIN ANALYZE CREATE TABLE made AS TABLE member"],
    )
    def test_of_tables_that_a_query_makes(self, wrapper, made):
        run(wrapper, "SELECT 1")
        run(wrapper, made)
        wrapper.close()
        assert keeps(wrapper, "INSERT INTO made VALUES (1, 'a')")
