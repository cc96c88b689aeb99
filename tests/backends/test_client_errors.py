"""I3: an error on the client is no rollback on the server, nor is one that came after a COMMIT."""

import io
from contextlib import suppress

import pytest
from django.db import DatabaseError, connections, transaction

from relet import ReleasePolicy, policies

from ..support import driver
from ..support.pools import at_rest
from ..support.threads import Thread

LEFT = """
SELECT 'setting', current_setting('app.x', true) WHERE current_setting('app.x', true) <> ''
UNION ALL SELECT 'role', current_user::text WHERE current_user <> session_user
UNION ALL SELECT 'temporary', relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'channel', channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'lock', objid::text FROM pg_locks
 WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'prepared', name FROM pg_prepared_statements WHERE from_sql
UNION ALL SELECT 'cursor', name FROM pg_cursors WHERE is_holdable
"""


@pytest.fixture(autouse=True)
def objects(observer):
    observer.execute("CREATE ROLE relet_other")
    observer.execute("""
        CREATE PROCEDURE relet_fails(IN what text) LANGUAGE plpgsql AS $$
        BEGIN COMMIT; RAISE EXCEPTION 'after the commit'; END $$
    """)
    yield
    observer.execute("DROP PROCEDURE relet_fails")
    observer.execute("DROP ROLE relet_other")


@pytest.fixture
def other():
    thread = Thread()
    yield thread
    thread(lambda: connections["default"].close())
    thread.end()


def execute(db, sql, params=None):
    with db.cursor() as cursor:
        cursor.execute(sql, params)


def executemany(db, sql, params):
    with db.cursor() as cursor:
        cursor.executemany(sql, params)


def copied_out(db, sql):
    with db.cursor() as cursor, cursor.copy(sql) as copy:
        for _ in copy.rows():
            raise driver.dbapi.DataError("of the client's")


def streamed(db, sql):
    with db.cursor() as cursor:
        for _ in cursor.stream(sql):
            raise driver.dbapi.DataError("of the client's")


def copy_expert(db, sql):
    class Failing(io.StringIO):
        def write(self, data):
            raise driver.dbapi.DataError("of the client's")

    with db.cursor() as cursor:
        cursor.copy_expert(sql, Failing())


def do(body):
    return f"DO $$ BEGIN {body}; COMMIT; RAISE EXCEPTION 'after the commit'; END $$"


pg8000 = driver.needs("pg8000", "rows that are loaded when a statement runs")
copies = driver.needs("psycopg", "copy() and stream()")
INFINITY = "'infinity'::date"
SET = "set_config('app.x', 'leak', false)"

CASES = {
    "DO, a setting": (execute, do(f"PERFORM {SET}")),
    "DO, a role": (execute, do("SET ROLE relet_other")),
    "DO, a table": (execute, do("CREATE TEMP TABLE relet_t (a int)")),
    "DO, a lock": (execute, do("PERFORM pg_advisory_lock(4711)")),
    "DO, a channel": (execute, do("LISTEN relet_news")),
    "CALL": (execute, f"CALL relet_fails({SET})"),
    "executemany, a setting": (
        executemany,
        f"SELECT {SET}, 1 / %s",
        [[1], [1], [0]],
    ),
    "executemany, a lock": (executemany, "SELECT pg_advisory_lock(4711), 1 / %s", [[1], [0]]),
    "executemany, the client's": (executemany, f"SELECT {SET}, %s", [["a"], [object()]]),
    "rows": (execute, f"SELECT {SET}, {INFINITY}"),
    "rows, a lock": (execute, f"SELECT pg_advisory_lock(4711), {INFINITY}"),
    "several, a role": (execute, f"SET ROLE relet_other; SELECT {INFINITY}"),
    "several, a table": (execute, f"CREATE TEMP TABLE relet_t (a int); SELECT {INFINITY}"),
    "several, a channel": (execute, f"LISTEN relet_news; SELECT {INFINITY}"),
    "several, PREPARE": (execute, f"PREPARE relet_p AS SELECT 1; SELECT {INFINITY}"),
    "several, COPY": (execute, "SET app.x = 'leak'; COPY (SELECT 1) TO STDOUT"),
    "COPY, in execute()": (execute, f"COPY (SELECT {SET}) TO STDOUT"),
}
PARAMETERS = [
    pytest.param(
        *case,
        *[None] * (3 - len(case)),
        id=name,
        marks=pg8000 if name.startswith(("rows", "several, ")) else (),
    )
    for name, case in CASES.items()
]
PARAMETERS += [
    pytest.param(copied_out, f"COPY (SELECT {SET}) TO STDOUT", None, id="copy()", marks=copies),
    pytest.param(
        streamed, f"SELECT {SET} FROM generate_series(1, 3)", None, id="stream()", marks=copies
    ),
    pytest.param(
        copy_expert,
        f"COPY (SELECT {SET}) TO STDOUT",
        None,
        id="copy_expert()",
        marks=pytest.mark.skipif(driver.NAME == "psycopg", reason="psycopg has no copy_expert()"),
    ),
]


def left(db):
    """What is in the session that is let next."""
    with db.cursor() as cursor:
        cursor.execute(LEFT)
        return cursor.fetchall()


@pytest.mark.parametrize("mode", ["pin", "reset"])
@pytest.mark.parametrize("release", ["statement", "cursor", "request"])
@pytest.mark.parametrize(("run", "sql", "params"), PARAMETERS)
def test_what_it_left_reaches_nobody(db, other, run, sql, params, mode, release):
    policies["default"] = ReleasePolicy(release=release, session_state=mode, check_idle=3600)
    try:
        with pytest.raises((DatabaseError, driver.dbapi.Error, ZeroDivisionError)):
            run(db, sql, *([] if params is None else [params]))
        if mode == "pin" or release == "request":
            db.close()
        assert at_rest(db)
        assert other(lambda: left(connections["default"])) == []
    finally:
        del policies["default"]
        db.close()


@pytest.mark.parametrize(("run", "sql", "params"), PARAMETERS)
def test_in_a_transaction(db, other, run, sql, params):
    """The client's error does not end it: it commits what the server has done."""
    with pytest.raises((DatabaseError, driver.dbapi.Error)), transaction.atomic():
        execute(db, "SELECT 1")
        run(db, sql, *([] if params is None else [params]))
    db.close()
    db.set_autocommit(False)
    with pytest.raises((DatabaseError, driver.dbapi.Error)):
        run(db, sql, *([] if params is None else [params]))
    for end in db.commit, db.rollback:
        with suppress(DatabaseError):  # psycopg's, after a COPY that it does not take
            end()
    db.close()
    assert at_rest(db)
    assert other(lambda: left(connections["default"])) == []


def test_an_error_of_the_servers_is_a_rollback(db, other):
    """So what has failed keeps no lease, and no connection is restored for nothing."""
    for sql in f"SELECT {SET}, 1 / 0", "CREATE TEMP TABLE relet_t AS SELECT 1 / 0":
        with pytest.raises(DatabaseError):
            execute(db, sql)
        assert at_rest(db)
        assert db._runner.lease.session is None
    assert other(lambda: left(connections["default"])) == []
