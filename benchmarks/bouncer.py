"""PgBouncer in transaction mode, in front of the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common

#: Of its socket, whose directory nobody else uses.
_PORT = "6432"


def program() -> str | None:
    """Return the path of PgBouncer's program, or None if it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def version() -> str | None:
    """Return the version of PgBouncer, or None if it is not installed."""
    if (path := program()) is None:
        return None
    told = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    return told.partition("\n")[0].removeprefix("PgBouncer ").strip()


@contextmanager
def pgbouncer(
    database: common.Settings, *, size: int, clients: int, patience: int
) -> Iterator[common.Settings]:
    """Start PgBouncer in front of *database*; yield the entries of ``DATABASES[alias]`` for it.

    :param size: connections to the server.
    :param clients: connections to PgBouncer.
    :param patience: seconds that a client waits for a connection to the server.
    """
    path = program()
    assert path is not None
    owner = _owner(database)
    with tempfile.TemporaryDirectory(prefix="relet-pgbouncer-") as name:
        directory = Path(name)
        log = directory / "log"
        target = {
            "host": database["HOST"],
            "port": database["PORT"],
            "user": database["USER"],
            "password": database["PASSWORD"],
            "dbname": database["NAME"],
        }
        pairs = (
            f"{key}='{str(value).replace(chr(39), 2 * chr(39))}'"
            for key, value in target.items()
            if value
        )
        (directory / "pgbouncer.ini").write_text(
            f"""\
[databases]
relet = {" ".join(pairs)}
[pgbouncer]
listen_addr =
listen_port = {_PORT}
unix_socket_dir = {directory}
auth_type = any
pool_mode = transaction
default_pool_size = {size}
min_pool_size = {size}
max_client_conn = {clients + 10}
query_wait_timeout = {patience}
logfile = {log}
log_connections = 0
log_disconnections = 0
"""
        )
        if owner is not None:
            shutil.chown(directory, owner)
        process = subprocess.Popen(
            [path, "--quiet", str(directory / "pgbouncer.ini")],
            user=owner,
            stdin=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 10
            while not (directory / f".s.PGSQL.{_PORT}").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    told = log.read_text() if log.exists() else ""
                    raise SystemExit(f"PgBouncer did not start\n{told}")
                time.sleep(0.05)
            yield {
                "NAME": "relet",
                "USER": database["USER"],
                "PASSWORD": "",
                "HOST": str(directory),
                "PORT": _PORT,
            }
        finally:
            process.terminate()
            process.wait(10)


def _owner(database: common.Settings) -> str | int | None:
    """Return the user to run PgBouncer as, because it refuses root; None for the current user."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    if database["HOST"].startswith("/") and (uid := Path(database["HOST"]).stat().st_uid):
        return uid  # may read the directory of the server's socket
    return "nobody"
