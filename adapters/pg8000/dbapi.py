"""pg8000 as a module of PEP 249, whose statements are simple queries.

https://peps.python.org/pep-0249/
"""

from __future__ import annotations

from pg8000 import __version__

from .connecting import connect
from .connection import Connection, IsolationLevel, Notify
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
    Warning,  # noqa: A004
)
from .literals import identifier, literal, register
from .types import RANGES, Int2, Int4, Int8, Json, Jsonb, Range

apilevel = "2.0"
#: Threads may share the module and connections.
threadsafety = 2
paramstyle = "pyformat"

__all__ = [
    "RANGES",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
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
