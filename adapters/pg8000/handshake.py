"""What pg8000 logs in through: a socket that never waits too long, or for what makes no sense.

pg8000 believes whatever length a message says it has, and waits for each part of it anew.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import socket
from struct import Struct
from time import monotonic
from typing import Any

from relet.core.outside import from_outside

from . import errors
from .errors import SOCKETS

_header = Struct("!ci").unpack_from
_HEADER = 5
#: The messages that pg8000 knows what to do with, while it logs in or runs a statement.
_KINDS = b"RKSZENATDCI"
#: How many bytes may come until the session is ready.
_LONGEST = 1 << 20
_TERMINATE = b"X\0\0\0\x04"
_CHUNK = 1 << 13
#: How many of them an error shows.
_SHOWN = 80


class Deadline:
    """The end of an attempt to connect.

    :param seconds: how long it may take.
    :param each: how long one wait may take, if that is less.
    """

    def __init__(self, seconds: float, each: float | None = None) -> None:
        self._seconds, self._each = seconds, each
        self.restart()

    def restart(self) -> None:
        """Begin anew: with another address."""
        self._end = monotonic() + self._seconds

    def remaining(self) -> float:
        """Return how many seconds the next wait may take.

        :raises TimeoutError: it has passed.
        """
        if (remaining := self._end - monotonic()) <= 0:
            raise TimeoutError("timed out")
        return remaining if self._each is None else min(remaining, self._each)


class Handshake:
    """A socket until pg8000 has logged in on it."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self.socket = sock
        self._deadline = deadline

    # pg8000 binds the channel where the socket has TLS.
    __class__ = property(lambda self: type(self.socket))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)

    def makefile(self, mode: str) -> HandshakeFile:
        """Return the file that pg8000 reads and writes."""
        return HandshakeFile(self.socket, self._deadline)


class HandshakeFile:
    """The file of a socket until pg8000 has logged in on it.

    A buffered file of Python's would wait for each part of a message as long as for the first, and
    send again what could not be sent when it is collected.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline
        self._received = bytearray()
        self._to_send = bytearray()
        self._at_header = True
        self._count = 0

    def write(self, data: bytes) -> None:
        """Keep *data* until `flush`."""
        self._to_send += data

    def flush(self) -> None:
        """Send what was written."""
        data, self._to_send = self._to_send, bytearray()
        if data == _TERMINATE:
            self._send_terminate()
            return
        self._socket.settimeout(self._deadline.remaining())
        self._socket.sendall(data)

    def _send_terminate(self) -> None:
        """Tell the server that this is the end, if it can be told at once."""
        try:
            self._socket.settimeout(0)
            self._socket.sendall(_TERMINATE)
        except OSError as error:
            if from_outside(error, *SOCKETS):
                raise

    def read(self, size: int) -> bytes:
        """Return *size* bytes: the header of a message and its body, in turn.

        :raises TimeoutError: they do not come in time.
        :raises ConnectionResetError: they do not come.
        :raises OperationalError: it is no message of PostgreSQL's.
        """
        self._fill(size)
        if self._at_header:
            kind, length = _header(self._received)
            if kind not in _KINDS or not 4 <= length <= _LONGEST - self._count:
                shown = bytes(self._received[:_SHOWN])
                raise errors.OperationalError(
                    f"the server does not speak PostgreSQL's protocol: it sent {shown!r}"
                )
        self._at_header = not self._at_header
        self._count += size
        return self._take(size)

    def read1(self, size: int) -> bytes:
        """Return what has been received already."""
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _fill(self, size: int) -> None:
        while len(self._received) < size:
            self._socket.settimeout(self._deadline.remaining())
            chunk = self._socket.recv(_CHUNK)
            if not chunk:
                raise ConnectionResetError("the server closed the connection unexpectedly")
            self._received += chunk

    def close(self) -> None:
        """Nothing: it has no socket of its own."""
