"""The demo's servers: PostgreSQL, and gunicorn with the Django project."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relet.backends.embedded import Server, embedded_postgres

from .errors import DemoError
from .interruption import Interruption
from .process import Process, log_tail

_PROJECT = "relet.backends.demo.project"
#: How long gunicorn may take to answer, and the project to be prepared, in seconds.
_START_TIMEOUT_S = 30.0
#: How long a request may take. With one connection and many clients it may wait for most of it.
REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Place:
    """Where the demo's files are.

    :param directory: a temporary directory.
    """

    directory: Path

    @property
    def log(self) -> Path:
        """The file that all servers log to."""
        return self.directory / "log"


@contextmanager
def postgres(place: Place, interruption: Interruption) -> Iterator[Server]:
    """Start PostgreSQL, stop it at the end.

    :raises DemoError: it does not start.
    """
    logger = logging.getLogger("embedded_postgres")
    handler = logging.FileHandler(place.log)
    logger.addHandler(handler)
    try:
        with ExitStack() as stack:
            try:
                with interruption.blocked():
                    server = stack.enter_context(embedded_postgres())
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                # PostgreSQL's own programs unblock signals: Ctrl-C may have ended one.
                interruption.check()
                raise DemoError(
                    f"PostgreSQL does not start: {error}\n{log_tail(place.log)}"
                ) from error
            try:
                interruption.check()
                yield server
            finally:
                with interruption.blocked():
                    stack.close()
    finally:
        logger.removeHandler(handler)
        handler.close()


@dataclass(frozen=True)
class Project:
    """The Django project, with all that its settings read from the environment.

    :param engine: for ``DATABASES``.
    :param connections: the size of the pool.
    """

    engine: str
    database: Server
    connections: int

    def environment(self) -> dict[str, str]:
        """Return the environment to run it in."""
        # PGOPTIONS and the like, or gunicorn's arguments, are meant for something else.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PG", "GUNICORN_"))
        }
        return {
            **inherited,
            "DJANGO_SETTINGS_MODULE": f"{_PROJECT}.settings",
            "RELET_DEMO_CONNECTIONS": str(self.connections),
            "RELET_DEMO_DATABASE": json.dumps(self.database.database()),
            "RELET_DEMO_ENGINE": self.engine,
        }

    def prepare(self, place: Place, interruption: Interruption) -> None:
        """Make the tables, and what is to be read from them.

        :raises DemoError: that failed.
        """
        with Process(
            "Preparing the database",
            [sys.executable, "-m", f"{_PROJECT}.prepare"],
            environment=self.environment(),
            log=place.log,
            directory=place.directory,
        ) as process:
            until = time.monotonic() + _START_TIMEOUT_S
            while process.poll() is None:
                if time.monotonic() > until:
                    raise process.failed(f"took more than {_START_TIMEOUT_S:.0f} seconds")
                interruption.sleep(0.02)
            if process.poll() != 0:
                raise process.failed("failed")

    @contextmanager
    def serve(self, threads: int, place: Place, interruption: Interruption) -> Iterator[Site]:
        """Serve it with gunicorn: one process with that many threads.

        :raises DemoError: gunicorn does not start, or the project does not answer.
        """
        # Bound here, so that the port is known and surely free.
        with ExitStack() as stack:
            with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
                site = Site(listener.getsockname()[1])
                process = stack.enter_context(
                    Process(
                        "gunicorn",
                        [
                            *(sys.executable, "-m", "gunicorn"),
                            *("--config", f"python:{_PROJECT}.gunicorn_conf"),
                            *("--bind", f"fd://{listener.fileno()}"),
                            *("--threads", str(threads)),
                            f"{_PROJECT}.wsgi:application",
                        ],
                        environment=self.environment(),
                        log=place.log,
                        directory=place.directory,
                        pass_fds=[listener.fileno()],
                    )
                )
            until = time.monotonic() + _START_TIMEOUT_S
            while not site.answers():
                process.check()
                if time.monotonic() > until:
                    raise process.failed(f"does not answer for {_START_TIMEOUT_S:.0f} seconds")
                interruption.sleep(0.05)
            yield site


@dataclass(frozen=True)
class Site:
    """The project, where it is served."""

    port: int

    def connect(self, timeout: float = REQUEST_TIMEOUT_S) -> http.client.HTTPConnection:
        """Return a client's connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def answers(self) -> bool:
        """Whether it serves requests already."""
        try:
            self._ask("GET", "/stats", timeout=1.0)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def restart_stats(self) -> None:
        """Begin to count afresh."""
        self._ask("POST", "/stats")

    def stats(self) -> dict[str, float]:
        """Return what was counted since `restart_stats`."""
        stats: dict[str, float] = self._ask("GET", "/stats")
        return stats

    def orders(self) -> int:
        """Return how many orders are in the database."""
        return int(self._ask("GET", "/orders")["orders"])

    def _ask(self, method: str, path: str, timeout: float = REQUEST_TIMEOUT_S) -> Any:
        """Send a request, return what the JSON of its answer says.

        :raises OSError, http.client.HTTPException: there was none, or it was none to be used.
        """
        connection = self.connect(timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise http.client.HTTPException(f"{path} was answered with {response.status}")
        return json.loads(body)
