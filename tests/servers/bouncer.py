"""PgBouncer, before the project's database."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .process import Process, running

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
#: Of its socket, whose directory nobody else uses.
_PORT = 6432


def installed() -> bool:
    return _PROGRAM is not None


def version() -> tuple[int, ...]:
    """Its version; (0,) if it is not installed."""
    if _PROGRAM is None:
        return (0,)
    said = subprocess.run([_PROGRAM, "--version"], capture_output=True, check=True, text=True)
    return tuple(map(int, re.findall(r"\d+", said.stdout.partition("\n")[0])))


@contextmanager
def bouncer(
    database: dict[str, Any], *, mode: str, size: int, prepared: int | None = None
) -> Iterator[dict[str, Any]]:
    """Start it, with *size* connections to the server; yield what ``DATABASES[alias]`` then says.

    :param mode: ``transaction``, ``session`` or ``statement``.
    :param prepared: its ``max_prepared_statements``, which older versions do not have.
    """
    assert _PROGRAM is not None
    target = {
        "host": database["HOST"],
        "port": database["PORT"],
        "user": database["USER"],
        "password": database["PASSWORD"],
        "dbname": database["NAME"],
    }
    pairs = " ".join(f"{name}='{value}'" for name, value in target.items() if value)
    with tempfile.TemporaryDirectory(prefix="relet-b-") as name:
        directory = Path(name)
        settings = directory / "pgbouncer.ini"
        settings.write_text(
            f"""\
[databases]
behind = {pairs}
[pgbouncer]
listen_addr =
listen_port = {_PORT}
unix_socket_dir = {directory}
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 1000
{"" if prepared is None else f"max_prepared_statements = {prepared}"}
"""
        )
        owner = _owner(database["HOST"])
        if owner is not None:
            for path in (directory, settings):
                shutil.chown(path, owner)
        process = Process([_PROGRAM, str(settings)], os.environ, directory / "log", user=owner)
        # It answers SIGTERM by ending at once, SIGINT when its clients have gone.
        with running(process, by=signal.SIGINT):
            process.until(lambda: _listens(directory / f".s.PGSQL.{_PORT}"), "listened")
            yield {"NAME": "behind", "HOST": str(directory), "PORT": str(_PORT)}


def _owner(host: str) -> str | int | None:
    """It does not run as root: return who it is to run as, or None to stay."""
    if os.geteuid() != 0:
        return None
    if host.startswith("/") and (uid := Path(host).stat().st_uid):
        return uid  # may look into the directory of the server's socket
    return "nobody"


def _listens(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        return client.connect_ex(str(path)) == 0
