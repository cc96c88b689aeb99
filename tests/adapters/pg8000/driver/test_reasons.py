"""Why a connection was lost: what the server said last, as psycopg tells it."""

from __future__ import annotations

import contextlib
import pickle
import select
import socket

import django.db
import pytest
from django.db import transaction

from relet.adapters.pg8000 import dbapi

from ....support.fake_server import READY, WELCOME, Fake, message
from ....support.sessions import kill, pid_of


def error(severity, sqlstate, text):
    return message(b"E", f"S{severity}\0V{severity}\0C{sqlstate}\0M{text}\0\0".encode())


DIVISION = error("ERROR", "22012", "division by zero")
TERMINATED = error("FATAL", "57P01", "terminating connection due to administrator command")
IDLE = error("FATAL", "25P03", "terminating connection due to idle-in-transaction timeout")


def ended(sock):
    """Wait until the server has ended the connection of *sock*."""
    assert select.select([sock], [], [], 30)[0]


TIMEOUTS = {
    "25P03": ["SET idle_in_transaction_session_timeout = 10", "BEGIN"],
    "57P05": ["SET idle_session_timeout = 10"],
}


@pytest.fixture(params=["plain", "proxied"])
def place(request):
    """Settings for a Unix socket, or for TCP."""
    return {} if request.param == "plain" else request.getfixturevalue("wire").place


@pytest.mark.parametrize("use", ["run", "poll", "commit", "many", "long"])
@pytest.mark.parametrize("sqlstate", TIMEOUTS)
def test_who_waits_too_long(connect, place, sqlstate, use):
    raw = connect(**place)
    if raw.info.server_version < 140000 and sqlstate == "57P05":
        pytest.skip("PostgreSQL 14 has that timeout, and no server before")
    for sql in TIMEOUTS[sqlstate]:
        raw.run(sql)
    ended(raw)
    with pytest.raises(dbapi.OperationalError, match="terminating connection due to") as ours:
        if use == "run":
            raw.run("SELECT 1")
        elif use == "long":
            raw.run(f"SELECT '{'x' * 3_000_000}'")
        elif use == "many":
            raw.cursor().executemany("SELECT %s", [[1], [2]])
        elif use == "poll" or sqlstate == "57P05":
            raw.poll()
        else:
            raw.commit()
    assert raw.closed
    assert ours.value.sqlstate == ours.value.diag.sqlstate == sqlstate
    assert "PARAMETERS" not in str(ours.value)
    assert pickle.loads(pickle.dumps(ours.value)).sqlstate == sqlstate


@pytest.mark.parametrize("sqlstate", TIMEOUTS)
def test_psycopg_says_the_same(raw, server_uri, sqlstate):
    psycopg = pytest.importorskip("psycopg")
    if raw.info.server_version < 140000 and sqlstate == "57P05":
        pytest.skip("PostgreSQL 14 has that timeout, and no server before")
    with contextlib.closing(psycopg.connect(server_uri, autocommit=True)) as other:
        for sql in TIMEOUTS[sqlstate]:
            raw.run(sql)
            other.execute(sql)
        ended(other)
        ended(raw)
        with pytest.raises(psycopg.Error) as theirs:
            other.execute("SELECT 1")
        with pytest.raises(dbapi.OperationalError) as ours:
            raw.run("SELECT 1")
    assert theirs.value.sqlstate == ours.value.sqlstate == sqlstate
    assert theirs.value.diag.message_primary == ours.value.diag.message_primary


def test_an_administrator(connect, place, admin):
    raw = connect(**place)
    kill(admin, pid_of(raw))
    with pytest.raises(dbapi.OperationalError, match="administrator command") as caught:
        raw.run("SELECT 1")
    assert caught.value.sqlstate == "57P01"


def test_through_django(db):
    block = transaction.atomic(using=db.alias)
    with pytest.raises(django.db.OperationalError) as caught, block, db.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 10")
        ended(db.connection)
        cursor.execute("SELECT 1")
    assert caught.value.__cause__.sqlstate == "25P03"
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    ("answer", "says", "sqlstate"),
    [
        # An error of a statement is not why the connection has ended.
        (DIVISION, "^the connection is lost: the server closed the connection unexpectedly$", None),
        (DIVISION + TERMINATED, "^terminating connection due to administrator", "57P01"),
        (DIVISION + IDLE, "^the connection is lost: terminating .* idle-in-transaction", "25P03"),
        (TERMINATED, "^terminating connection due to administrator", "57P01"),
        (
            TERMINATED[:-5],
            "^the connection is lost: the server closed the connection unexpectedly$",
            None,
        ),
        (IDLE + TERMINATED, "^terminating connection due to administrator", "57P01"),
        (b"", "^the connection is lost: the server closed the connection unexpectedly$", None),
        (error("ERROR", "08P01", "query_wait_timeout"), "^query_wait_timeout$", "08P01"),
    ],
    ids=["error", "error, killed", "error, idle", "killed", "cut", "idle, killed", "", "pooler"],
)
def test_what_it_says_last(answer, says, sqlstate):
    with Fake(WELCOME, answer) as server:
        raw = dbapi.connect(**server.place, sslmode="disable")
        raw.autocommit = True
        with pytest.raises(dbapi.OperationalError, match=says) as caught:
            raw.run("SELECT 1/0")
        assert raw.closed
        assert getattr(caught.value, "sqlstate", None) == sqlstate
        if answer == DIVISION:
            cause = caught.value.__cause__.__cause__
            assert (type(cause), cause.sqlstate) == (dbapi.DataError, "22012")


def test_a_statement_that_fails_is_none_of_it():
    with Fake(WELCOME, DIVISION + READY + TERMINATED) as server:
        raw = dbapi.connect(**server.place, sslmode="disable")
        raw.autocommit = True
        with pytest.raises(dbapi.DataError, match=r"^division by zero$"):
            raw.run("SELECT 1/0")
        with pytest.raises(dbapi.OperationalError, match="administrator command"):
            raw.run("SELECT 1")


def test_a_value_that_python_has_not_is_none_of_it():
    description = message(b"T", b"\0\1n\0" + bytes(6) + (1082).to_bytes(4, "big") + bytes(8))
    row = message(b"D", b"\0\1\0\0\0\x08infinity")
    with Fake(WELCOME, description + row) as server:
        raw = dbapi.connect(**server.place, sslmode="disable")
        raw.autocommit = True
        with pytest.raises(
            dbapi.OperationalError, match="the server closed the connection unexpectedly"
        ):
            raw.run("SELECT 'infinity'::date")


def test_what_has_come_before_it_was_cut_off():
    """Where nothing more can be sent, what was said is still there to be read."""

    def answer(client):
        client.sendall(WELCOME + IDLE)
        client.shutdown(socket.SHUT_RDWR)

    with Fake(answer) as server:
        raw = dbapi.connect(**server.place, sslmode="disable")
        raw.autocommit = True
        raw.wire.pg._usock.shutdown(socket.SHUT_WR)
        with pytest.raises(dbapi.OperationalError, match="idle-in-transaction") as caught:
            raw.run(f"SELECT '{'x' * 3_000_000}'")
        assert caught.value.sqlstate == "25P03"
