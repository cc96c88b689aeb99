"""A TCP proxy that is a bad network when it is told to."""

from __future__ import annotations

import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from .server import HOST, free_port

_RESET = struct.pack("ii", 1, 0)
#: Seconds after which the end of a connection has arrived here, however busy the system is.
_SETTLED = 0.1


class Proxy:
    """Forwards what comes to `port` to the port `target`, in one thread.

    What the methods do is done when they return.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        #: Seconds that whatever passes is late.
        self.delay = 0.0
        self._stalled = self._deaf = False
        self._listener: socket.socket | None = None
        self._peers: dict[socket.socket, socket.socket] = {}
        self._ended: set[socket.socket] = set()
        self._frozen: set[socket.socket] = set()
        self._clients: set[socket.socket] = set()
        #: When each connection began, and when its client ended it.
        self._begun: dict[socket.socket, float] = {}
        self._spans: list[tuple[float, float]] = []
        self._most = 0
        self._late: list[tuple[float, socket.socket, bytes]] = []
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._bell, self._ear = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self.accept()

    # Orders.

    def stall(self) -> None:
        """Forward nothing, and lose nothing, until `resume`."""
        self._order(self._stall)

    def resume(self) -> None:
        self._order(self._resume)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        self.stall()
        try:
            yield
        finally:
            self.resume()

    def freeze(self, client_port: int) -> None:
        """The same for one connection, whose *client_port* the server knows, until `thaw`."""
        self._order(lambda: self._freeze(client_port))

    def thaw(self) -> None:
        self._order(self._thaw)

    def reset(self) -> None:
        """End all connections, as a router that has forgotten them: by RST, to both sides."""
        self._order(self._reset)

    def cut(self) -> None:
        """Close all connections."""
        self._order(self._cut)

    def refuse(self) -> None:
        """Take no new connections: who comes is told so by the system."""
        self._order(self._refuse)

    def accept(self) -> None:
        self._order(self._accept_again)

    def swallow(self) -> None:
        """Take what comes, and drop it: nobody is told anything, until `hear`."""
        self._order(self._swallow)

    def hear(self) -> None:
        self._order(self._hear)

    def close(self) -> None:
        self._order(self._refuse)
        self._order(self._cut)
        self._orders.put(None)
        self._bell.send(b"!")
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._selector.close()
        self._bell.close()
        self._ear.close()

    @property
    def links(self) -> int:
        """How many connections there are."""
        return len(self._clients)

    @property
    def most_links(self) -> int:
        """How many connections clients had at once, at most.

        The system may announce that one begins before another that has ended has ended here. So
        each is counted when it is `_SETTLED` seconds old.
        """
        self._order(self._count)
        return self._most

    def _order(self, action: Callable[[], None]) -> None:
        done = threading.Event()

        def act() -> None:
            try:
                action()
            finally:
                done.set()

        self._orders.put(act)
        self._bell.send(b"!")
        assert done.wait(10), "the proxy has died"

    # What follows runs in the proxy's thread.

    def _stall(self) -> None:
        self._stalled = True

    def _resume(self) -> None:
        self._stalled = False

    def _freeze(self, client_port: int) -> None:
        for client in self._clients:
            server = self._peers[client]
            if server.getsockname()[1] == client_port:
                self._frozen = {client, server} - self._ended
        for sock in self._frozen:
            self._selector.unregister(sock)

    def _thaw(self) -> None:
        while self._frozen:
            self._selector.register(self._frozen.pop(), selectors.EVENT_READ)

    def _swallow(self) -> None:
        self._deaf = True

    def _hear(self) -> None:
        self._deaf = False

    def _refuse(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept_again(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((HOST, self.port), backlog=64)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _reset(self) -> None:
        for sock in self._peers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._cut()

    def _cut(self) -> None:
        for sock in list(self._peers):
            self._drop(sock)

    def _count(self) -> None:
        now = monotonic()
        spans = [*self._spans, *((begun, now) for begun in self._begun.values())]
        for begun, _ in spans:
            settled = begun + _SETTLED
            there = sum(first <= begun and settled < last for first, last in spans)
            self._most = max(self._most, there)
        # What has ended is beside nothing that comes.
        self._spans.clear()

    def _run(self) -> None:
        while True:
            late = self._late[0][0] - monotonic() if self._late else None
            ready = self._selector.select(None if late is None else max(late, 0))
            if any(key.fileobj is self._ear for key, _ in ready):
                self._ear.recv(1)
                order = self._orders.get()
                if order is None:
                    return
                order()
                continue
            if self._stalled:
                # Only orders are listened to.
                self._wait_for_order()
                continue
            while self._late and self._late[0][0] <= monotonic():
                _, target, data = self._late.pop(0)
                self._send(target, data)
            for key, _ in ready:
                sock: Any = key.fileobj
                if sock is self._listener:
                    self._accept()
                elif sock in self._peers:
                    self._forward(sock)

    def _wait_for_order(self) -> None:
        with selectors.DefaultSelector() as only:
            only.register(self._ear, selectors.EVENT_READ)
            only.select()

    def _accept(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection((HOST, self.target), 5)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        self._clients.add(client)
        self._begun[client] = monotonic()
        for one, other in (client, server), (server, client):
            one.settimeout(5)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, sock: socket.socket) -> None:
        target = self._peers[sock]
        try:
            data = sock.recv(65536)
        except OSError:
            self._drop(sock)
            return
        if self._deaf:
            if not data:
                self._drop(sock)
            return
        if not data:
            self._selector.unregister(sock)
            self._ended.add(sock)
            self._end(sock)  # the server may notice later
        if self.delay:
            self._late.append((monotonic() + self.delay, target, data))
        else:
            self._send(target, data)

    def _send(self, target: socket.socket, data: bytes) -> None:
        if target not in self._peers:
            return
        try:
            if data:
                target.sendall(data)
            elif target in self._ended:
                self._drop(target)
            else:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(target)

    def _end(self, sock: socket.socket) -> None:
        if sock in self._begun:
            self._spans.append((self._begun.pop(sock), monotonic()))

    def _drop(self, sock: socket.socket) -> None:
        """Close a connection, on both sides."""
        for one in (sock, self._peers.get(sock)):
            if one is None or one not in self._peers:
                continue
            if one not in self._ended and one not in self._frozen:
                self._selector.unregister(one)
            self._frozen.discard(one)
            self._clients.discard(one)
            self._end(one)
            self._ended.discard(one)
            one.close()
        other = self._peers.pop(sock, None)
        if other is not None:
            self._peers.pop(other, None)


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
