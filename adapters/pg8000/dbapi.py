"""The driver's module by PEP 249: pg8000, with simple queries.

https://peps.python.org/pep-0249/
"""

from __future__ import annotations

import datetime
from typing import Any

from pg8000 import __version__

from .connect import connect
from .connection import Connection, IsolationLevel
from .cursor import Cursor, NamedCursor
from .errors import (
    DatabaseError,
    DataError,
    DuplicateDatabase,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,  # noqa: A004 - PEP 249 calls it so
)
from .literals import identifier, literal, register
from .types import Int2, Int4, Int8, Json, Jsonb, Range
from .wire import Notify

Date, Time, Timestamp = datetime.date, datetime.time, datetime.datetime
DateFromTicks = Date.fromtimestamp
TimestampFromTicks = Timestamp.fromtimestamp


def TimeFromTicks(ticks: float) -> datetime.time:  # noqa: N802 - PEP 249 calls it so
    """Return the time of day *ticks* seconds after the epoch."""
    return TimestampFromTicks(ticks).time()


def Binary(data: Any) -> bytes:  # noqa: N802 - PEP 249 calls it so
    """Return *data*, which supports the buffer protocol, as a parameter of the type ``bytea``."""
    return bytes(memoryview(data))


class _Type(frozenset[int]):
    """The OIDs of the types that PEP 249 has one name for."""

    def __eq__(self, other: object) -> bool:
        return other in self if isinstance(other, int) else super().__eq__(other)

    __hash__ = frozenset.__hash__


STRING = _Type((18, 19, 25, 1042, 1043))
BINARY = _Type((17,))
NUMBER = _Type((20, 21, 23, 700, 701, 1700))
DATETIME = _Type((1082, 1083, 1114, 1184, 1266))
ROWID = _Type((26,))

apilevel = "2.0"
#: Threads may share the module and connections.
threadsafety = 2
paramstyle = "pyformat"

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "DuplicateDatabase",
    "Error",
    "Int2",
    "Int4",
    "Int8",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "IsolationLevel",
    "Json",
    "Jsonb",
    "NamedCursor",
    "NotSupportedError",
    "Notify",
    "OperationalError",
    "ProgrammingError",
    "Range",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "__version__",
    "apilevel",
    "connect",
    "identifier",
    "literal",
    "paramstyle",
    "register",
    "threadsafety",
]
