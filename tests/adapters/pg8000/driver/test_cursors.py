"""Cursors, as PEP 249 has them, and connections between statements."""

from __future__ import annotations

import datetime
import io
import select
import socket
import tempfile
import threading
import time

import pg8000.dbapi
import pytest

from relet.adapters.pg8000 import dbapi
from relet.core import TransactionStatus

from ....support.sessions import kill, pid_of

NUMBERS = "SELECT generate_series(1, 5)"


@pytest.fixture
def cursor(raw):
    return raw.cursor()


@pytest.fixture
def begun(connect):
    """A connection that is in a transaction."""
    raw = connect()
    raw.autocommit = False
    raw.begin()
    return raw


class TestFetching:
    def test_one_by_one(self, cursor):
        cursor.execute("SELECT generate_series(1, 2), 'x'")
        assert [cursor.fetchone() for _ in range(4)] == [(1, "x"), (2, "x"), None, None]

    def test_many(self, cursor):
        cursor.execute(NUMBERS)
        assert cursor.fetchmany() == [(1,)]
        assert cursor.fetchmany(2) == [(2,), (3,)]
        cursor.arraysize = 10
        assert cursor.fetchmany() == [(4,), (5,)]
        assert cursor.fetchmany() == []

    def test_all(self, cursor):
        cursor.execute(NUMBERS)
        cursor.fetchone()
        assert cursor.fetchall() == [(2,), (3,), (4,), (5,)]
        assert cursor.fetchall() == []

    def test_iteration(self, cursor):
        cursor.execute(NUMBERS)
        cursor.fetchone()
        assert list(cursor) == [(2,), (3,), (4,), (5,)]
        assert list(cursor) == []

    def test_scroll(self, cursor):
        cursor.execute(NUMBERS)
        cursor.scroll(3)
        assert (cursor.rownumber, cursor.fetchone()) == (3, (4,))
        cursor.scroll(-2)
        assert cursor.fetchone() == (3,)
        cursor.scroll(0, mode="absolute")
        assert cursor.fetchone() == (1,)
        for value, mode in (-2, "relative"), (5, "relative"), (-1, "absolute"), (5, "absolute"):
            with pytest.raises(IndexError):
                cursor.scroll(value, mode)
        assert cursor.fetchone() == (2,)
        with pytest.raises(ValueError, match="mode is 'up'"):
            cursor.scroll(1, "up")

    @pytest.mark.parametrize("sql", [None, "", "SET search_path = public", "-- nothing"])
    def test_no_result(self, cursor, sql):
        if sql is not None:
            cursor.execute(sql)
        assert (cursor.description, cursor.rownumber, cursor.nextset()) == (None, None, None)
        assert cursor.rowcount == -1
        for fetch in cursor.fetchone, cursor.fetchmany, cursor.fetchall, lambda: list(cursor):
            with pytest.raises(dbapi.ProgrammingError, match="no result available"):
                fetch()

    def test_rows_without_columns(self, cursor):
        cursor.execute("SELECT FROM generate_series(1, 2)")
        assert (cursor.description, cursor.rowcount) == ([], 2)
        assert cursor.fetchall() == [(), ()]

    def test_what_failed_left_no_result(self, cursor):
        cursor.execute(NUMBERS)
        with pytest.raises(dbapi.Error):
            cursor.execute("SELECT 1/0")
        assert cursor.description is None
        with pytest.raises(dbapi.ProgrammingError):
            cursor.fetchone()


class TestStatements:
    @pytest.mark.parametrize(
        ("sql", "count", "tag"),
        [
            (NUMBERS, 5, "SELECT 5"),
            ("SELECT 1 WHERE false", 0, "SELECT 0"),
            ("CREATE TEMP TABLE other ()", -1, "CREATE TABLE"),
            ("INSERT INTO t VALUES (7), (8)", 2, "INSERT 0 2"),
            ("UPDATE t SET n = 0", 3, "UPDATE 3"),
            ("DELETE FROM t WHERE n > 2", 1, "DELETE 1"),
            ("DELETE FROM t RETURNING n", 3, "DELETE 3"),
            ("VALUES (1)", 1, "SELECT 1"),
            ("SHOW search_path", 1, "SHOW"),
            ("EXPLAIN (COSTS off) SELECT 1 LIMIT 1", 2, "EXPLAIN"),
            ("INSERT INTO t VALUES (7), (8) RETURNING n", 2, "INSERT 0 2"),
            ("DELETE FROM t WHERE false RETURNING n", 0, "DELETE 0"),
            ("BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH ALL c", -1, "BEGIN"),
            ("CREATE TEMP TABLE s AS SELECT 1", 1, "SELECT 1"),
            ("", -1, None),
        ],
    )
    def test_rowcount(self, cursor, sql, count, tag):
        cursor.execute("CREATE TEMP TABLE t AS SELECT generate_series(1, 3) AS n")
        cursor.execute(sql)
        assert (cursor.rowcount, cursor.statusmessage) == (count, tag)

    @pytest.mark.parametrize(
        "sql",
        [
            *("SHOW ALL", "SHOW search_path", "EXPLAIN SELECT 1 LIMIT 1", "VALUES (1), (2)"),
            *(
                "EXPLAIN (FORMAT json) SELECT 1",
                "SELECT FROM generate_series(1, 3)",
                "",
                "SELECT 1",
            ),
            *("CREATE TEMP TABLE relet_counted AS SELECT 1", "SET search_path = public", "BEGIN"),
        ],
    )
    def test_rowcount_is_psycopgs(self, cursor, server_uri, sql):
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(server_uri, autocommit=True) as other:
            assert cursor.execute(sql).rowcount == other.execute(sql).rowcount

    def test_execute_returns_the_cursor(self, cursor):
        assert cursor.execute("SELECT 1") is cursor

    def test_description(self, cursor):
        cursor.execute(
            "SELECT 1 AS a, 'x'::varchar(7) AS \"it's\", 1::numeric(6, 2) AS c, now()::timestamp(3)"
        )
        a, b, c, d = cursor.description
        assert [column.name for column in (a, b, c, d)] == ["a", "it's", "c", "now"]
        assert tuple(a) == ("a", 23, None, 4, None, None, None)
        assert (b.type_code, b.display_size) == (1043, 7)
        assert (c.precision, c.scale) == (6, 2)
        assert d.precision == 3
        assert a.type_code == dbapi.NUMBER
        assert b.type_code == dbapi.STRING
        assert d.type_code == dbapi.DATETIME

    def test_description_of_arrays(self, cursor):
        cursor.execute(
            "SELECT '{1}'::numeric(6, 2)[], '{x}'::varchar(7)[], '{1}'::bit(3)[],"
            " ARRAY[now()::timestamp(3)], '{1 s}'::interval(2)[]"
        )
        numeric, text, bits, time, interval = cursor.description
        assert (numeric.precision, numeric.scale) == (6, 2)
        assert (text.display_size, bits.display_size) == (7, 3)
        assert (time.precision, interval.precision) == (3, 2)

    def test_several(self, cursor):
        cursor.execute("SELECT 1 AS a; SET search_path = public; SELECT 2 AS b UNION SELECT 3;")
        assert cursor.fetchall() == [(1,)]
        assert cursor.nextset() is True
        assert (cursor.description, cursor.statusmessage) == (None, "SET")
        assert cursor.nextset() is True
        assert [column.name for column in cursor.description] == ["b"]
        assert cursor.rowcount == 2
        assert sorted(cursor) == [(2,), (3,)]
        assert cursor.nextset() is None

    def test_several_of_which_one_fails(self, cursor):
        with pytest.raises(dbapi.DataError):
            cursor.execute("CREATE TEMP TABLE t (); SELECT 1/0; SELECT 2")
        cursor.execute("SELECT to_regclass('t')::text")
        assert cursor.fetchall() == [(None,)]

    def test_executemany(self, cursor):
        cursor.execute("CREATE TEMP TABLE t (n int, s text)")
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(1, "a"), [2, None], (3, "c")])
        assert cursor.rowcount == 3
        cursor.executemany(
            "UPDATE t SET s = %(s)s WHERE n >= %(n)s", ({"s": n, "n": n} for n in (2, 3))
        )
        assert cursor.rowcount == 3
        cursor.execute("SELECT * FROM t ORDER BY n")
        assert cursor.fetchall() == [(1, "a"), (2, "2"), (3, "3")]

    def test_executemany_has_no_rows(self, cursor):
        cursor.executemany("SELECT %s", [(1,), (2,)])
        assert (cursor.description, cursor.rowcount, cursor.nextset()) == (None, 2, None)
        assert cursor.statusmessage == "SELECT 1"
        with pytest.raises(dbapi.ProgrammingError, match="no result available"):
            cursor.fetchall()

    def test_callproc(self, cursor):
        assert cursor.callproc("concat", ["it's", 1]) == ["it's", 1]
        assert cursor.fetchall() == [("it's1",)]
        assert cursor.callproc("pi") is None
        assert cursor.description[0].name == "pi"
        with pytest.raises(dbapi.ProgrammingError, match='"pi; SELECT"'):
            cursor.callproc("pi; SELECT")

    def test_what_was_sent(self, cursor):
        assert cursor.query is None
        cursor.execute("SELECT %s", ["\u20ac"])
        assert cursor.query == "SELECT '\u20ac'".encode()
        assert cursor._query.query == cursor.query
        assert cursor.mogrify("SELECT %s", [1]) == "SELECT 1"

    def test_bytes(self, cursor):
        assert cursor.execute("SELECT '\u20ac'".encode()).fetchall() == [("\u20ac",)]

    def test_sizes_mean_nothing(self, cursor):
        cursor.setinputsizes([1])
        cursor.setoutputsize(1)
        cursor.setoutputsize(1, 1)


class TestClosed:
    def test_a_cursor(self, raw):
        with raw.cursor() as cursor:
            cursor.execute(NUMBERS)
            assert not cursor.closed
        assert cursor.closed
        cursor.close()
        for use in (
            *(cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.nextset),
            lambda: cursor.execute("SELECT 1"),
            lambda: cursor.executemany("SELECT %s", [[1]]),
            lambda: cursor.callproc("pi"),
            lambda: cursor.scroll(1),
            lambda: list(cursor),
        ):
            with pytest.raises(dbapi.InterfaceError, match="the cursor is closed"):
                use()

    def test_a_connection(self, connect):
        raw = connect()
        cursor = raw.cursor()
        cursor.execute(NUMBERS)
        raw.close()
        raw.close()
        assert raw.closed
        assert raw.transaction_status == TransactionStatus.UNKNOWN
        assert cursor.fetchone() == (1,)  # it is here already
        for use in (
            *(raw.cursor, raw.commit, raw.rollback, raw.poll, raw.fileno),
            lambda: cursor.execute("SELECT 1"),
            lambda: setattr(raw, "autocommit", False),
            lambda: raw.run("SELECT 1"),
        ):
            with pytest.raises(dbapi.OperationalError, match="the connection is closed"):
                use()
        cursor.close()

    def test_what_was_begun_is_undone(self, connect, admin):
        with connect() as raw:
            raw.autocommit = False
            raw.cursor().execute("CREATE TABLE relet_lost ()")
            assert "IN_TRANSACTION" in repr(raw)
        assert raw.closed
        assert "UNKNOWN" in repr(raw)
        assert admin.run("SELECT to_regclass('relet_lost')::text") == [(None,)]


class TestTransactions:
    def test_they_begin_by_themselves(self, connect, admin):
        raw = connect()
        raw.autocommit = False
        assert raw.transaction_status == TransactionStatus.IDLE
        raw.commit()
        raw.rollback()
        raw.cursor().execute("CREATE TABLE relet_kept ()")
        assert raw.transaction_status == TransactionStatus.IN_TRANSACTION
        raw.commit()
        assert raw.transaction_status == TransactionStatus.IDLE
        raw.cursor().execute("DROP TABLE relet_kept")
        raw.rollback()
        assert admin.run("SELECT to_regclass('relet_kept')::text") == [("relet_kept",)]
        admin.run("DROP TABLE relet_kept")

    def test_autocommit(self, raw):
        raw.cursor().execute("SELECT 1")
        assert raw.transaction_status == TransactionStatus.IDLE
        raw.run("BEGIN")
        assert raw.transaction_status == TransactionStatus.IN_TRANSACTION
        with pytest.raises(dbapi.DataError):
            raw.run("SELECT 1/0")
        assert raw.transaction_status == TransactionStatus.IN_ERROR
        raw.rollback()
        assert raw.info.transaction_status is TransactionStatus.IDLE

    def test_how_they_begin(self, connect):
        raw = connect()
        raw.autocommit = False
        names = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")

        def begun():
            cursor = raw.cursor()
            cursor.execute(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
            raw.rollback()
            return cursor.fetchone()

        assert begun() == ("read committed", "off", "off")
        raw.isolation_level = 4
        assert raw.isolation_level is dbapi.IsolationLevel.SERIALIZABLE
        raw.read_only = raw.deferrable = True
        assert begun() == ("serializable", "on", "on")
        raw.run("SET default_transaction_read_only = on")
        raw.isolation_level = dbapi.IsolationLevel.REPEATABLE_READ
        raw.read_only = raw.deferrable = False
        assert begun() == ("repeatable read", "off", "off")
        raw.isolation_level = raw.read_only = raw.deferrable = None
        assert begun() == ("read committed", "on", "off")
        with pytest.raises(ValueError, match="5"):
            raw.isolation_level = 5

    @pytest.mark.parametrize("failed", [False, True])
    @pytest.mark.parametrize(
        ("name", "value"),
        [("autocommit", True), ("isolation_level", 4), ("read_only", True), ("deferrable", True)],
    )
    def test_not_changed_in_one(self, begun, name, value, failed):
        if failed:
            with pytest.raises(dbapi.DataError):
                begun.run("SELECT 1/0")
        before = getattr(begun, name)
        with pytest.raises(dbapi.ProgrammingError, match=f"{name} cannot be changed while"):
            setattr(begun, name, value)
        assert getattr(begun, name) == before
        begun.rollback()
        setattr(begun, name, value)


class TestNamedCursors:
    def test_fetching(self, begun):
        with begun.cursor('it"s') as cursor:
            assert cursor.execute("SELECT generate_series(1, %s)", [9]) is cursor
            assert cursor.fetchone() == (1,)
            assert cursor.fetchmany(2) == [(2,), (3,)]
            assert cursor.fetchmany() == [(4,)]
            assert cursor.rownumber == 4
            cursor.itersize = 2
            assert next(iter(cursor)) == (5,)
            assert cursor.fetchall() == [(7,), (8,), (9,)]
            assert (cursor.fetchone(), cursor.fetchmany(7), cursor.fetchall()) == (None, [], [])
            assert (cursor.rowcount, cursor.nextset()) == (-1, None)
        assert begun.run("SELECT * FROM pg_cursors") == []

    def test_description_before_anything_is_fetched(self, begun):
        cursor = begun.cursor("c")
        assert cursor.description is None
        cursor.execute("SELECT 1 AS a, 'x' AS b")
        assert [column.name for column in cursor.description] == ["a", "b"]
        assert cursor.fetchall() == [(1, "x")]
        assert [column.name for column in cursor.description] == ["a", "b"]
        cursor.execute("SELECT 2 AS c")
        assert [column.name for column in cursor.description] == ["c"]
        assert cursor.fetchall() == [(2,)]

    @pytest.mark.parametrize("scrollable", [None, False])
    def test_description_after_a_scroll(self, begun, scrollable):
        cursor = begun.cursor("c", scrollable=scrollable)
        cursor.execute("SELECT generate_series(1, 5) AS n ORDER BY random() * 0 + 1")
        cursor.scroll(2)
        assert [column.name for column in cursor.description] == ["n"]
        assert cursor.rownumber == 2
        assert len(cursor.fetchall()) == 3
        assert cursor.rownumber == 5

    def test_scroll(self, begun):
        cursor = begun.cursor("c", scrollable=True)
        cursor.execute(NUMBERS)
        cursor.scroll(3)
        assert cursor.fetchone() == (4,)
        cursor.scroll(-2)
        assert cursor.fetchone() == (3,)
        cursor.scroll(0, "absolute")
        assert (cursor.rownumber, cursor.fetchone()) == (0, (1,))
        with pytest.raises(ValueError, match="mode is 'up'"):
            cursor.scroll(1, "up")

    def test_one_that_does_not_scroll(self, begun):
        cursor = begun.cursor("c", scrollable=False)
        cursor.execute(NUMBERS)
        cursor.scroll(3)
        with pytest.raises(dbapi.OperationalError, match="can only scan forward"):
            cursor.scroll(-2)

    def test_it_is_executed_again(self, begun):
        cursor = begun.cursor("c")
        for number in 1, 2:
            cursor.execute("SELECT %s", [number])
            assert cursor.fetchall() == [(number,)]
        with pytest.raises(dbapi.InterfaceError, match=r"executemany\(\) is not supported"):
            cursor.executemany("SELECT %s", [[1]])

    def test_nothing_has_been_executed(self, begun):
        cursor = begun.cursor("c")
        for use in cursor.fetchone, cursor.fetchall, lambda: cursor.scroll(1), lambda: list(cursor):
            with pytest.raises(dbapi.ProgrammingError, match="no statement has been executed"):
                use()
        cursor.close()

    def test_out_of_a_transaction(self, raw):
        cursor = raw.cursor("c")
        with pytest.raises(dbapi.InternalError, match="can only be used in transaction blocks"):
            cursor.execute(NUMBERS)
        cursor.close()

    def test_with_hold(self, raw):
        cursor = raw.cursor("c", withhold=True)
        cursor.execute(NUMBERS)
        assert [column.name for column in cursor.description] == ["generate_series"]
        assert cursor.fetchone() == (1,)
        raw.run("BEGIN; ROLLBACK")
        assert cursor.fetchall() == [(2,), (3,), (4,), (5,)]
        cursor.close()
        cursor.close()
        assert raw.run("SELECT * FROM pg_cursors") == []
        with pytest.raises(dbapi.InterfaceError, match="the cursor is closed"):
            cursor.fetchone()

    def test_one_that_is_held_is_closed_in_a_transaction(self, raw):
        cursor = raw.cursor("c", withhold=True)
        cursor.execute(NUMBERS)
        raw.run("BEGIN")
        cursor.close()
        raw.run("COMMIT")
        assert raw.run("SELECT * FROM pg_cursors") == []

    def test_one_that_is_held_was_closed_by_a_statement(self, raw):
        cursor = raw.cursor("c", withhold=True)
        cursor.execute(NUMBERS)
        raw.run("CLOSE ALL")
        cursor.close()
        assert raw.transaction_status == TransactionStatus.IDLE

    def test_after_the_end_of_its_transaction(self, begun):
        cursor = begun.cursor("c")
        cursor.execute(NUMBERS)
        begun.commit()
        with pytest.raises(dbapi.ProgrammingError, match='"c" does not exist'):
            cursor.fetchone()
        begun.rollback()
        cursor.execute(NUMBERS)  # it is a new one
        assert cursor.fetchone() == (1,)
        begun.rollback()
        begun.begin()
        cursor.close()
        assert begun.transaction_status == TransactionStatus.IN_TRANSACTION

    def test_after_a_rollback_to_a_savepoint(self, begun):
        begun.run("SAVEPOINT s")
        cursor = begun.cursor("c")
        cursor.execute(NUMBERS)
        begun.run("ROLLBACK TO s")
        cursor.close()
        assert begun.transaction_status == TransactionStatus.IN_TRANSACTION

    def test_in_a_transaction_that_has_failed(self, begun):
        cursor = begun.cursor("c")
        cursor.execute(NUMBERS)
        with pytest.raises(dbapi.DataError):
            begun.run("SELECT 1/0")
        with pytest.raises(dbapi.InternalError, match="transaction is aborted"):
            cursor.fetchone()
        cursor.close()
        assert begun.transaction_status == TransactionStatus.IN_ERROR

    def test_of_a_connection_that_is_lost(self, begun, admin):
        cursor = begun.cursor("c")
        cursor.execute(NUMBERS)
        kill(admin, pid_of(begun))
        with pytest.raises(dbapi.OperationalError):
            cursor.fetchone()
        cursor.close()

    def test_a_statement_that_is_wrong(self, begun):
        cursor = begun.cursor("c")
        with pytest.raises(dbapi.ProgrammingError):
            cursor.execute("SELECT nonexistent")
        begun.rollback()
        cursor.close()

    def test_time_zones(self, begun):
        """A cursor's own, which is another than the connection's."""
        tokyo = datetime.timezone(datetime.timedelta(hours=9))
        for cursor in begun.cursor(), begun.cursor("c"):
            cursor.zone = tokyo
            cursor.execute("SELECT '2020-01-01 12:00+02'::timestamptz")
            ((value,),) = cursor.fetchall()
            assert value == datetime.datetime(2020, 1, 1, 19, tzinfo=tokyo)
            assert value.tzinfo is cursor.zone is tokyo
        ((value,),) = begun.run("SELECT '2020-01-01 12:00+02'::timestamptz")
        assert value.tzinfo is not tokyo


USES = {
    "execute": lambda cursor: cursor.execute(NUMBERS),
    "description": lambda cursor: cursor.description,
    "scroll": lambda cursor: cursor.scroll(1),
    "fetchone": lambda cursor: cursor.fetchone(),
    "close": lambda cursor: cursor.close(),
}


class TestThreads:
    """What another thread does on the connection comes before, or after."""

    @pytest.mark.parametrize("withhold", [False, True])
    @pytest.mark.parametrize("use", USES)
    def test_a_transaction_that_ends(self, begun, monkeypatch, use, withhold):
        """Its end, and the beginning of the next one, could come after what was looked at."""
        cursor = begun.cursor("c", withhold=withhold)
        cursor.execute(NUMBERS)
        if withhold:
            begun.commit()
        sent, threads = [], []
        exchange, main = type(begun.wire).exchange, threading.current_thread()

        def other():
            begun.run("ROLLBACK; BEGIN")

        def slow(self, sql, *others):
            if threading.current_thread() is main:
                # It is time enough for the other thread, if that can go on.
                threads.append(threading.Thread(target=other))
                threads[-1].start()
                threads[-1].join(0.1)
            results = exchange(self, sql, *others)
            sent.append((sql.partition(" ")[0], threading.current_thread() is main))
            return results

        monkeypatch.setattr(type(begun.wire), "exchange", slow)
        USES[use](cursor)
        before, sent_before = len(threads), list(sent)
        for thread in threads:
            thread.join()
        assert [is_main for _, is_main in sent_before[:before]] == [True] * before, sent
        assert len(sent) == 2 * before
        monkeypatch.undo()
        assert begun.transaction_status == TransactionStatus.IN_TRANSACTION

    def test_a_cursor_that_is_shared(self, begun):
        cursor, found, failures = begun.cursor("c"), [], []

        def run():
            try:
                for _ in range(30):
                    cursor.execute(NUMBERS)
                    found.append(cursor.description is not None)
                    cursor.fetchmany(2)
                    cursor.scroll(1)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert found == [True] * 120
        cursor.close()
        assert begun.run("SELECT * FROM pg_cursors") == []

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_two_that_end_a_transaction(self, begun, monkeypatch, end):
        """The second has nothing to end, and says so to nobody."""
        exchange, entered = type(begun.wire).exchange, threading.Event()

        def slow(self, sql, *others):
            entered.set()
            time.sleep(0.1)
            return exchange(self, sql, *others)

        monkeypatch.setattr(type(begun.wire), "exchange", slow)
        threads = [threading.Thread(target=getattr(begun, end)) for _ in range(2)]
        threads[0].start()
        entered.wait()
        threads[1].start()
        for thread in threads:
            thread.join()
        assert not begun.notices  # "there is no transaction in progress"


class TestWhatTheServerSays:
    def test_notices(self, raw):
        raw.run("DO $$BEGIN RAISE NOTICE 'it''s %', 1 USING HINT = 'h'; RAISE WARNING 'w'; END$$")
        first, second = raw.notices
        assert (first.severity, first.message_primary, first.message_hint) == (
            "NOTICE",
            "it's 1",
            "h",
        )
        assert second.severity == "WARNING"
        raw.run("DO $$BEGIN FOR i IN 1..60 LOOP RAISE NOTICE '%', i; END LOOP; END$$")
        assert [notice.message_primary for notice in raw.notices] == [str(i) for i in range(11, 61)]

    def test_notifications_with_a_statement(self, raw, admin):
        raw.run("LISTEN here")
        admin.run("NOTIFY here, 'it''s \u20ac'")
        admin.run("NOTIFY here")
        raw.run("SELECT 1")
        first, second = raw.notifies
        assert first == ("here", "it's \u20ac", admin.info.backend_pid)
        assert (second.channel, second.payload) == ("here", "")

    def test_ones_own(self, raw):
        raw.run("LISTEN here; NOTIFY here, 'mine'")
        assert [notify.payload for notify in raw.notifies] == ["mine"]

    def test_poll(self, raw, admin):
        raw.poll()
        raw.run("LISTEN here")
        raw.poll()
        assert not raw.notifies
        admin.run("NOTIFY here, 'now'")
        assert select.select([raw], [], [], 60)[0]
        raw.poll()
        assert [notify.payload for notify in raw.notifies] == ["now"]
        assert raw.run("SELECT 1") == [(1,)]

    def test_poll_of_a_part(self, connect, wire, admin):
        """What there is of a message is kept until there is all."""
        raw = connect(**wire.place)
        message = b"A\0\0\0\x11\0\0\0\7here\0now\0"
        (session,) = wire.sessions
        for index in range(len(message)):
            session.client.sendall(message[index : index + 1])
            assert select.select([raw], [], [], 60)[0]
            assert not raw.notifies
            raw.poll()
        assert raw.notifies.popleft() == ("here", "now", 7)
        session.client.sendall(message[:9])
        select.select([raw], [], [], 60)
        raw.poll()
        session.client.sendall(message[9:])
        assert raw.run("SELECT 1") == [(1,)]
        assert raw.notifies.popleft() == ("here", "now", 7)

    def test_settings(self, raw):
        raw.run("SET TIME ZONE 'Asia/Tokyo'")
        assert raw.info.parameter_status("TimeZone") == "Asia/Tokyo"
        assert raw.info.parameter_status("TimeZone") == "Asia/Tokyo"
        assert raw.info.parameter_status("nonsense") is None
        assert raw.info.server_version // 10000 >= 12
        assert raw.info.backend_pid == pid_of(raw)
        assert raw.info.encoding == "utf-8"


class TestEncodings:
    @pytest.mark.parametrize(
        ("encoding", "text", "python"),
        [
            ("LATIN1", "caf\xe9 \\ '", "iso8859-1"),
            ("LATIN9", "\u20ac", "iso8859-15"),
            ("WIN1252", "\u20ac", "cp1252"),
            ("WIN866", "\u0434\u0430", "cp866"),
            ("KOI8R", "\u0434\u0430", "koi8-r"),
            ("ISO_8859_5", "\u0434\u0430", "iso8859-5"),
            # Of the first two, the second byte is a backslash.
            ("SJIS", "\u8868\u30bd '\\ \uff5e", "cp932"),
            ("EUC_JP", "\u8868\u30bd '", "euc_jp"),
            ("BIG5", "\u529f\u8a31 '", "big5"),
            ("GBK", "\u8a9e '", "gbk"),
            ("EUC_KR", "\uac00 '", "cp949"),
            ("UHC", "\uac02 '", "cp949"),
            ("GB18030", "\u20ac\u8a9e '", "gb18030"),
            ("UTF8", "\u20ac\U0001f600", "utf-8"),
        ],
    )
    @pytest.mark.parametrize("standard", ["on", "off"])
    def test_another_one(self, raw, admin, encoding, text, python, standard):
        """The server has what is written, and what it has is read."""
        raw.run(f"SET standard_conforming_strings = {standard}")
        raw.run(f"SET client_encoding = '{encoding}'")
        assert raw.info.encoding == python
        cursor = raw.cursor()
        points = "SELECT array_agg(ascii(letter)) FROM regexp_split_to_table(%s, '') AS letter"
        assert cursor.execute(points, [text]).fetchone() == (list(map(ord, text)),)
        chars = " || ".join(f"chr({ord(letter)})" for letter in text)
        assert cursor.execute(f"SELECT {chars}, ARRAY[{chars}]").fetchone() == (text, [text])
        assert cursor.execute(f"SELECT json_build_object('a', {chars})").fetchone() == (
            {"a": text},
        )
        with raw.cursor("c", withhold=True) as named:
            named.execute("SELECT %s", [text])
            assert named.fetchall() == [(text,)]
        with pytest.raises(dbapi.ProgrammingError) as caught:
            cursor.execute(f'SELECT "{text}"')
        assert f'column "{text}" does not exist' in str(caught.value)
        raw.run("RESET client_encoding")
        assert cursor.execute("SELECT %s", ["\u20ac"]).fetchone() == ("\u20ac",)

    def test_a_cursor_that_was_there_before(self, raw):
        cursor = raw.cursor()
        cursor.zone = datetime.timezone.utc
        cursor.execute("SET client_encoding = 'LATIN1'")
        assert cursor.execute("SELECT chr(233)").fetchone() == ("\xe9",)

    @pytest.mark.parametrize(
        ("encoding", "text"),
        [
            ("SQL_ASCII", "\xe9"),
            ("LATIN1", "\u20ac"),
            # A backslash, if one asks Python.
            ("SJIS", "\xa5"),
            ("EUC_JP", "x\xa5"),
            ("SHIFT_JIS_2004", "\xa5"),
            ("EUC_TW", "\u4e00"),
        ],
    )
    def test_what_it_does_not_have_is_refused(self, raw, encoding, text):
        raw.run(f"SET client_encoding = '{encoding}'")
        with pytest.raises(UnicodeEncodeError):
            raw.cursor().execute("SELECT %s", [text])
        assert raw.cursor().execute("SELECT %s", ["it's \\"]).fetchone() == ("it's \\",)

    def test_names_of_columns(self, raw):
        raw.run("SET client_encoding = 'LATIN1'")
        cursor = raw.cursor().execute('SELECT 1 AS "caf\xe9"')
        assert cursor.description[0].name == "caf\xe9"

    def test_copies(self, raw):
        raw.run("SET client_encoding = 'LATIN1'; CREATE TEMP TABLE t (line text)")
        raw.cursor().copy_expert("COPY t FROM STDIN", io.StringIO("caf\xe9\n"))
        assert raw.run("SELECT line, ascii(right(line, 1)) FROM t") == [("caf\xe9", 233)]
        file = io.StringIO()
        raw.cursor().copy_expert("COPY t TO STDOUT", file)
        assert file.getvalue() == "caf\xe9\n"

    def test_copies_to_a_temporary_file(self, raw):
        with tempfile.NamedTemporaryFile("w+") as file:
            raw.cursor().copy_expert("COPY (SELECT 'caf\xe9') TO STDOUT", file)
            file.seek(0)
            assert file.read() == "caf\xe9\n"

    @pytest.mark.parametrize("encoding", ["SQL_ASCII", "EUC_TW"])
    def test_what_cannot_be_read_is_refused(self, raw, encoding):
        raw.run(f"SET client_encoding = '{encoding}'")
        with pytest.raises(UnicodeDecodeError):
            raw.run("SELECT chr(19968)")
        assert raw.run("SELECT 1") == [(1,)]

    def test_what_the_server_does_not_have_in_it(self, raw):
        raw.run("SET client_encoding = 'LATIN1'")
        with pytest.raises(dbapi.DataError, match="has no equivalent in encoding"):
            raw.run("SELECT chr(8364)")
        assert raw.run("SELECT 1") == [(1,)]

    def test_what_is_said_in_it(self, raw, admin):
        raw.run("SET client_encoding = 'LATIN1'; LISTEN \"\xe9\"")
        admin.run("NOTIFY \"\xe9\", '\xe8'")
        raw.run("SET search_path = \"\xe9\"; DO $$BEGIN RAISE NOTICE '\xea'; END$$")
        assert [(notify.channel, notify.payload) for notify in raw.notifies] == [("\xe9", "\xe8")]
        assert raw.notices[-1].message_primary == "\xea"
        # The server reports this one since version 18.
        assert raw.wire.parameters.get("search_path", '"\xe9"') == '"\xe9"'


class Dripping(socket.socket):
    """A socket from which no more than some bytes are read at a time."""

    piece = 1

    def recv(self, size, flags=0):
        return super().recv(min(size, self.piece), flags)


@pytest.fixture
def drip(connect, wire, parameters):
    """Open a connection on such a socket."""

    def open_(database, **others):
        sock = Dripping()
        sock.connect(("127.0.0.1", wire.port))
        return pg8000.dbapi.connect(
            parameters["user"], database=database, sock=sock, ssl_context=False
        )

    def drip(piece):
        raw = connect(connect=open_)
        raw.wire.pg._usock.piece = piece
        return raw

    return drip


class TestSizes:
    @pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 7, 11])
    def test_messages_in_pieces(self, drip, admin, piece):
        """However they fall: in a header, between messages, in a value."""
        raw = drip(piece)
        raw.run("LISTEN here")
        admin.run("NOTIFY here, 'x'")
        cursor = raw.cursor()
        cursor.execute(
            "SELECT NULL, '', 'it''s', n FROM generate_series(1, 3) AS n; SET TIME ZONE 'UTC'; "
            "SELECT 1 WHERE false; DO $$BEGIN RAISE NOTICE 'n'; END$$"
        )
        assert cursor.fetchall() == [(None, "", "it's", number) for number in (1, 2, 3)]
        assert (cursor.nextset(), cursor.nextset(), cursor.fetchall()) == (True, True, [])
        assert len(raw.notifies) == len(raw.notices) == 1
        with pytest.raises(dbapi.DataError, match="division by zero"):
            raw.run("SELECT 1/0")
        assert raw.run("") == []
        assert raw.run("SELECT 1") == [(1,)]

    @pytest.mark.parametrize("size", [65_000, 65_536, 70_000, 1_048_576, 10_000_000])
    def test_a_large_value(self, raw, size):
        cursor = raw.cursor()
        cursor.execute("SELECT repeat('x', %s), 1", [size])
        ((value, one),) = cursor.fetchall()
        assert (len(value), set(value), one) == (size, {"x"}, 1)
        cursor.execute("SELECT length(%s)", ["\u20ac" * size])
        assert cursor.fetchall() == [(size,)]

    def test_rows_about_the_size_of_a_read(self, raw):
        """Each ends at another place of what is read at once."""
        cursor = raw.cursor()
        cursor.execute("SELECT n, repeat('x', 65400 + n) FROM generate_series(1, 200) AS n")
        rows = cursor.fetchall()
        assert [(number, len(text)) for number, text in rows] == [
            (number, 65_400 + number) for number in range(1, 201)
        ]

    def test_many_rows(self, raw):
        cursor = raw.cursor()
        cursor.execute("SELECT n, n::text FROM generate_series(1, 100000) AS n")
        assert cursor.rowcount == 100_000
        assert all(row == (n, str(n)) for n, row in enumerate(cursor, 1))
        assert cursor.rownumber == 100_000

    def test_many_columns(self, raw):
        cursor = raw.cursor()
        cursor.execute(f"SELECT {', '.join(map(str, range(1600)))}")
        assert cursor.fetchone() == tuple(range(1600))

    def test_many_statements(self, raw):
        cursor = raw.cursor()
        cursor.execute("; ".join(f"SELECT {number}" for number in range(1000)))
        found = [cursor.fetchone()]
        while cursor.nextset():
            found.append(cursor.fetchone())
        assert found == [(number,) for number in range(1000)]
