"""Handshake: the socket for pg8000's login, which limits each wait and each message.

pg8000 believes any length that a message claims, and its timeout starts again for each part.

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
#: The kinds of messages that pg8000 handles while it logs in or runs a statement.
_KINDS = b"RKSZENATDCI"
#: How many bytes the server may send until the session is ready.
_LONGEST = 1 << 20
_TERMINATE = b"X\0\0\0\x04"
_CHUNK = 1 << 13
#: How many bytes an error shows.
_SHOWN = 80


class Deadline:
    """The time limit of an attempt to connect.

    :param seconds: how long the attempt may take.
    :param each: how long a single wait may take, if that is less.
    """

    def __init__(self, seconds: float, each: float | None = None) -> None:
        self._seconds, self._each = seconds, each
        self.restart()

    def restart(self) -> None:
        """Start again, for another address."""
        self._end = monotonic() + self._seconds

    def remaining(self) -> float:
        """Return how many seconds the next wait may take.

        :raises TimeoutError: the time is over.
        """
        if (remaining := self._end - monotonic()) <= 0:
            raise TimeoutError("timed out")
        return remaining if self._each is None else min(remaining, self._each)


class Handshake:
    """A socket on which pg8000 logs in."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self.socket = sock
        self._deadline = deadline

    # pg8000 uses channel binding if the socket is an SSLSocket.
    __class__ = property(lambda self: type(self.socket))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)

    def makefile(self, mode: str) -> HandshakeFile:
        """Return the file that pg8000 reads and writes."""
        return HandshakeFile(self.socket, self._deadline)


class HandshakeFile:
    """The file of a socket on which pg8000 logs in.

    A buffered file of Python's would restart the timeout for each part of a message. When it is
    collected, it would try again to send what it could not send.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline
        self._received = bytearray()
        self._to_send = bytearray()
        self._at_header = True
        self._count = 0

    def write(self, data: bytes) -> None:
        """Buffer *data* until `flush`."""
        self._to_send += data

    def flush(self) -> None:
        """Send the buffered data."""
        data, self._to_send = self._to_send, bytearray()
        if data == _TERMINATE:
            self._send_terminate()
            return
        self._socket.settimeout(self._deadline.remaining())
        self._socket.sendall(data)

    def _send_terminate(self) -> None:
        """Send Terminate, if that needs no waiting."""
        try:
            self._socket.settimeout(0)
            self._socket.sendall(_TERMINATE)
        except OSError as error:
            if from_outside(error, *SOCKETS):
                raise

    def read(self, size: int) -> bytes:
        """Return *size* bytes: the header of a message and its body, in turn.

        :raises TimeoutError: they do not arrive in time.
        :raises ConnectionResetError: the server has closed the connection.
        :raises OperationalError: the bytes are no message of PostgreSQL's protocol.
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
        """Return what has already been received."""
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
        """Do nothing: the socket is the caller's."""
