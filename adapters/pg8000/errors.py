"""PEP 249's exceptions, which are pg8000's, and the exception for each error of the server.

https://peps.python.org/pep-0249/#exceptions
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any
from unicodedata import combining, east_asian_width

from pg8000.dbapi import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,  # noqa: A004 - PEP 249 calls it so
)

__all__ = [
    "SOCKETS",
    "DataError",
    "DatabaseError",
    "Diagnostic",
    "DuplicateDatabase",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "from_fields",
]

#: The packages whose exceptions come from pg8000 or its socket, not from outside.
SOCKETS = ("pg8000", "scramp", "asn1crypto", "gevent", "eventlet")

#: The classes of SQLSTATEs, or their first letters, by psycopg's exception for them.
_CLASSES: dict[type[DatabaseError], str] = {
    OperationalError: "08 27 28 2F 38 39 3B 40 53 54 55 57 58 F H",
    ProgrammingError: "10 20 21 26 34 3D 3F 42 44 P",
    InternalError: "24 25 2B 2D X",
    DataError: "22",
    IntegrityError: "23",
    NotSupportedError: "0A",
}
_BY_CLASS = {code: kind for kind, codes in _CLASSES.items() for code in codes.split()}
#: The fields of an ErrorResponse.
#: https://www.postgresql.org/docs/current/protocol-error-fields.html
_FIELDS = {
    "severity": "S",
    "severity_nonlocalized": "V",
    "sqlstate": "C",
    "message_primary": "M",
    "message_detail": "D",
    "message_hint": "H",
    "statement_position": "P",
    "internal_position": "p",
    "internal_query": "q",
    "context": "W",
    "schema_name": "s",
    "table_name": "t",
    "column_name": "c",
    "datatype_name": "d",
    "constraint_name": "n",
    "source_file": "F",
    "source_line": "L",
    "source_function": "R",
}


class DuplicateDatabase(ProgrammingError):
    """The database exists already. Django checks for this when it creates test databases."""


_BY_CODE: dict[str, type[DatabaseError]] = {"42P04": DuplicateDatabase}


class Diagnostic:
    """The fields of an error or notice, by the names of psycopg's ``Diagnostic``.

    https://www.psycopg.org/psycopg3/docs/api/errors.html#psycopg.errors.Diagnostic
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    @property
    def fields(self) -> Mapping[str, str]:
        """All fields, by the letters of the protocol."""
        return self._fields

    def __getattr__(self, name: str) -> str | None:
        if name not in _FIELDS:
            raise AttributeError(name)
        return self._fields.get(_FIELDS[name])

    def __reduce__(self) -> tuple[Any, ...]:
        return Diagnostic, (self._fields,)


def error_class(sqlstate: str) -> type[DatabaseError]:
    """Return the exception class for an error of the server."""
    return (
        _BY_CODE.get(sqlstate)
        or _BY_CLASS.get(sqlstate[:2])
        or _BY_CLASS.get(sqlstate[:1], DatabaseError)
    )


def from_fields(fields: Mapping[str, str], sql: str | None = None) -> DatabaseError:
    """Return the exception for an ErrorResponse, with `sqlstate` and `diag`, as in psycopg.

    :param sql: the statement, to show the position of the error.
    """
    code = fields.get("C", "")
    error: Any = error_class(code)(_message(fields, sql))
    error.sqlstate, error.diag = code, Diagnostic(fields)
    return error


def _message(fields: Mapping[str, str], sql: str | None) -> str:
    """Return the message that libpq, and so psycopg, gives."""
    lines = [fields.get("M", "")]
    if sql is not None and (position := whole_number(fields.get("P", ""))):
        lines += _place(sql, position - 1)
    elif "q" in fields and (position := whole_number(fields.get("p", ""))):
        lines += _place(fields["q"], position - 1)
    lines += [
        f"{label}:  {fields[key]}"
        for key, label in (("D", "DETAIL"), ("H", "HINT"), ("q", "QUERY"), ("W", "CONTEXT"))
        if key in fields
    ]
    return "\n".join(lines)


def whole_number(text: str) -> int | None:
    """Return the number in *text*; None if *text* is not a number of fewer than 20 digits.

    Python refuses very long numbers, or takes long to read them.
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


#: The maximal width of a shown line, and how much of it follows the position.
_WIDTH, _AFTER = 60, 10


def _place(sql: str, index: int) -> list[str]:
    """Return the line of *sql* around *index*, shortened, and a line that points to it."""
    before = re.split(r"\r\n|[\r\n]", sql[:index])
    column = len(before[-1])
    # Only as much as can be shown, because an INSERT may be one very long line.
    first = max(column - 2 * _WIDTH, 0)
    rest = re.split(r"[\r\n]", sql[index : index + 2 * _WIDTH], maxsplit=1)[0]
    line = (before[-1][first:] + rest).replace("\t", " ")
    column -= first
    at = list(accumulate(map(_columns, line), initial=0))
    begin, end = 0, len(line)
    if at[end] > _WIDTH:
        if at[column] + _AFTER <= _WIDTH:
            while at[end] > _WIDTH:
                end -= 1
        else:
            while at[end] > at[column] + _AFTER:
                end -= 1
            while at[end] - at[begin] > _WIDTH:
                begin += 1
    label = f"LINE {len(before)}: {'...' if begin or first else ''}"
    shown = line[begin:end] + ("..." if end < len(line) else "")
    return [label + shown, " " * (len(label) + at[column] - at[begin]) + "^"]


def _columns(character: str) -> int:
    """Return the width of *character* on a terminal."""
    return 0 if combining(character) else 1 + (east_asian_width(character) in "WF")
