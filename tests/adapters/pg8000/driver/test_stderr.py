"""Nothing is written to stderr when a connection is dropped, closed, or broken."""

from __future__ import annotations

import gc
import io
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress

import pg8000.core
import pytest

from relet.adapters.pg8000 import dbapi

from ....support.fake_server import WELCOME, Fake, message
from ....support.sessions import kill, pid_of


@pytest.fixture
def ignored(monkeypatch):
    """Return what could not be raised, and would be written to stderr."""
    found = []

    class Pair(io.BufferedRWPair):
        """Python tells of its files since 3.13, before in its development mode alone."""

        def __del__(self):
            try:
                self.close()
            except Exception as error:
                found.append(repr(error))

    def ignored():
        gc.collect()
        return found

    monkeypatch.setattr(io, "BufferedRWPair", Pair)
    monkeypatch.setattr(sys, "unraisablehook", lambda args: found.append(repr(args.exc_value)))
    return ignored


def reset(client):
    """End the connection at once, with what it has not read yet."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


ENDS = {
    "closed": lambda client: client.shutdown(socket.SHUT_RDWR),
    "reset": reset,
    "silence": lambda client: client.recv(1),
    "nonsense": lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}
BEGINNINGS = {
    "at once": b"",
    "after a part": WELCOME[:12],
    "when asked for a password": message(b"R", b"\0\0\0\3"),
    "with an error": message(b"E", b"SFATAL\0C28000\0Mno\0\0"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_login_that_fails(ignored, beginning, end):
    def answer(client):
        client.sendall(BEGINNINGS[beginning])
        if beginning == "when asked for a password":
            client.recv(1000)
        ENDS[end](client)

    with Fake(answer) as server:
        for _ in range(3):
            with pytest.raises(dbapi.OperationalError):
                dbapi.connect(
                    **server.place, sslmode="disable", password="x" * 100_000, timeout=0.2
                )
    assert ignored() == []


@pytest.mark.parametrize("beginning", [name for name in BEGINNINGS if name != "with an error"])
def test_a_login_that_is_interrupted(ignored, beginning):
    def interrupt(*args):
        raise KeyboardInterrupt

    def answer(client):
        client.sendall(BEGINNINGS[beginning])
        # Another thread's signal would not wake the main one.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        client.recv(1)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Fake(answer) as server, pytest.raises(KeyboardInterrupt):
            dbapi.connect(**server.place, sslmode="disable", password="x", timeout=60)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ignored() == []


@pytest.mark.parametrize("how", ["closed", "killed", "cut", "reset"])
@pytest.mark.parametrize("dropped", [True, False])
def test_a_connection_that_ends(connect, wire, admin, ignored, how, dropped):
    raw = connect(**wire.place)
    if how == "killed":
        kill(admin, pid_of(raw))
    elif how == "cut":
        wire.sessions[0].cut()
    elif how == "reset":
        sock = wire.sessions[0].client
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.sessions[0].cut()
    if how != "closed":
        with pytest.raises(dbapi.Error):
            raw.run(f"SELECT '{'x' * 3_000_000}'")
    raw.close()
    if dropped:
        del raw
    assert ignored() == []


def test_a_connection_that_is_dropped(parameters, ignored):
    """But that it is not closed."""
    opened = [dbapi.connect(**parameters)]
    with pytest.warns(ResourceWarning, match="unclosed"):
        opened.clear()
    assert ignored() == []


@pytest.mark.parametrize("then", ["use", "close", "drop"])
def test_a_connector_that_leaves_something(connect, wire, parameters, ignored, then):
    """What it could not send is in its file's buffer."""

    def left(**settings):
        sock = socket.create_connection(("127.0.0.1", wire.port))
        pg = pg8000.core.CoreConnection(
            parameters["user"],
            database=parameters["dbname"],
            sock=sock,
            ssl_context=False,
        )
        pg._sock.write(b"x" * 100)
        pg._usock.shutdown(socket.SHUT_RDWR)
        return pg

    with suppress(dbapi.OperationalError):
        raw = connect(connect=left, password="x")
        if then == "use":
            with pytest.raises(dbapi.OperationalError):
                raw.run("SELECT 1")
        raw.close()
        del raw
    assert ignored() == []


def test_a_connector_whose_buffer_is_full(connect, wire, parameters, ignored):
    """Nothing waits for a server that does not read."""

    def full(**settings):
        sock = socket.create_connection(("127.0.0.1", wire.port))
        sock.settimeout(60)
        pg = pg8000.core.CoreConnection(
            parameters["user"], database=parameters["dbname"], sock=sock, ssl_context=False
        )
        pg._usock.settimeout(0.2)
        with pytest.raises(OSError, match="timed out"):
            wire.stalled = threading.Event()
            while True:
                pg._usock.sendall(b"Q\0\x0f\xff\xff" + b"x" * 1_000_000)
        pg._sock.write(b"x" * 100)
        return pg

    raw = connect(connect=full, password="x")
    raw.close()
    del raw
    assert ignored() == []
