"""Servers that say what makes no sense, too little, or too slowly: always an error, and in time."""

from __future__ import annotations

import os
import socket
import time
from struct import pack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relet.adapters.pg8000 import dbapi
from relet.adapters.pg8000.dbapi import InterfaceError, OperationalError
from relet.core import TransactionStatus

from ....support.dsn import parameters_for
from ....support.fake_server import READY, WELCOME, Fake, message, record

pytestmark = pytest.mark.slow


EXAMPLES = int(os.environ.get("RELET_EXAMPLES", "20"))
FIELD = pack("!ihihih", 0, 0, 23, 4, -1, 0)
DESCRIPTION = message(b"T", b"\0\1n\0" + FIELD)
ROW = message(b"D", b"\0\1\0\0\0\x017")
DONE = message(b"C", b"SELECT 1\0")


def lengths():
    """What each message is whose length cannot be."""
    for length in (-(2**31), -5, -1, 0, 1, 2, 3):
        for kind in b"TDCZENASIGHcd":
            yield message(bytes([kind]), length=length)
    for kind in b"CZSIGHc":
        yield message(bytes([kind]), length=2**31 - 1)


NONSENSE = [
    *lengths(),
    *(b"?\0\0\0\4", b"\0\0\0\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"),
    *(message(b"Z"), message(b"Z", b"?"), message(b"Z", b"II")),
    *(message(b"T", b"\0\1n"), message(b"T", b"\0\1n\0\0")),
    *(message(b"A", b"\0\0\0\1no"), message(b"A", b"\0"), message(b"S", b"no"), message(b"R")),
    *(DESCRIPTION + message(b"D", data) for data in (b"\0\1", b"\0\1\0\0\0\x097", b"\0\0")),
    *(DESCRIPTION + message(b"D", data) for data in (b"\0\1\0\0\0\0017777", b"\0\1\0\0")),
    *(ROW, DESCRIPTION + ROW + message(b"C", b"\xff\xff\0")),
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
@pytest.mark.parametrize("following", [b"", DESCRIPTION + ROW + DONE + READY], ids=["", "more"])
def test_an_answer(nonsense, following):
    """There is no end of the connection that would tell, only a wait that would not end."""
    with Fake(WELCOME, nonsense + following, lambda client: None) as server:
        raw = dbapi.connect(**server.place, sslmode="disable")
        raw.autocommit = True
        # For too much to be there is an error at once; for too little it waits, as it must.
        raw.wire.pg._usock.settimeout(0.2)
        with pytest.raises((InterfaceError, OperationalError)) as caught:
            raw.run("SELECT 7")
        assert raw.closed
        assert raw.transaction_status == TransactionStatus.UNKNOWN
        if following and nonsense[:1] not in (b"T", b"D", b"E", b"N", b"d", b"A"):
            assert "timed out" not in str(caught.value)
        raw.close()


@pytest.mark.parametrize("length", [-(2**31), -5, -1, 0, 3, 2**31 - 1])
def test_what_it_says_unasked(length):
    with Fake(lambda client: client.sendall(WELCOME + message(b"S", length=length))) as server:
        raw = dbapi.connect(**server.place, sslmode="disable")
        with pytest.raises(InterfaceError, match="cannot be read"):
            raw.poll()
        assert raw.closed


def test_values_that_make_no_sense():
    """Each is an error of its own, and the connection goes on."""
    rows = message(b"D", b"\0\1\0\0\0\1x") + ROW
    answer = DESCRIPTION + rows + DONE + READY
    good = DESCRIPTION + ROW + DONE + READY
    with Fake(WELCOME, answer, good) as server:
        raw = dbapi.connect(**server.place, sslmode="disable")
        raw.autocommit = True
        with pytest.raises(dbapi.DataError, match="cannot load a value: ValueError"):
            raw.run("SELECT 7")
        assert raw.run("SELECT 7") == [(7,)]
        raw.close()


def drip(data, seconds=0.02):
    def answer(client):
        for at in range(len(data)):
            client.sendall(data[at : at + 1])
            time.sleep(seconds)

    return answer


def endless(data):
    def answer(client):
        while True:
            client.sendall(data)

    return answer


LOGINS = {
    "nothing": b"",
    "http": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "http, and on": endless(b"HTTP/1.1 200 OK\r\n\r\n"),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an error of version 2": b"Ecould not fork new process for connection\n\0",
    "drips": drip(WELCOME * 20),
    "drips of notices": drip(message(b"N", b"Mhello\0\0") * 200),
    "notices": endless(message(b"N", b"M" + b"x" * 1000 + b"\0\0")),
    "parameters": endless(message(b"S", b"a\0b\0")),
    "requests": endless(message(b"R", b"\0\0\0\5salt")),
    "a long message": message(b"N", b"M", length=2**31 - 1),
    "a short one": message(b"R", length=3),
    "a negative one": message(b"R", length=-4),
    "an empty one": message(b"R", length=4),
    "a cut one": WELCOME[:20],
    "one that is not known": message(b"v", b"\0\0\0\0"),
    "a method that is not known": message(b"R", b"\0\0\0\x63"),
    "a step that is none": message(b"R", b"\0\0\0\x0br=,s=,i=1"),
    "no numbers": message(b"R", b"\0\0\0\x0ar\0\0"),
    "an encoding": message(b"S", b"client_encoding\0LATIN1\0") + WELCOME[:9] + READY,
    "no encoding": message(b"S", b"client_encoding\0a\xff\0") + WELCOME[:9] + READY,
}


@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require"])
@pytest.mark.parametrize("name", LOGINS)
def test_a_login(name, sslmode):
    answers = [LOGINS[name]] * 3
    if sslmode == "prefer":
        answers.insert(0, b"N")
    began = time.monotonic()
    with Fake(*answers) as server:
        with pytest.raises(OperationalError, match="connection to server at") as caught:
            dbapi.connect(**server.place, sslmode=sslmode, password="x", connect_timeout=1)
        assert time.monotonic() - began < 2.5, str(caught.value)
        assert len(str(caught.value)) < 500


def test_what_it_says_is_told():
    with Fake(LOGINS["an error of version 2"]) as server:
        says = r"does not speak PostgreSQL's protocol: it sent b'Ecould not fork new process"
        with pytest.raises(OperationalError, match=says):
            dbapi.connect(**server.place, sslmode="disable")


def test_a_name_that_nobody_tells(monkeypatch):
    """The time for it is of the time for the attempt."""
    code = """
def getaddrinfo(host, *args, **kwargs):
    if host == "slow.example" and not kwargs["flags"]:
        time.sleep(3)
    return look_up(host, *args, **kwargs)
"""
    module = {"__name__": "socket", "time": time, "look_up": socket.getaddrinfo}
    exec(code, module)  # in the module's name, for what other code raises is an interrupt
    monkeypatch.setattr(socket, "getaddrinfo", module["getaddrinfo"])
    began = time.monotonic()
    with Fake(WELCOME) as server:
        place = {**server.place, "host": "slow.example", "sslmode": "disable"}
        with pytest.raises(OperationalError, match="timed out while looking up the host name"):
            dbapi.connect(**place, connect_timeout=1)
        assert time.monotonic() - began < 2


def test_names_are_told_in_time():
    with Fake(WELCOME) as server:
        place = {**server.place, "host": "localhost", "sslmode": "disable"}
        dbapi.connect(**place, connect_timeout=5).close()
        place["host"] = "nowhere.invalid"
        with pytest.raises(OperationalError, match=r"nowhere\.invalid"):
            dbapi.connect(**place, connect_timeout=5)
        place["host"] = "a" * 70
        with pytest.raises(OperationalError, match="connection to server"):
            dbapi.connect(**place, connect_timeout=5)


def test_each_host_has_all_of_the_time():
    began = time.monotonic()
    with Fake(drip(WELCOME * 20)) as slow, Fake(WELCOME) as good:
        ports = f"{slow.place['port']},{slow.place['port']},{good.place['port']}"
        place = {**good.place, "host": "127.0.0.1,127.0.0.1,127.0.0.1", "port": ports}
        dbapi.connect(**place, sslmode="disable", connect_timeout=1).close()
    assert 2 <= time.monotonic() - began < 4


SQL = [
    "SELECT 1, 'text', 1.5, NULL, now(), '{1,2}'::int[], 'a=>1'::text, true, '1 day'::interval",
    "SELECT generate_series(1, 20), 'x'",
    "SET application_name = 'fuzz'; CREATE TEMP TABLE relet_fuzz (n int)",
    "SELECT pg_notify('here', 'payload'); LISTEN here; NOTIFY here, 'x'",
    "DO $$BEGIN RAISE NOTICE 'hello'; END$$",
]


@pytest.fixture(scope="module")
def recorded(server):
    parameters = parameters_for(server)

    def connect(**place):
        raw = dbapi.connect(**{**parameters, **place})
        raw.autocommit = True
        return raw

    return record(parameters, connect, SQL)


#: Where it is, in parts of a thousand of the whole; what is done there; with how many bytes.
mutations = st.lists(
    st.tuples(
        st.integers(0, 999),
        st.sampled_from(["replace", "insert", "delete", "repeat", "cut", "length"]),
        st.binary(min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=3,
)


def mutated(data: bytes, changes) -> bytes:
    for place, what, piece in changes:
        at = place * len(data) // 1000
        if what == "length":  # of the message that is there, or is next
            at = max(next_message(data, at) + 1, 0)
            data = data[:at] + piece.rjust(4, b"\0")[-4:] + data[at + 4 :]
        elif what == "cut":
            data = data[:at]
        else:
            rest = data[at:] if what in ("insert", "repeat") else data[at + len(piece) :]
            middle = {"delete": b"", "repeat": data[at : at + 40]}.get(what, piece)
            data = data[:at] + middle + rest
    return data


def next_message(data: bytes, at: int) -> int:
    position = 0
    while position < at and position + 5 <= len(data):
        length = int.from_bytes(data[position + 1 : position + 5], "big")
        if not 4 <= length < len(data):
            break
        position += 1 + length
    return position


def test_what_comes_is_changed(recorded):
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(recorded) - 1), mutations)
    def check(step, changes):
        answers = [*recorded[:step], mutated(recorded[step], changes)]
        began = time.monotonic()
        with Fake(*answers) as server:
            talk(server, step)
        assert time.monotonic() - began < 5

    check()


def talk(server, step):
    raw = None
    try:
        raw = dbapi.connect(**server.place, sslmode="disable", password="x", connect_timeout=4)
        raw.autocommit = True
        for sql in SQL[:step]:
            raw.run(sql)
        raw.poll()
        raw.run("SELECT 1")  # whose answer is the end, if it was not before
    except (OperationalError, InterfaceError) as error:
        if raw is not None and not raw.closed and not error.sqlstate:
            raise AssertionError("it is to be closed") from error
    except (dbapi.Error, UnicodeDecodeError):
        pass  # of a value, or of the server
    finally:
        if raw is not None:
            raw.close()
