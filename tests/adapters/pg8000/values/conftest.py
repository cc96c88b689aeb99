"""Connections of the driver on pg8000. Without pg8000 the folder is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relet.core import registry

from ....support.dsn import parameters_for

_MISSING = registry.missing(registry.specs()["pg8000"])
collect_ignore_glob = ["test_*.py"] if _MISSING else []


def pytest_report_header() -> list[str]:
    return [f"left out: pg8000/values, which needs {', '.join(_MISSING)}"] if _MISSING else []


@pytest.fixture(scope="session")
def settings(server: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``connect()``, in libpq's words."""
    return {**parameters_for(server), **server["OPTIONS"]}


@pytest.fixture(scope="session")
def connect(settings: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """Open connections in autocommit, that are closed at the end."""
    from relet.adapters.pg8000 import dbapi

    opened = []

    def connect(**others: Any) -> Any:
        connection = dbapi.connect(**settings, **others)
        opened.append(connection)
        connection.autocommit = True
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture(scope="module")
def connection(connect: Callable[..., Any]) -> Iterator[Any]:
    """A connection for the tests of a module."""
    connection = connect()
    yield connection
    connection.close()


@pytest.fixture
def fresh(connect: Callable[..., Any]) -> Iterator[Any]:
    """A connection for one test, which may change its session."""
    connection = connect()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def with_hstore(connect: Callable[..., Any]) -> Iterator[Any]:
    """A connection in a transaction, in which there is hstore, and which is undone."""
    connection = connect()
    found = connection.run("SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'")
    if not found:
        pytest.skip("the server has no hstore")
    connection.autocommit = False
    connection.begin()
    connection.run("CREATE EXTENSION IF NOT EXISTS hstore")
    ((oid, array_oid),) = connection.run(
        "SELECT oid::int, typarray::int FROM pg_type WHERE typname = 'hstore'"
    )
    connection.wire.values.register("hstore", oid, array_oid)
    yield connection
    connection.close()
