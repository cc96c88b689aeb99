"""The demo's servers: PostgreSQL, and gunicorn serving the Django project."""

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
#: Seconds for gunicorn to answer, and for preparing the database.
_START_TIMEOUT_S = 30.0
#: Seconds for a request. With one connection and many clients it may wait for most of them.
REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Workdir:
    """The directory of the demo's files.

    :param directory: a temporary directory.
    """

    directory: Path

    @property
    def log(self) -> Path:
        """The log file of all servers."""
        return self.directory / "log"


@contextmanager
def postgres(workdir: Workdir, interruption: Interruption) -> Iterator[Server]:
    """Start PostgreSQL; stop it when the block ends.

    :raises DemoError: it did not start.
    """
    logger = logging.getLogger("embedded_postgres")
    handler = logging.FileHandler(workdir.log)
    logger.addHandler(handler)
    try:
        with ExitStack() as stack:
            try:
                with interruption.blocked():
                    server = stack.enter_context(embedded_postgres())
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                # PostgreSQL's programs unblock signals, so Ctrl-C may have ended one of them.
                interruption.check()
                raise DemoError(
                    f"PostgreSQL did not start: {error}\n{log_tail(workdir.log)}"
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
    """The Django project and its configuration.

    :param engine: its ``ENGINE``.
    :param connections: size of the pool.
    """

    engine: str
    database: Server
    connections: int

    def environment(self) -> dict[str, str]:
        """Return the environment variables that its settings read, and the inherited ones."""
        # Without variables such as PGOPTIONS and GUNICORN_CMD_ARGS, which would change the demo.
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

    def prepare(self, workdir: Workdir, interruption: Interruption) -> None:
        """Create the tables and fill them.

        :raises DemoError: preparing failed.
        """
        with Process(
            "Preparing the database",
            [sys.executable, "-m", f"{_PROJECT}.prepare"],
            environment=self.environment(),
            log=workdir.log,
            directory=workdir.directory,
        ) as process:
            until = time.monotonic() + _START_TIMEOUT_S
            while process.poll() is None:
                if time.monotonic() > until:
                    raise process.failed(f"took more than {_START_TIMEOUT_S:.0f} seconds")
                interruption.sleep(0.02)
            if process.poll() != 0:
                raise process.failed("failed")

    @contextmanager
    def serve(self, threads: int, workdir: Workdir, interruption: Interruption) -> Iterator[Site]:
        """Serve the project with gunicorn, in one process with *threads* threads.

        :raises DemoError: gunicorn did not start, or the project did not answer.
        """
        # Bound here, so that the port is known and certainly free.
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
                        log=workdir.log,
                        directory=workdir.directory,
                        pass_fds=[listener.fileno()],
                    )
                )
            until = time.monotonic() + _START_TIMEOUT_S
            while not site.answers():
                process.check()
                if time.monotonic() > until:
                    raise process.failed(f"did not answer within {_START_TIMEOUT_S:.0f} seconds")
                interruption.sleep(0.05)
            yield site


@dataclass(frozen=True)
class Site:
    """A client of the served project."""

    port: int

    def connect(self, timeout: float = REQUEST_TIMEOUT_S) -> http.client.HTTPConnection:
        """Return a new HTTP connection, not opened yet."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def answers(self) -> bool:
        """Whether the project answers requests yet."""
        try:
            self._ask("GET", "/stats", timeout=1.0)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def restart_stats(self) -> None:
        """Reset the pool's statistics."""
        self._ask("POST", "/stats")

    def stats(self) -> dict[str, float]:
        """Return the pool's statistics since `restart_stats`."""
        stats: dict[str, float] = self._ask("GET", "/stats")
        return stats

    def orders(self) -> int:
        """Return the number of orders in the database."""
        return int(self._ask("GET", "/orders")["orders"])

    def _ask(self, method: str, path: str, timeout: float = REQUEST_TIMEOUT_S) -> Any:
        """Send a request; return the decoded JSON of the response.

        :raises OSError, http.client.HTTPException: the request failed.
        """
        connection = self.connect(timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise http.client.HTTPException(f"{path} returned status {response.status}")
        return json.loads(body)
