"""I17: what the server sends is read in linear time, however large, and however it arrives.

What is copied is counted: four times as much comes, and four times as much is copied.
"""

from __future__ import annotations

import socket
import struct

import pytest


def message(kind, data):
    return kind + (4 + len(data)).to_bytes(4, "big") + data


NOTICE = message(b"N", b"Ma notice\0\0")
NOTIFICATION = message(b"A", b"\0\0\0\7here\0now\0")


class Counted:
    copied = 0


class Chunk(bytes):
    """What the socket gives."""

    def __add__(self, other):
        Counted.copied += len(self) + len(other)
        return Chunk(super().__add__(other))

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if isinstance(key, slice):
            Counted.copied += len(found)
            return Chunk(found)
        return found


class Buffer(bytearray):
    """What the connection keeps."""

    def __add__(self, other):
        Counted.copied += len(self) + len(other)
        return Buffer(super().__add__(other))

    def __iadd__(self, other):
        Counted.copied += len(other)
        return super().__iadd__(other)

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if isinstance(key, slice):
            Counted.copied += len(found)
            return Buffer(found)
        return found


class Socket:
    """Gives *data*, at most 1000 bytes at a time."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def sendall(self, data):
        pass

    def recv(self, size):
        begin, self.position = self.position, self.position + min(size, 1000)
        return Chunk(self.data[begin : self.position])


@pytest.fixture
def counted(connect):
    """Count what is copied while *call* reads *data*.

    It is called with a connection that has *sock* in the place of its own.
    """

    def counted(sock, call):
        raw = connect()
        wire = raw.wire
        kept, wire._socket = wire._socket, sock
        wire._rest = (Buffer if isinstance(wire._rest, bytearray) else Chunk)(wire._rest)
        Counted.copied = 0
        call(raw)
        assert not wire._rest
        wire._socket = kept
        return Counted.copied

    return counted


@pytest.fixture
def arriving(counted):
    """The same for *data* that arrives in pieces of *size* bytes; *take* is called for each."""

    def arriving(data, size, take):
        def call(raw):
            for begin in range(0, len(data), size):
                theirs.sendall(data[begin : begin + size])
                take(raw)
            raw.poll()

        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            return counted(ours, call)

    return arriving


def poll(raw):
    raw.poll()


@pytest.mark.parametrize("size", [1000, 32_000], ids=["in parts", "at once"])
@pytest.mark.parametrize("sent", [NOTICE, NOTIFICATION], ids=["notices", "notifications"])
def test_many_messages(arriving, sent, size):
    few, many = (arriving(sent * count, size, poll) for count in (400, 1600))
    assert many < 4.2 * few


def test_a_large_message(arriving):
    small, large = (
        arriving(message(b"N", b"M" + b"a" * length + b"\0\0"), 1000, poll)
        for length in (50_000, 200_000)
    )
    assert large < 4.2 * small


def test_what_comes_while_something_is_sent(arriving):
    few, many = (
        arriving(NOTICE * n, 1000, lambda raw: raw.wire._read_available()) for n in (400, 1600)
    )
    assert many < 4.2 * few


def test_a_large_row(counted):
    column = b"text\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    described, done = message(b"T", b"\0\1" + column), message(b"C", b"SELECT 1\0")

    def answer(length):
        row = message(b"D", b"\0\1" + length.to_bytes(4, "big") + b"a" * length)
        return Socket(described + row + done + message(b"Z", b"I"))

    def select(raw):
        ((value,),) = raw.run("SELECT 1")
        assert set(value) == {"a"}

    small, large = (counted(answer(length), select) for length in (50_000, 200_000))
    assert large < 4.2 * small
