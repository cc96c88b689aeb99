"""Clients: threads that send the requests."""

from __future__ import annotations

import http.client
import threading
import time
from typing import NamedTuple

from .server import Site

#: Seconds that a client waits after a failed request, so that it does not spin.
_AFTER_ERROR_S = 0.05


class Answer(NamedTuple):
    """A request that was answered successfully."""

    finished: float  #: `time.perf_counter`, in seconds
    latency_ms: float


class Client(threading.Thread):
    """Sends one request after the other over one keep-alive connection."""

    def __init__(self, site: Site, stop: threading.Event) -> None:
        # A daemon, so that an unanswered request cannot keep the demo from ending.
        super().__init__(name="relet-demo-client", daemon=True)
        self._site = site
        self._stop_asked = stop
        self.answers: list[Answer] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Send requests until asked to stop. The last one is still completed."""
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
    """A group of clients. They start when the block is entered and stop when it is left."""

    def __init__(self, site: Site, number: int) -> None:
        self._stop = threading.Event()
        self._clients = [Client(site, self._stop) for _ in range(number)]

    def __enter__(self) -> Clients:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Don't wait: if the demo is ending, the server stops next and ends pending requests.
        self.stop()

    def stop(self) -> None:
        """Stop sending requests, without waiting for pending ones."""
        self._stop.set()

    def stopped(self) -> bool:
        """Whether every client has ended. This takes at most the time-out of a request."""
        return not any(client.is_alive() for client in self._clients)

    def answers(self) -> list[Answer]:
        """Return all answers so far."""
        return [answer for client in self._clients for answer in list(client.answers)]

    def errors(self) -> list[str]:
        """Return all errors so far."""
        return [error for client in self._clients for error in list(client.errors)]

    def answered(self) -> int:
        """Return the number of requests answered so far."""
        return sum(len(client.answers) for client in self._clients)
