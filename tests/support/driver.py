"""The driver under test, for tests that have to do with it: psycopg 3, psycopg2, or pg8000.

It is the one that Django picks, or that of the engine. What they have by the same name is had
from `dbapi`.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError

from . import engine

if engine.NAME == "pg8000":
    from relet.adapters.pg8000 import dbapi
    from relet.backends.compat.django_on_pg8000.base import DatabaseWrapper as Django

    Connection, Cursor, sql = dbapi.Connection, dbapi.Cursor, None
    NAME = "pg8000"
else:
    from django.db.backends.postgresql.base import DatabaseWrapper as Django
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    if is_psycopg3:
        import psycopg as dbapi
        from psycopg import Connection, Cursor, sql
    else:
        import psycopg2 as dbapi
        from psycopg2 import extensions, sql

        from relet.adapters.drivers.buffered_cursor import buffered

        Connection, Cursor = extensions.connection, buffered(extensions.cursor)
    NAME = dbapi.__name__

__all__ = ["Connection", "Cursor", "Django", "Observer", "connect", "dbapi", "sql"]

#: What the driver says.
CURSOR_CLOSED = "cursor already closed" if NAME == "psycopg2" else "the cursor is closed"
NO_RESULT = "no results to fetch" if NAME == "psycopg2" else "no result available"
LOST = r"terminat|closed|lost"
#: What is raised when a connection is lost, and again by each statement on it.
CONNECTION_LOST = (OperationalError, InterfaceError) if NAME == "psycopg2" else OperationalError


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

    def cursor(self) -> Any:
        return self.raw.cursor()

    def execute(self, query: Any, params: Any = None) -> Any:
        return execute(self.raw, query, params)


@contextmanager
def connect(**parameters: Any) -> Iterator[Observer]:
    with closing(dbapi.connect(**parameters)) as raw:
        raw.autocommit = True
        yield Observer(raw)


def notifications(raw: Any, timeout: float = 0) -> list[Any]:
    """Return those that arrive at *raw*: the first one within *timeout* seconds, if any."""
    if NAME == "psycopg":
        return list(raw.notifies(timeout=timeout, stop_after=1))
    select.select([raw], [], [], timeout)
    raw.poll()
    found = list(raw.notifies)
    raw.notifies.clear()
    return found


# psycopg2's classes are not Python's: nothing can be put into them.


def cursor_class(monkeypatch: pytest.MonkeyPatch, raw: Any) -> type:
    """Return the class of the cursors that are made on *raw*, to be tampered with."""
    if NAME == "pg8000":
        return Cursor
    if NAME == "psycopg2":
        monkeypatch.setattr(raw, "cursor_factory", type("Tampered", (Cursor,), {}))
    factory: type = raw.cursor_factory
    return factory


def connection_class() -> tuple[type, dict[str, Any]]:
    """Return a class of connections, to be tampered with, and the OPTIONS that it takes."""
    if NAME != "psycopg2":
        return Connection, {}
    tampered = type("Tampered", (Connection,), {})
    return tampered, {"connection_factory": tampered}
