"""A server that answers whatever it is told to, on TCP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import pack
from typing import Any

from .wire import Wire


def message(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a message; one that says it has another *length*, if that is given."""
    return pack("!ci", kind, len(data) + 4 if length is None else length) + data


#: What is said when all goes well, until the session is ready.
PARAMETERS = b"".join(
    message(b"S", name + b"\0" + value + b"\0")
    for name, value in ((b"client_encoding", b"UTF8"), (b"server_version", b"17.0"))
)
READY = message(b"Z", b"I")
WELCOME = message(b"R", b"\0\0\0\0") + PARAMETERS + message(b"K", b"\0\0\0\1\0\0\0\2") + READY


class Fake:
    """Answers each thing that a client sends with the next of *answers*, and ends then.

    :param answers: bytes; or functions that are called with the socket.
    """

    def __init__(self, *answers: bytes | Callable[[socket.socket], object]) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self._listener.getsockname()[1],
            "user": "relet",
            "dbname": "relet",
        }
        self.done = threading.Event()
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            for answer in self._answers:
                if not client.recv(1 << 16):
                    return
                if callable(answer):
                    answer(client)
                else:
                    client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass

    def __enter__(self) -> Fake:
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.done.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for client in self._clients:
            client.close()


def record(parameters: dict[str, Any], connect: Callable[..., Any], sql: Sequence[str]) -> Any:
    """Return what the server answers to a login, and to each of *sql*."""
    with Wire(parameters) as wire:
        raw = connect(**wire.place, sslmode="disable")
        answers = []
        for statement in (None, *sql):
            if statement is not None:
                raw.run(statement)
            sent = [sent for sent in wire.messages if sent.sender == "server"]
            answers.append(b"".join(message(one.kind.encode(), one.data) for one in sent))
            wire.forget()
        raw.close()
    return answers
