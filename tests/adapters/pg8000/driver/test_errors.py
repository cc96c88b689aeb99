"""What goes wrong: which exception it is, what that says, and what is left of the connection."""

from __future__ import annotations

import copy
import io
import pickle
import re
import signal
import threading

import django.db
import pytest
from django.db import transaction

from relet import hold
from relet.adapters.pg8000 import dbapi, errors
from relet.core import TransactionStatus

from ....support.sessions import kill, pid_of, until_true

#: Statements, what Django raises for them, and their SQLSTATEs.
STATEMENTS = [
    ("INSERT INTO relet_child VALUES (1, 1, 1)", "IntegrityError", "23505"),
    ("INSERT INTO relet_child VALUES (2, NULL, 1)", "IntegrityError", "23502"),
    ("INSERT INTO relet_child VALUES (2, 1, -1)", "IntegrityError", "23514"),
    ("INSERT INTO relet_child VALUES (2, 1, 1, '[2,4)')", "IntegrityError", "23P01"),
    ("SELECT 1/0", "DataError", "22012"),
    ("SELECT 'x'::int", "DataError", "22P02"),
    ("SELECT 2147483647 + 1", "DataError", "22003"),
    ("SELECT '2020-02-30'::date", "DataError", "22008"),
    ("INSERT INTO relet_child (name) VALUES ('too long')", "DataError", "22001"),
    ("SELECT E'\\xff'", "DataError", "22021"),
    ("SET statement_timeout = 1; SELECT pg_sleep(60)", "OperationalError", "57014"),
    ("DO $$BEGIN RAISE USING ERRCODE = '40001'; END$$", "OperationalError", "40001"),
    ("DO $$BEGIN RAISE USING ERRCODE = '53200'; END$$", "OperationalError", "53200"),
    ("SELECT * FROM relet_none", "ProgrammingError", "42P01"),
    ("SELEC 1", "ProgrammingError", "42601"),
    ("CREATE TABLE relet_child ()", "ProgrammingError", "42P07"),
    ("DO $$BEGIN RAISE 'it''s wrong'; END$$", "ProgrammingError", "P0001"),
    ("SELECT DISTINCT id FROM relet_child FOR UPDATE", "NotSupportedError", "0A000"),
    ("VACUUM", "InternalError", "25001"),
    ("ROLLBACK TO SAVEPOINT nowhere", "OperationalError", "3B001"),
]


@pytest.fixture
def tables(db):
    with hold(db.alias), db.cursor() as cursor:
        cursor.execute(
            """CREATE TABLE relet_parent (id int PRIMARY KEY);
            CREATE TABLE relet_child (
                id int PRIMARY KEY,
                parent int NOT NULL REFERENCES relet_parent DEFERRABLE INITIALLY DEFERRED,
                size int CHECK (size > 0),
                during int4range,
                name varchar(3),
                EXCLUDE USING gist (during WITH &&)
            );
            INSERT INTO relet_parent VALUES (1);
            INSERT INTO relet_child VALUES (1, 1, 1, '[1,3)')"""
        )
    yield db
    with db.cursor() as cursor:
        cursor.execute("DROP TABLE relet_child, relet_parent")


def usable(raw, status=TransactionStatus.IDLE):
    """Whether it is as if nothing had been."""
    return (
        raw.transaction_status == status
        and not raw.closed
        and raw.cursor().execute("SELECT %s", ["it's"]).fetchall() == [("it's",)]
        and raw.transaction_status == status
    )


def lost(raw):
    """Whether it knows that it is."""
    return raw.closed and raw.transaction_status == TransactionStatus.UNKNOWN


class TestClasses:
    @pytest.mark.parametrize(("sql", "name", "sqlstate"), STATEMENTS)
    def test_in_django(self, tables, sql, name, sqlstate):
        kind = getattr(django.db, name)
        # In a transaction, and out of one.
        with pytest.raises(kind) as inside, transaction.atomic(using=tables.alias):
            tables.cursor().execute(sql)
        assert type(inside.value) is kind
        cause = inside.value.__cause__
        assert type(cause) is getattr(dbapi, name)
        assert cause.sqlstate == cause.diag.sqlstate == sqlstate
        with tables.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]

    def test_in_a_transaction_that_has_failed(self, db):
        with transaction.atomic(using=db.alias), db.cursor() as cursor:
            with pytest.raises(django.db.DataError):
                cursor.execute("SELECT 1/0")
            with pytest.raises(django.db.InternalError, match="transaction is aborted"):
                cursor.execute("SELECT 1")
            transaction.set_rollback(True, using=db.alias)

    def test_deferred_until_the_commit(self, tables):
        commit = pytest.raises(django.db.IntegrityError, match="foreign key")
        with commit as caught, transaction.atomic(using=tables.alias), tables.cursor() as cursor:
            cursor.execute("INSERT INTO relet_child VALUES (2, 7, 1)")
        assert caught.value.__cause__.sqlstate == "23503"
        with tables.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM relet_child")
            assert cursor.fetchone() == (1,)

    def test_all_that_psycopg_knows(self):
        theirs = pytest.importorskip("psycopg.errors")
        names = {
            *("DataError", "IntegrityError", "InternalError", "NotSupportedError"),
            *("OperationalError", "ProgrammingError"),
        }

        def name(kind):
            return next((base.__name__ for base in kind.__mro__ if base.__name__ in names), None)

        # They are there by their names, too.
        codes = [code for code in theirs._sqlcodes if re.fullmatch(r"[0-9A-Z]{5}", code)]
        assert len(codes) > 200
        assert not {
            code: name(theirs.lookup(code))
            for code in codes
            if name(theirs.lookup(code)) != name(errors.error_class(code))
        }

    def test_a_database_that_exists(self, raw):
        with pytest.raises(dbapi.DuplicateDatabase):
            raw.run("CREATE DATABASE postgres")


MESSAGES = [
    "SELECT nonexistent",
    "SELECT 1\r\nFROM pg_class AS c\n\t, c WHERE\n\n c.oid = 1",
    "SELEC",
    "SELECT '\u65e5\u672c\u8a9e', nonexistent",
    f"SELECT '{'x' * 100}', nonexistent, '{'x' * 100}'",
    f"SELECT nonexistent, '{'x' * 100}'",
    f"SELECT '{'x' * 42}', nonexistent, '{'x' * 100}'",
    f"SELECT '{'x' * 100}', nonexistent",
    "SELECT relnam FROM pg_class",
    "DO $$BEGIN EXECUTE 'SELECT nonexistent'; END$$",
    "DO $$BEGIN RAISE 'wrong' USING DETAIL = 'a detail', HINT = 'a hint'; END$$",
]


class TestMessages:
    @pytest.mark.parametrize("sql", MESSAGES)
    def test_as_psycopg_has_them(self, raw, server_uri, sql):
        psycopg = pytest.importorskip("psycopg")
        with pytest.raises(dbapi.Error) as ours:
            raw.run(sql)
        with psycopg.connect(server_uri) as other, pytest.raises(psycopg.Error) as theirs:
            other.execute(sql)
        assert str(ours.value) == str(theirs.value)
        for name in errors._FIELDS:
            assert getattr(ours.value.diag, name) == getattr(theirs.value.diag, name), name

    def test_the_place(self, raw):
        with pytest.raises(dbapi.ProgrammingError) as caught:
            raw.cursor().execute("SELECT %s\nFROM nowhere", ["x"])
        assert str(caught.value) == (
            'relation "nowhere" does not exist\nLINE 2: FROM nowhere\n             ^'
        )

    def test_detail_and_hint(self, tables):
        with pytest.raises(django.db.IntegrityError, match=r"DETAIL:  Key .id.=.1. already exists"):
            tables.cursor().execute("INSERT INTO relet_child VALUES (1, 1, 1)")
        with pytest.raises(django.db.ProgrammingError, match="\nHINT:  No function matches"):
            tables.cursor().execute("SELECT lower(1, 2)")

    def test_diag(self, tables):
        with pytest.raises(django.db.IntegrityError) as caught:
            tables.cursor().execute("INSERT INTO relet_child VALUES (2, 1, -1)")
        diag = caught.value.__cause__.diag
        assert (diag.severity, diag.table_name) == ("ERROR", "relet_child")
        assert diag.constraint_name == "relet_child_size_check"
        assert diag.message_hint is None
        with pytest.raises(AttributeError):
            diag.nonsense  # noqa: B018

    def test_a_long_line_is_cut(self, raw):
        rows = ", ".join(["(1)"] * 200_000)
        with pytest.raises(dbapi.ProgrammingError) as caught:
            raw.run(f"INSERT INTO relet_none VALUES {rows}")
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
    def test_a_copy(self, raw, again):
        with pytest.raises(dbapi.DataError) as caught:
            raw.run("SELECT 1/0")
        error = again(caught.value)
        assert type(error) is dbapi.DataError
        assert str(error) == "division by zero"
        assert (error.sqlstate, error.diag.message_primary) == ("22012", "division by zero")
        assert isinstance(pickle.loads(pickle.dumps(dbapi.DuplicateDatabase())), dbapi.Error)


@pytest.fixture
def interrupt():
    """Raise KeyboardInterrupt in the main thread, or call something, on SIGALRM."""
    before = signal.getsignal(signal.SIGALRM)
    threads = []

    def handle(number, frame):
        raise KeyboardInterrupt

    def interrupt(when, then=handle):
        signal.signal(signal.SIGALRM, then)

        def run():
            when()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

        threads.append(threading.Thread(target=run))
        threads[0].start()

    yield interrupt
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGALRM, before)


def sleeping(number):
    return (
        "EXISTS (SELECT FROM pg_stat_activity "
        f"WHERE pid = {number} AND wait_event = 'PgSleep' AND state = 'active')"
    )


class TestLost:
    def test_through_django(self, db, admin):
        with db.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (number,) = cursor.fetchone()
        kill(admin, number)
        with pytest.raises(django.db.OperationalError) as caught, db.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert caught.value.__cause__.sqlstate == "57P01"
        assert db._runner.find_pool().pool.stats().in_use == 0
        with db.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            assert cursor.fetchone() != (number,)

    def test_in_a_transaction(self, db, admin):
        block = transaction.atomic(using=db.alias)
        with pytest.raises(django.db.OperationalError), block, db.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            kill(admin, *cursor.fetchone())
            cursor.execute("SELECT 1")
        with db.cursor() as cursor:
            cursor.execute("SELECT 1")

    def test_between_statements(self, raw, admin):
        kill(admin, pid_of(raw))
        with pytest.raises(dbapi.OperationalError, match="terminating connection") as caught:
            raw.run("SELECT 1")
        assert caught.value.sqlstate == "57P01"
        assert lost(raw)
        with pytest.raises(dbapi.OperationalError, match="the connection is closed"):
            raw.run("SELECT 1")
        raw.close()

    def test_in_the_middle_of_one(self, raw, admin, connect):
        number, other = pid_of(raw), connect()

        def run():
            until_true(admin, sleeping(number))
            kill(other, number)

        thread = threading.Thread(target=run)
        thread.start()
        with pytest.raises(dbapi.OperationalError, match="terminating connection"):
            raw.run("SELECT pg_sleep(60)")
        thread.join()
        assert lost(raw)

    def test_with_other_things_to_say(self, raw, admin):
        raw.run("LISTEN here")
        admin.run("NOTIFY here, 'first'")
        kill(admin, pid_of(raw))
        with pytest.raises(dbapi.OperationalError, match="terminating connection"):
            raw.run("SELECT 1")
        assert [notify.payload for notify in raw.notifies] == ["first"]

    def test_who_polls_is_told(self, raw, admin):
        raw.run("LISTEN here")
        admin.run("NOTIFY here, 'first'")
        kill(admin, pid_of(raw))
        with pytest.raises(dbapi.OperationalError, match="terminating connection") as caught:
            while True:
                raw.poll()
        assert caught.value.sqlstate == "57P01"
        assert lost(raw)
        assert [notify.payload for notify in raw.notifies] == ["first"]

    @pytest.mark.parametrize("kind", [b"T", b"D", b"C", b"Z"])
    def test_in_the_middle_of_an_answer(self, connect, wire, kind):
        raw = connect(**wire.place)
        wire.cut_in = kind
        with pytest.raises(dbapi.OperationalError, match="the connection is lost: the server clos"):
            raw.run("SELECT repeat('x', 100000) FROM generate_series(1, 100)")
        assert lost(raw)

    def test_with_data_that_nobody_reads(self, connect, wire):
        """So that what is sent meets an error, and not what is read."""
        raw = connect(**wire.place)
        wire.sessions[0].cut()
        for thread in wire.sessions[0].threads:
            thread.join()
        with pytest.raises(dbapi.OperationalError, match="the connection is lost"):
            raw.run(f"SELECT '{'x' * 10_000_000}'")
        assert lost(raw)

    def test_a_timeout_in_the_middle(self, connect, admin):
        raw = connect(timeout=0.2)
        number = pid_of(raw)
        with pytest.raises(dbapi.OperationalError, match="the connection is lost: timed out"):
            raw.run("SELECT pg_sleep(60)")
        assert lost(raw)
        kill(admin, number)

    def test_an_interrupt(self, raw, admin, interrupt):
        number = pid_of(raw)
        interrupt(lambda: until_true(admin, sleeping(number)))
        with pytest.raises(KeyboardInterrupt):
            raw.run("SELECT pg_sleep(60)")
        assert lost(raw)
        kill(admin, number)

    def test_an_interrupt_while_a_statement_is_sent(self, connect, wire, interrupt):
        raw = connect(**wire.place)
        wire.stalled = threading.Event()
        interrupt(wire.stalled.wait)
        with pytest.raises(KeyboardInterrupt):
            raw.run(f"SELECT '{'x' * 50_000_000}'")
        # What tells the server that it is closed does not wait either.
        assert lost(raw)

    def test_a_signal_that_interrupts_nothing(self, raw, admin, interrupt):
        number = pid_of(raw)
        admin.run("SELECT pg_advisory_lock(7)")
        waiting = f"EXISTS (SELECT FROM pg_locks WHERE pid = {number} AND NOT granted)"
        handled = []
        interrupt(
            lambda: until_true(admin, waiting),
            lambda *args: (handled.append(True), admin.run("SELECT pg_advisory_unlock(7)")),
        )
        assert raw.run("SELECT 1 FROM pg_advisory_lock(7)") == [(1,)]
        assert handled
        assert usable(raw)

    def test_a_signal_whose_handler_closes_it(self, raw, admin, interrupt):
        number = pid_of(raw)
        interrupt(lambda: until_true(admin, sleeping(number)), lambda *args: raw.close())
        with pytest.raises(dbapi.OperationalError, match=r"lost|closed"):
            raw.run("SELECT pg_sleep(60)")
        assert lost(raw)
        kill(admin, number)

    def test_a_message_that_is_none(self, connect, wire):
        raw = connect(**wire.place)
        wire.sessions[0].client.sendall(b"?\0\0\0\4")
        with pytest.raises(dbapi.InterfaceError, match=r"a message of kind '\?'"):
            raw.run("SELECT 1")
        assert lost(raw)


class TestStillUsable:
    """It is not the connection that has failed."""

    @pytest.mark.parametrize("status", [TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION])
    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT 'infinity'::date FROM generate_series(1, 1000)",
            "SELECT 1; SELECT '-infinity'::timestamptz; SELECT 2",
            "SELECT repeat('x', 100000), '10000-01-01'::date FROM generate_series(1, 20)",
        ],
    )
    def test_what_python_does_not_have(self, raw, sql, status):
        raw.autocommit = status == TransactionStatus.IDLE
        cursor = raw.cursor()
        cursor.execute("SELECT 1")
        with pytest.raises(dbapi.DataError, match="Python cannot represent it"):
            cursor.execute(sql)
        assert cursor.description is None
        assert usable(raw, status)

    @pytest.mark.parametrize(
        ("sql", "values", "kind"),
        [
            ("SELECT %s", ["\0"], dbapi.DataError),
            ("SELECT %s", [object()], dbapi.ProgrammingError),
            ("SELECT %s", [], dbapi.ProgrammingError),
            ("SELECT %s, %(a)s", [1], dbapi.ProgrammingError),
            ("SELECT %x", [1], dbapi.ProgrammingError),
            ("SELECT %(a)s", {}, dbapi.ProgrammingError),
            ("SELECT %s", 7, TypeError),
            ("SELECT '\0'", None, dbapi.ProgrammingError),
            ("SELECT %s", ["\ud800"], UnicodeEncodeError),
            (7, None, TypeError),
        ],
    )
    @pytest.mark.parametrize("autocommit", [True, False])
    def test_what_cannot_be_composed(self, raw, sql, values, kind, autocommit):
        raw.autocommit = autocommit
        with pytest.raises(kind):
            raw.cursor().execute(sql, values)
        raw.rollback()
        raw.autocommit = True
        assert usable(raw)

    def test_through_django(self, db):
        with hold(db.alias), db.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            before = cursor.fetchone()
            with pytest.raises(django.db.DataError):
                cursor.execute("SELECT 'infinity'::date")
            with pytest.raises(django.db.DataError):
                cursor.execute("SELECT %s", ["\0"])
            cursor.execute("SELECT pg_backend_pid()")
            assert cursor.fetchone() == before


class Failing(io.RawIOBase):
    """A file that fails after a while."""

    def __init__(self, error, after=1, piece=b"1\n"):
        self.error, self.left, self.piece = error, after, piece

    def read(self, size=-1):
        if not self.left:
            raise self.error
        self.left -= 1
        return self.piece

    def write(self, data):
        self.read()


FAILURES = [
    ValueError("it's\0full"),
    OSError("disk"),
    BrokenPipeError("pipe"),
    dbapi.DataError("x"),
]


@pytest.fixture
def copied(raw):
    raw.run("CREATE TEMP TABLE t (line text)")
    return raw.cursor()


class TestCopies:
    @pytest.mark.parametrize(
        "file",
        [lambda: io.BytesIO(b"a\nit's \xe2\x82\xac\n"), lambda: io.StringIO("a\nit's \u20ac\n")],
    )
    def test_in_and_out(self, copied, file):
        copied.copy_expert("COPY t FROM STDIN", file())
        assert copied.rowcount == 2
        assert copied.statusmessage == "COPY 2"
        copied.execute("SELECT * FROM t")
        assert copied.fetchall() == [("a",), ("it's \u20ac",)]
        written = type(file())()
        copied.copy_expert("COPY t TO STDOUT", written)
        assert copied.rowcount == 2
        assert written.getvalue() == file().getvalue()

    def test_binary(self, copied):
        copied.execute("INSERT INTO t VALUES ('\u20ac')")
        file = io.BytesIO()
        copied.copy_expert("COPY t TO STDOUT (FORMAT binary)", file)
        file.seek(0)
        copied.copy_expert("COPY t FROM STDIN (FORMAT binary)", file)
        copied.execute("SELECT * FROM t")
        assert copied.fetchall() == [("\u20ac",)] * 2

    def test_of_nothing(self, copied):
        copied.copy_expert("COPY t FROM STDIN", io.BytesIO())
        assert copied.rowcount == 0
        assert usable(copied.connection)

    def test_much(self, copied):
        copied.copy_expert(
            "COPY t FROM STDIN", io.BytesIO(b"x" * 99 + b"\n" * 1 + (b"y\n" * 500_000))
        )
        file = io.BytesIO()
        copied.copy_expert("COPY t TO STDOUT", file)
        assert len(file.getvalue()) == 1_000_100

    @pytest.mark.parametrize("after", [0, 1, 5])
    @pytest.mark.parametrize("error", FAILURES)
    def test_a_file_that_cannot_be_read(self, copied, error, after):
        with pytest.raises(type(error)) as caught:
            copied.copy_expert("COPY t FROM STDIN", Failing(error, after))
        assert caught.value is error
        assert usable(copied.connection)
        assert copied.connection.run("SELECT count(*) FROM t") == [(0,)]

    @pytest.mark.parametrize("after", [0, 1, 5])
    @pytest.mark.parametrize("error", FAILURES)
    def test_a_file_that_cannot_be_written(self, copied, error, after):
        copied.execute("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        with pytest.raises(type(error)) as caught:
            copied.copy_expert("COPY t TO STDOUT", Failing(error, after))
        assert caught.value is error
        assert usable(copied.connection)

    def test_in_a_transaction(self, copied):
        raw = copied.connection
        raw.autocommit = False
        with pytest.raises(OSError, match="disk"):
            copied.copy_expert("COPY t FROM STDIN", Failing(OSError("disk")))
        assert raw.transaction_status == TransactionStatus.IN_ERROR
        raw.rollback()
        assert usable(raw, TransactionStatus.IDLE) is False  # it begins one
        raw.rollback()

    def test_what_the_server_does_not_take(self, copied):
        copied.execute("CREATE TEMP TABLE n (n int)")
        with pytest.raises(
            dbapi.DataError, match=r"invalid input syntax.*\nCONTEXT:  COPY n, line 2"
        ):
            copied.copy_expert("COPY n FROM STDIN", io.BytesIO(b"1\nx\n" + b"2\n" * 100_000))
        assert usable(copied.connection)

    def test_text_that_cannot_be_encoded(self, copied):
        with pytest.raises(UnicodeEncodeError):
            copied.copy_expert("COPY t FROM STDIN", io.StringIO("\ud800"))
        assert usable(copied.connection)

    @pytest.mark.parametrize("sql", ["COPY t FROM STDIN", "COPY t TO STDOUT"])
    def test_without_a_file(self, copied, sql):
        copied.execute("INSERT INTO t VALUES ('x'), ('y')")
        with pytest.raises(dbapi.ProgrammingError, match=r"a file to .*: use copy_expert\(\)"):
            copied.execute(sql)
        assert usable(copied.connection)

    def test_an_interrupt(self, copied):
        with pytest.raises(KeyboardInterrupt):
            copied.copy_expert("COPY t FROM STDIN", Failing(KeyboardInterrupt()))
        assert lost(copied.connection)

    @pytest.mark.parametrize("what", ["run", "poll", "close"])
    @pytest.mark.parametrize("sql", ["COPY t TO STDOUT", "COPY t FROM STDIN"])
    def test_a_file_that_uses_the_connection(self, copied, sql, what):
        raw = copied.connection

        class File(io.RawIOBase):
            def read(self, size=-1):
                {"run": lambda: raw.run("SELECT 1"), "poll": raw.poll, "close": raw.close}[what]()
                return b""

            write = read

        copied.execute("INSERT INTO t VALUES ('x')")
        if what == "close":
            with pytest.raises(dbapi.OperationalError, match="the connection is closed"):
                copied.copy_expert(sql, File())
            assert lost(raw)
        else:
            with pytest.raises(dbapi.ProgrammingError, match="already running a statement"):
                copied.copy_expert(sql, File())
            assert usable(raw)

    def test_a_server_that_is_gone_meanwhile(self, copied, admin):
        raw = copied.connection
        number = pid_of(raw)

        class File(io.RawIOBase):
            def read(self, size=-1):
                kill(admin, number)
                return b"x\n" * 10_000

        with pytest.raises(dbapi.OperationalError, match=r"terminating connection|lost"):
            copied.copy_expert("COPY t FROM STDIN", File())
        assert lost(raw)

    def test_a_server_that_has_much_to_say(self, connect):
        """It does not read on until somebody has listened."""
        raw = connect(timeout=30)
        raw.run(
            """CREATE TEMP TABLE t (line text);
            CREATE FUNCTION pg_temp.say() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE NOTICE '%', NEW.line; RETURN NEW; END$$;
            CREATE TRIGGER say BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.say()"""
        )
        lines = f"{'x' * 1000}\n" * 5000
        raw.cursor().copy_expert("COPY t FROM STDIN", io.StringIO(lines))
        assert raw.run("SELECT count(*) FROM t") == [(5000,)]
        assert {notice.message_primary for notice in raw.notices} == {"x" * 1000}


class TestThreads:
    def test_they_take_turns(self, raw):
        wrong = []

        def run(number):
            cursor = raw.cursor()
            for step in range(50):
                cursor.execute("SELECT %s, repeat('x', %s)", [number, step * 100])
                if cursor.fetchall() != [(number, "x" * step * 100)]:
                    wrong.append(number)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert usable(raw)

    def waits(self, raw, admin, first, second):
        """Run *second* in a thread while *first* waits for a lock of *admin*'s."""
        number = pid_of(raw)
        admin.run("SELECT pg_advisory_lock(7)")
        here = threading.Event()

        def follow():
            here.set()
            second()

        threads = [threading.Thread(target=first), threading.Thread(target=follow)]
        threads[0].start()
        waiting = f"EXISTS (SELECT FROM pg_locks WHERE pid = {number} AND NOT granted)"
        until_true(admin, waiting)
        threads[1].start()
        here.wait()
        admin.run("SELECT pg_advisory_unlock(7)")
        for thread in threads:
            thread.join()

    def test_one_waits_for_the_others_statement(self, raw, admin):
        found = []
        self.waits(
            *(raw, admin, lambda: found.append(raw.run("SELECT 1 FROM pg_advisory_lock(7)"))),
            lambda: found.append(raw.run("SELECT 2")),
        )
        assert found == [[(1,)], [(2,)]]

    def test_one_waits_for_the_others_commit(self, raw, admin):
        """Else its statement would be in no transaction."""
        raw.autocommit = False
        raw.cursor().execute("SELECT 1")
        self.waits(
            *(raw, admin, lambda: raw.run("SELECT pg_advisory_lock(7); COMMIT")),
            lambda: raw.cursor().execute("SELECT 2"),
        )
        assert raw.transaction_status == TransactionStatus.IN_TRANSACTION
        raw.rollback()
