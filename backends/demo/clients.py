"""Clients: the load."""

from __future__ import annotations

import http.client
import threading
import time
from typing import NamedTuple

from .server import Site

#: A client whose request failed waits so long, in seconds, not to spin.
_AFTER_ERROR_S = 0.05


class Answer(NamedTuple):
    """A request that was answered well."""

    finished: float  #: in seconds of `time.perf_counter`
    latency_ms: float


class Client(threading.Thread):
    """Sends one request after the other, over one connection that is kept open."""

    def __init__(self, site: Site, stop: threading.Event) -> None:
        # A daemon, so that a request that is never answered cannot keep the demo from ending.
        super().__init__(name="relet-demo-client", daemon=True)
        self._site = site
        self._stop_asked = stop
        self.answers: list[Answer] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Send requests until asked to stop; the last one is waited for."""
        connection = self._site.connect()
        while not self._stop_asked.is_set():
            started = time.perf_counter()
            try:
                connection.request("POST", "/order")
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    raise http.client.HTTPException(f"status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                connection.close()
                self._stop_asked.wait(_AFTER_ERROR_S)
            else:
                finished = time.perf_counter()
                self.answers.append(Answer(finished, (finished - started) * 1000))
        connection.close()


class Clients:
    """Many of them. They start with the block and send nothing more after it."""

    def __init__(self, site: Site, number: int) -> None:
        self._stop = threading.Event()
        self._clients = [Client(site, self._stop) for _ in range(number)]

    def __enter__(self) -> Clients:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Not waited for: when the demo is on its way out, the server ends next, and
        # with it what is still under way.
        self.stop()

    def stop(self) -> None:
        """Send no further request."""
        self._stop.set()

    def stopped(self) -> bool:
        """Whether the last request of each was answered; it is in time, each has a time-out."""
        return not any(client.is_alive() for client in self._clients)

    def answers(self) -> list[Answer]:
        """Return all answers so far."""
        return [answer for client in self._clients for answer in list(client.answers)]

    def errors(self) -> list[str]:
        """Return all errors so far."""
        return [error for client in self._clients for error in list(client.errors)]

    def answered(self) -> int:
        """Return how many requests were answered so far."""
        return sum(len(client.answers) for client in self._clients)
