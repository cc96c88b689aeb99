"""A server that takes connections, and says nothing."""

from __future__ import annotations

import selectors
import socket
import threading


class SilentServer:
    """Listens at `port` of `HOST`, until the block ends, or `end` is called."""

    HOST = "127.0.0.1"

    def __init__(self) -> None:
        self._listener = socket.create_server((self.HOST, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        #: How many connections were open at once, at most.
        self.most = 0
        #: Those that are open.
        self.clients: set[socket.socket] = set()
        self._bell, self._ear = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> SilentServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self) -> None:
        """Close all connections, and take no more."""
        self._bell.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ear, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._ear:
                        for one in (self._listener, self._ear, *self.clients):
                            one.close()
                        return
                    if sock is self._listener:
                        client, _ = sock.accept()
                        self.clients.add(client)
                        selector.register(client, selectors.EVENT_READ)
                        self.most = max(self.most, len(self.clients))
                    elif not self._received(sock):
                        selector.unregister(sock)
                        self.clients.discard(sock)
                        sock.close()

    @staticmethod
    def _received(sock: socket.socket) -> bool:
        try:
            return bool(sock.recv(1 << 16))
        except OSError:
            return False
