"""A proxy between the driver and the server, which reads what passes by.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

_SSL_REQUEST = 80877103
_IN_RECOVERY = b"pg_is_in_recovery()"
#: What is answered with the Sync that follows: Parse, Bind, Describe, Execute, Close.
_BEFORE_SYNC = "PBDEC"


def error(sqlstate: str, message: str) -> bytes:
    """Return an ErrorResponse that ends a connection."""
    fields = {"S": "FATAL", "C": sqlstate, "M": message}
    data = b"".join(f"{key}{value}\0".encode() for key, value in fields.items()) + b"\0"
    return struct.pack("!ci", b"E", len(data) + 4) + data


def _at_once(sock: socket.socket) -> socket.socket:
    """Have each message sent at once: the second of two would wait 40 ms for an acknowledgement."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Message(NamedTuple):
    #: "client" or "server".
    sender: str
    kind: str
    data: bytes


class Session:
    """One connection that passes through."""

    def __init__(self, wire: Wire, client: socket.socket) -> None:
        self.wire = wire
        self.client = client
        self.server = wire.dial()
        self.threads = [
            threading.Thread(target=self._run, args=(run,))
            for run in (self._from_client, self._from_server)
        ]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def _run(self, run: Any) -> None:
        with suppress(OSError):
            run()
        self.cut()

    def cut(self) -> None:
        for sock in self.client, self.server:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _from_client(self) -> None:
        data = b""
        started = False
        while chunk := self.client.recv(1 << 16):
            if self.wire.stalled is not None:
                self.wire.stalled.set()
                self.wire.closing.wait()
            data += chunk
            while len(data) >= 5:
                (size,) = struct.unpack_from("!i", data, int(started))
                end = size + started
                if len(data) < end:
                    break
                message, data = data[:end], data[end:]
                if started:
                    self.wire.log(self, "client", message)
                    if self.wire.standby:
                        message = message.replace(_IN_RECOVERY, b"true".ljust(len(_IN_RECOVERY)))
                self.server.sendall(message)
                started = True

    def _from_server(self) -> None:
        data = b""
        while chunk := self.server.recv(1 << 16):
            data += chunk
            while len(data) >= 5:
                (size,) = struct.unpack_from("!i", data, 1)
                if len(data) <= size:
                    break
                message, data = data[: size + 1], data[size + 1 :]
                self.wire.log(self, "server", message)
                if message[:1] == self.wire.cut_in:
                    self.client.sendall(message[: len(message) // 2])
                    return
                self.client.sendall(message)


class Wire:
    """A proxy on a port of its own, at 127.0.0.1.

    :param parameters: where the server is, by libpq's names.
    :param tls: what TLS is ended with; without it, the answer to who asks for TLS is no.
    :param only_tls: whether who comes without is refused, as by a line of ``pg_hba.conf``.
    :param standby: whether sessions are made to believe that the server is one.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        tls: ssl.SSLContext | None = None,
        only_tls: bool = False,
        standby: bool = False,
    ) -> None:
        self._parameters = parameters
        self._tls = tls
        self._only_tls = only_tls
        self.standby = standby
        self.sessions: list[Session] = []
        self.logs: dict[Session, list[Message]] = {}
        #: In the middle of a message of the server's of this kind, connections are cut.
        self.cut_in = b""
        #: If it is an event, that is set, and no more is read, when a client sends something.
        self.stalled: threading.Event | None = None
        self.closing = threading.Event()
        #: How many connections have had TLS.
        self.secured = 0
        #: How many have been refused for want of it.
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def place(self) -> dict[str, Any]:
        """Settings of the driver to connect here."""
        return {"host": "127.0.0.1", "port": self.port}

    def dial(self) -> socket.socket:
        """Connect to the server."""
        host, port = self._parameters["host"], self._parameters.get("port", 5432)
        if not host.startswith("/"):
            return _at_once(socket.create_connection((host, int(port))))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(f"{host}/.s.PGSQL.{port}")
        return sock

    def _accept(self) -> None:
        while True:
            try:
                client = _at_once(self._listener.accept()[0])
            except OSError:
                return
            if (greeted := self._greet(client)) is not None:
                session = Session(self, greeted)
                self.sessions.append(session)
                session.start()

    def _greet(self, client: socket.socket) -> socket.socket | None:
        """Answer who asks for TLS; None if it is gone then."""
        secured = False
        try:
            start = client.recv(8, socket.MSG_PEEK)
            if len(start) == 8 and struct.unpack("!ii", start) == (8, _SSL_REQUEST):
                client.recv(8)
                client.sendall(b"S" if self._tls else b"N")
                if self._tls:
                    client = self._tls.wrap_socket(client, server_side=True)
                    self.secured += 1
                    secured = True
            if secured or not self._only_tls:
                return client
            client.recv(1 << 16)
            self.refused += 1
            client.sendall(error("28000", "no pg_hba.conf entry, no encryption"))
        except OSError:
            pass
        client.close()
        return None

    def log(self, session: Session, sender: str, message: bytes) -> None:
        found = Message(sender, message[:1].decode(), message[5:])
        self.logs.setdefault(session, []).append(found)

    def forget(self) -> None:
        """Forget what has passed by."""
        for log in self.logs.values():
            log.clear()

    @property
    def messages(self) -> list[Message]:
        return [message for log in self.logs.values() for message in log]

    @property
    def statements(self) -> list[str]:
        """The statements of the Query messages."""
        return [
            message.data[:-1].decode()
            for message in self.messages
            if message.sender == "client" and message.kind == "Q"
        ]

    def sent(self) -> Counter[str]:
        """How many messages the client has sent, by their kinds."""
        return Counter(message.kind for message in self.messages if message.sender == "client")

    def round_trips(self) -> int:
        """How often the client has sent, and waited until the server was ready.

        :raises AssertionError: it has sent something before that.
        """
        count = 0
        for log in self.logs.values():
            waits = False
            for message in log:
                if message.sender == "client" and message.kind != "X":
                    assert not waits, f"{message} was sent before the server was ready"
                    if message.kind not in _BEFORE_SYNC:
                        waits, count = True, count + 1
                elif message.sender == "server" and message.kind == "Z":
                    waits = False
            assert not waits
        return count

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for session in self.sessions:
            session.cut()
            for thread in session.threads:
                thread.join()
            session.client.close()
            session.server.close()
