"""I16: no value of a statement is in any report, log or dump."""

import json
import logging
import socket
import threading
import traceback
from contextlib import suppress
from time import monotonic

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from testapp.models import Item

import relet
from relet.backends.leases import leaks
from relet.backends.pools import pools
from relet.backends.reports.dump import dump

from ..support import driver
from ..support.pools import stats
from ..support.threads import in_thread
from ..support.waiting import until

SECRET = "s3cr3t"

#: Statements with secrets in them, and parameters.
STATEMENTS = [
    (f"SELECT '{SECRET}'", None),
    (f"SELECT E'{SECRET}\\'{SECRET}', U&'{SECRET}', B'1010', 'it''s {SECRET}'", None),
    (f"SELECT $${SECRET}$$, $tag${SECRET} $$ {SECRET}$tag$", None),
    (f"SELECT 1 -- {SECRET}", None),
    (f"SELECT /* {SECRET} /* {SECRET} */ {SECRET} */ 1", None),
    (f"DO $$ BEGIN PERFORM '{SECRET}'; END $$", None),
    ("SELECT %s, %s", [SECRET, [SECRET, SECRET]]),
    (f"SET app.secret = '{SECRET}'", None),
    (f"SET app.secret TO {SECRET}", None),
    (f"SET LOCAL app.secret = {SECRET}", None),
    (f'SET app.secret = "a;{SECRET}"', None),
    (f"SET app . secret = {SECRET}", None),
    (f"ALTER ROLE nobody SET app.secret = {SECRET}", None),
    (f"ALTER DATABASE nothing SET app.secret TO {SECRET}", None),
    (f"CREATE FUNCTION pg_temp.f() RETURNS int SET app.secret = {SECRET} RETURN 1", None),
    (f"SELECT set_config('app.secret', '{SECRET}', false)", None),
    (f"PREPARE {SECRET} AS SELECT '{SECRET}'", None),
    (f"EXECUTE {SECRET}", None),
    (f"DEALLOCATE {SECRET}", None),
    (f'SAVEPOINT "{SECRET}"', None),
    (f"NOTIFY channel, '{SECRET}'", None),
    (f"CREATE ROLE nobody PASSWORD '{SECRET}'", None),
    (f"SELECT '{SECRET}", None),  # not closed
    (f"SELECT $${SECRET}", None),
    (f"SELECT 1 /* {SECRET}", None),
    (f"SELECT 1/0, '{SECRET}'", None),
    (f"SELECT '\\' || '{SECRET}'", None),
    (f"SELECT 'a'\n'{SECRET}'", None),
    (f"SELECT x'{b'abc'.hex()}', '{SECRET}'::text", None),
    (f"INSERT INTO testapp_item (name) VALUES ('{SECRET}'), ('{SECRET}2') RETURNING id", None),
    (f"COPY testapp_item (name) FROM STDIN -- {SECRET}", None),
    (f"SELECT * FROM testapp_item WHERE name IN ('{SECRET}', '{SECRET}') LIMIT 7", None),
    (f"DECLARE {SECRET} CURSOR WITH HOLD FOR SELECT '{SECRET}'", None),
    (f"FETCH 1 FROM {SECRET}", None),
    (f"FETCH ALL {SECRET}", None),
    (f"MOVE {SECRET}", None),
    (f"EXPLAIN EXECUTE {SECRET}", None),
    (f"CREATE TEMP TABLE a AS EXECUTE {SECRET}", None),
    (f"DELETE FROM testapp_item WHERE CURRENT OF {SECRET}", None),
    (f"CLOSE {SECRET}", None),
    (f"SELECT 1; SELECT '{SECRET}'; SET app.secret = {SECRET}", None),
    (f"SELECT '{'x' * 5_000}{SECRET}'", None),
    (f"SELECT {', '.join(['1'] * 3_000)}, '{SECRET}'", None),
    (f"SELECT 'O'Brien {SECRET}'", None),  # a value that has a quote in it
    (f" insert into testapp_item (name) values ('O'Brien {SECRET}')", None),
    (f"{SECRET} SELECT", None),
]


class Log(logging.Handler):
    """Everything that is logged, with all fields, except the errors of the database."""

    def __init__(self):
        super().__init__(level=logging.DEBUG)
        self.text = ""

    def emit(self, record):
        self.text += f"{record.getMessage()} {vars(record) | {'exc_info': None}}\n"


def everything():
    """All that can be asked."""
    parts = [dump()]
    for report in (
        relet.queries(limit=None),
        relet.routes(limit=None),
        relet.pools(),
        relet.connections(server=True),
    ):
        parts += [
            *(report.as_table(width=10_000), str(report), repr(report), repr(report.rows)),
            json.dumps(report.as_dict()),
        ]
    parts.append(relet.connections().as_table(width=10_000, stacks=True))
    return "\n".join(parts)


@pytest.fixture
def log():
    log, logger = Log(), logging.getLogger("relet")
    level = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    yield log
    logger.removeHandler(log)
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def nothing_left(db):
    relet.queries.reset()
    yield
    db.close()
    Item.objects.all().delete()


def test_it_would_be_found(db):
    """Else the tests below would show nothing."""
    with relet.label(SECRET), db.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert SECRET in everything()
    relet.routes.reset()
    relet.queries.reset()
    assert SECRET not in everything()


@driver.needs("psycopg", "cursor.copy() and cursor.stream()")
def test_what_cannot_be_parsed_in_a_transfer(db):
    def stream(cursor):
        next(cursor.stream(f"SELECT 'O'Brien {SECRET}'"))

    def copy(cursor):
        with cursor.copy(f"COPY (SELECT 'O'Brien {SECRET}') TO STDOUT"):
            pass

    for begin in stream, copy:
        with suppress(DatabaseError), transaction.atomic(), db.cursor() as cursor:
            with suppress(driver.dbapi.DatabaseError, DatabaseError):
                begin(cursor)
            assert SECRET not in everything()


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
@pytest.mark.parametrize("kept", [False, True], ids=["plain", "kept"])
def test_statements(db, number, kept):
    sql, params = STATEMENTS[number]
    seen = []

    def work():
        with suppress(DatabaseError), db.cursor() as cursor:
            cursor.execute(sql, params)
        seen.append(everything())

    if kept:
        with suppress(DatabaseError), transaction.atomic():
            db.cursor().execute("SELECT 1")
            work()
    else:
        work()
    seen.append(everything())
    for text in seen:
        assert SECRET not in text


def test_what_is_not_execute(db):
    with suppress(DatabaseError), db.cursor() as cursor:
        cursor.executemany("INSERT INTO testapp_item (name) VALUES (%s)", [(SECRET,), ("b",)])
    with suppress(DatabaseError), db.cursor() as cursor:
        cursor.callproc("upper", [SECRET])
    if driver.NAME == "psycopg":
        with suppress(DatabaseError), db.cursor() as cursor:
            with cursor.copy(f"COPY testapp_item (name) FROM STDIN /* {SECRET} */") as copy:
                copy.write_row([f"{SECRET}3"])
                assert SECRET not in everything()
            list(cursor.stream(f"SELECT '{SECRET}'"))
    Item.objects.filter(name=SECRET).first()
    list(Item.objects.filter(name__in=[SECRET, "b"]).iterator())
    assert SECRET not in everything()


def test_while_it_runs(db, observer):
    """The server's own text of the statement has its values, and is not asked for."""

    def work():
        try:
            with connections["default"].cursor() as cursor:
                cursor.execute(f"SELECT '{SECRET}', pg_advisory_xact_lock(78)")
        finally:
            connections["default"].close()

    observer.execute("SELECT pg_advisory_lock(78)")
    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: observer.execute(_WAITS).fetchone()[0])
        text = everything()
    finally:
        observer.execute("SELECT pg_advisory_unlock(78)")
        thread.join()
    assert "Lock: advisory" in text
    assert SECRET not in text


_WAITS = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"


def test_logs(make, log, monkeypatch):
    watch = leaks.LeakWatch()
    monkeypatch.setattr(watch, "expect", lambda seconds: None)
    monkeypatch.setattr(leaks, "watch", watch)
    wrapper = make("logged", policy={"leak_after": 1.0})
    for sql, params in STATEMENTS:
        wrapper.set_autocommit(False)
        with suppress(DatabaseError), wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.execute(sql, params)
        watch.look(monotonic() + 2)
        with suppress(DatabaseError):
            wrapper.rollback()
        wrapper.close()
        watch.look(monotonic())
    assert log.text.count("leak_after") >= len(STATEMENTS)
    assert SECRET not in log.text


def test_the_password(make, db):
    """A connection that cannot be opened tells why, and not by which password."""
    with transaction.atomic():
        with db.cursor() as cursor:
            cursor.execute("SELECT 1")
        before = db.settings_dict["PASSWORD"], db.settings_dict["PORT"]
        db.settings_dict.update(PASSWORD=SECRET, PORT="1")
        try:
            text = everything()
        finally:
            db.settings_dict.update(PASSWORD=before[0], PORT=before[1])
    assert "could not be asked" in text
    assert SECRET not in text


def test_frames_of_a_failed_connection(make):
    """Reports of errors show local variables, and hide passwords in plain dicts only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wrapper = make(HOST="127.0.0.1", PORT=str(port), PASSWORD=SECRET, timeout=1)
    with pytest.raises(OperationalError) as caught:
        wrapper.connect()
    shown = [
        (frame.f_code.co_name, name)
        for frame in _relets_frames(caught.value)
        for name, value in frame.f_locals.items()
        if type(value) is not dict and SECRET in repr(value)
    ]
    assert shown == []
    handle = next(handle for handle in pools if handle.alias == wrapper.alias)
    assert SECRET not in repr(handle)
    assert SECRET not in repr(handle.pool.config)


def _relets_frames(error):
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"].startswith("relet."):
                yield frame
        error = error.__cause__ or error.__context__


def test_timeouts(make):
    """What an error says of the holders."""
    with transaction.atomic():
        with connections["default"].cursor() as cursor:
            cursor.execute(f"SELECT '{SECRET}'")
        assert stats(connections["default"]).in_use == 1
        text = in_thread(everything)
    assert SECRET not in text
