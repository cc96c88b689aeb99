"""What all tests share: Django's settings, and a PostgreSQL server.

The server is what ``RELET_TEST_DSN``, a libpq URI, points to, else one from a wheel. It
is started when a test first asks for it. The engine is `engine.ENGINE`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import django
import pytest
from django.conf import settings

from .engine import ENGINE, put_small_pool

HERE = Path(__file__).parent


def pytest_configure() -> None:
    # `python -m pytest` puts the repo's root on the path, and from there `import core`
    # would be a second copy of relet.core.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE.parent]
    default: dict[str, Any] = {"ENGINE": ENGINE}
    put_small_pool(default)
    # Whether a dead connection is found in the pool or by a statement is not to depend on time.
    default.setdefault("OPTIONS", {})["policy"] = {"check_idle": 3600}
    settings.configure(
        DATABASES={"default": default},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["testapp"] if (HERE / "backends" / "testapp").exists() else [],
        USE_TZ=True,
    )
    django.setup()


def pytest_xdist_auto_num_workers() -> int:
    """Workers, each with a server of its own; a server that is given is for one of them."""
    if "RELET_TEST_DSN" in os.environ:
        return 0
    # Two for each processor: tests mostly wait, for the server and for each other.
    return 2 * (os.cpu_count() or 1)


@pytest.fixture
def garbage() -> Iterator[None]:
    """Collect what the test has lost in it: a later one does not expect its warnings."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def server() -> Iterator[dict[str, Any]]:
    """What ``DATABASES[alias]`` says to reach a PostgreSQL server; for `dict.update`."""
    if dsn := os.environ.get("RELET_TEST_DSN"):
        yield _from_dsn(dsn)
        return
    from relet.backends.embedded import embedded_postgres

    unsafe = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    with embedded_postgres(unsafe) as embedded:
        yield embedded.database()


@pytest.fixture(scope="session")
def server_uri(server: dict[str, Any]) -> str:
    """The libpq URI of the server."""
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    names["PORT"] = "port"
    libpq = {theirs: str(server[ours]) for ours, theirs in names.items() if server.get(ours)}
    return f"postgresql://?{urlencode(libpq)}"


@pytest.fixture(scope="session")
def database(server: dict[str, Any]) -> Iterator[None]:
    """Django's test database for the alias ``default``, with the tables of the test app."""
    from django.db import connection, connections

    from relet.backends.pools import pools

    options = {**connection.settings_dict["OPTIONS"], **server.get("OPTIONS", {})}
    connection.settings_dict.update({**server, "OPTIONS": options})
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    yield
    connection.creation.destroy_test_db(name, verbosity=0)
    connections.close_all()
    pools.close_all()


def _from_dsn(dsn: str) -> dict[str, Any]:
    parts = urlsplit(dsn)
    options = {
        "dbname": parts.path.lstrip("/"),
        "user": parts.username,
        "password": parts.password,
        "host": parts.hostname,
        "port": parts.port,
        **dict(parse_qsl(parts.query)),
    }
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST"}
    names["port"] = "PORT"
    found = {theirs: str(options.pop(ours, None) or "") for ours, theirs in names.items()}
    return {**found, "OPTIONS": options}
