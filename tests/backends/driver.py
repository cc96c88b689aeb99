"""The driver under test, for tests that have to do with it: psycopg 3, or psycopg2.

It is the one that Django picks. What the two have by the same name is had from `dbapi`.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from django.db.backends.postgresql.psycopg_any import is_psycopg3

if is_psycopg3:
    import psycopg as dbapi
    from psycopg import Connection, Cursor, sql
    from psycopg.conninfo import conninfo_to_dict as parse_dsn
else:
    import psycopg2 as dbapi
    from psycopg2 import extensions, sql
    from psycopg2.extensions import parse_dsn

    from relet.adapters.drivers.buffered_cursor import buffered

    Connection, Cursor = extensions.connection, buffered(extensions.cursor)

__all__ = ["Connection", "Cursor", "Observer", "connect", "dbapi", "parse_dsn", "sql"]

NAME = dbapi.__name__

#: What the driver says.
CURSOR_CLOSED = "the cursor is closed" if is_psycopg3 else "cursor already closed"
NO_RESULT = "no result available" if is_psycopg3 else "no results to fetch"
LOST = r"terminat|closed|lost"
#: What is raised when a connection is lost, and again by each statement on it.
CONNECTION_LOST = OperationalError if is_psycopg3 else (OperationalError, InterfaceError)


def needs(name: str, what: str) -> pytest.MarkDecorator:
    """Skip a test about *what*, which only the driver *name* has."""
    return pytest.mark.skipif(name != NAME, reason=f"the driver is {NAME}: no {what}")


def execute(raw: Any, query: Any, params: Any = None) -> Any:
    """Run a statement on *raw*, a connection of the driver; return its cursor."""
    cursor = raw.cursor()
    cursor.execute(query, params)
    return cursor


class Observer:
    """A connection beside all pools, in autocommit, to ask the server."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def execute(self, query: Any, params: Any = None) -> Any:
        return execute(self.raw, query, params)


@contextmanager
def connect(**parameters: Any) -> Iterator[Observer]:
    with closing(dbapi.connect(**parameters)) as raw:
        raw.autocommit = True
        yield Observer(raw)


def notifications(raw: Any, timeout: float = 0) -> list[Any]:
    """Return those that arrive at *raw*: the first one within *timeout* seconds, if any."""
    if is_psycopg3:
        return list(raw.notifies(timeout=timeout, stop_after=1))
    select.select([raw], [], [], timeout)
    raw.poll()
    found, raw.notifies[:] = list(raw.notifies), []
    return found


# psycopg2's classes are not Python's: nothing can be put into them.


def cursor_class(monkeypatch: pytest.MonkeyPatch, raw: Any) -> type:
    """Return the class of the cursors that are made on *raw*, to be tampered with."""
    if not is_psycopg3:
        monkeypatch.setattr(raw, "cursor_factory", type("Tampered", (Cursor,), {}))
    factory: type = raw.cursor_factory
    return factory


def connection_class() -> tuple[type, dict[str, Any]]:
    """Return a class of connections, to be tampered with, and the OPTIONS that it takes."""
    if is_psycopg3:
        return Connection, {}
    tampered = type("Tampered", (Connection,), {})
    return tampered, {"connection_factory": tampered}
