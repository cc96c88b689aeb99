"""Values as literals of SQL.

Two rules ensure that a value can only ever be a literal, whatever the session's settings are:

- In a quoted literal, quotes are doubled. If it has a backslash, it is an escape string,
  ``E'...'``, with backslashes doubled, too. ``standard_conforming_strings`` does not affect that.
- A literal without quotes is a number, and is written by Python's own base class. A negative one
  begins with a space, because after a ``-`` its own ``-`` would begin a comment.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-CONSTANTS

Values become the literals that psycopg's ``ClientCursor`` writes, so that the server treats them
alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from json import dumps
from typing import Any
from uuid import UUID

from relet.core.sql.quoting import quote_identifier

from .errors import DataError, ProgrammingError
from .types import INTEGERS, JSON, MULTIRANGES, RANGES, is_date

#: Returns the literal, or its text, for a value.
Writer = Callable[[Any], str]

# The methods of the base classes, not of a subclass: these always return a plain str.
_str, _replace, _has = str.__str__, str.replace, str.__contains__
_int, _float = int.__repr__, float.__repr__


def quote(text: str) -> str:
    """Return *text* as a string literal, whose type is open.

    :raises DataError: it contains a NUL.
    """
    if _has(text, "\0"):
        raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    quoted = _replace(text, "'", "''")
    if "\\" in quoted:
        # A space, because an E after a letter would be part of a word.
        return " E'" + quoted.replace("\\", "\\\\") + "'"
    return f"'{quoted}'"


def identifier(name: str) -> str:
    """Return *name* as a quoted identifier.

    :raises ProgrammingError: it contains a NUL.
    """
    if _has(name, "\0"):
        raise ProgrammingError("an identifier cannot contain NUL (0x00) characters")
    return quote_identifier(name)


# The text of values, for the server's input functions.


def _bool_text(value: bool) -> str:
    return "t" if value else "f"


def _float_text(value: float) -> str:
    text = _float(value)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


def _decimal_text(value: Decimal) -> str:
    return "NaN" if Decimal.is_nan(value) else Decimal.__str__(value)


def _bytes_text(value: Any) -> str:
    return "\\x" + bytes.hex(bytes(value))


def _date_text(value: date) -> str:
    return date.isoformat(value)


def _time_text(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise DataError(f"the UTC offset of {value.tzinfo} depends on the date, which a time lacks")
    return time.isoformat(value)


def _datetime_text(value: datetime) -> str:
    # PostgreSQL has no offsets with a fraction of a second.
    if (offset := value.utcoffset()) is not None and offset.microseconds:
        try:
            value = value.astimezone(timezone.utc)
        except OverflowError:
            raise DataError(
                f"PostgreSQL cannot store the UTC offset {offset} of {value.tzinfo}"
            ) from None
    return datetime.isoformat(value, " ")


def _timedelta_text(value: timedelta) -> str:
    # Each part has a sign: with IntervalStyle sql_standard, the first sign would apply to all.
    return f"{value.days} day {value.seconds:+d} second {value.microseconds:+d} microsecond"


def _enum_text(value: Enum) -> str:
    return value.name


def _json_text(value: Any) -> str:
    text: str | bytes = (value.dumps or dumps)(value.obj)
    return bytes.decode(text) if isinstance(text, bytes) else text


def _dict_text(value: dict[Any, Any]) -> str:
    return dumps(value)


class HStore(str):
    """The text of an hstore value."""

    __slots__ = ()


def hstore_text(value: Mapping[Any, Any]) -> str:
    """Return a mapping of strings to strings or None as the text of an hstore.

    :raises DataError: a key or a value is of another type.
    """
    pairs = []
    for key, item in value.items():
        if not isinstance(key, str) or not (item is None or isinstance(item, str)):
            raise DataError("hstore keys must be strings, and its values strings or None")
        pairs.append(f"{_in_quotes(key)}=>{'NULL' if item is None else _in_quotes(item)}")
    return ",".join(pairs)


# Composite values.

_PLAIN_ELEMENT = re.compile(r'(?!(?i:null)\Z)[^\s"\\{},()\[\]]+')


def _in_quotes(text: str) -> str:
    return '"' + _replace(_replace(text, "\\", "\\\\"), '"', '\\"') + '"'


def _element(text: str) -> str:
    """Return *text*, a str of any class, as an element of an array, a range or a record."""
    return _str(text) if _PLAIN_ELEMENT.fullmatch(text) else _in_quotes(text)


def _range_text(value: Any) -> str:
    if value.isempty:
        return "empty"
    lower, upper = (
        "" if bound is None else _element(text_of(bound)) for bound in (value.lower, value.upper)
    )
    return f"{value._bounds[0]}{lower},{upper}{value._bounds[1]}"


def _multirange_text(value: Iterable[Any]) -> str:
    return "{" + ",".join(map(_range_text, value)) + "}"


def _tuple_text(value: tuple[Any, ...]) -> str:
    items = ("" if item is None else _element(text_of(item)) for item in value)
    return f"({','.join(items)})"


def _list_text(value: list[Any]) -> str:
    items = (
        "NULL"
        if item is None
        else _list_text(item)
        if isinstance(item, list)
        else _element(text_of(item))
        for item in value
    )
    return "{" + ",".join(items) + "}"


# The types of literals for the server. The type of a string is open: its context decides.


def _range_type(value: Any) -> str:
    for bound in (value.lower, value.upper):
        if isinstance(bound, Decimal):
            return "numrange"
        if is_date(bound):
            return "daterange"
        if isinstance(bound, datetime):
            # Django passes naive bounds for tstzrange, too, so the context decides.
            return "" if bound.tzinfo is None else "tstzrange"
    return ""


def _int_type(value: int) -> str:
    value = int.__pos__(value)  # because a subclass may override comparisons
    for bits, name in (15, "int2"), (31, "int4"), (63, "int8"):
        if -(1 << bits) <= value < 1 << bits:
            return name
    return "numeric"


def _datetime_type(value: datetime) -> str:
    return "timestamp" if value.utcoffset() is None else "timestamptz"


def _time_type(value: time) -> str:
    return "time" if value.tzinfo is None else "timetz"


_WIDER = ("int2", "int4", "int8", "numeric")


def _list_type(value: list[Any]) -> str:
    found: dict[str, type] = {}  # by the name of the type: the class of the first such item

    def look(items: list[Any]) -> None:
        for item in items:
            if isinstance(item, list):
                look(item)
            elif item is not None:
                found.setdefault(_type_of(item), type(item))

    look(value)
    if len(found) > 1 and found.get("") in RANGES:
        # Ranges of unknown type, such as empty ones, take the type of the others.
        del found[""]
    if len(found) > 1:
        if not found.keys() <= set(_WIDER) or Decimal in found.values():
            names = ", ".join(
                sorted(f"{kind.__name__} ({name or 'unknown'})" for name, kind in found.items())
            )
            raise DataError(f"cannot make an array of values of several types: {names}")
        return max(found, key=_WIDER.index) + "[]"
    name = next(iter(found), "")
    return name and f"{name}[]"


def _unquoted_writer(text: Writer) -> Writer:
    """Return a writer of literals without quotes, for numbers."""

    def write(value: Any) -> str:
        written = text(value)
        return f" {written}" if written[0] == "-" else written

    return write


def _bool_literal(value: bool) -> str:
    return "true" if value else "false"


def _float_literal(value: float) -> str:
    text = _float_text(value)
    if text[-1] in "yN":
        return f"'{text}'::float8"
    return f" {text}" if text[0] == "-" else text


def _decimal_literal(value: Decimal) -> str:
    text = _decimal_text(value)
    if text[-1] in "yN":
        return f"'{text}'::numeric"
    return f" {text}" if text[0] == "-" else text


def _quoted_writer(text: Writer, cast: str | Writer) -> Writer:
    """Return a writer of literals with quotes and a cast."""
    if isinstance(cast, str):
        suffix = f"::{cast}" if cast else ""
        return lambda value: quote(text(value)) + suffix

    def write(value: Any) -> str:
        name = cast(value)
        return f"{quote(text(value))}::{name}" if name else quote(text(value))

    return write


_ADDRESSES = (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface)
#: For each class: the writer of its text, and the server's type, or a function that finds it.
_TYPES: dict[type, tuple[Writer, str | Writer]] = {
    str: (_str, ""),
    int: (_int, _int_type),
    **{kind: (_int, name) for kind, name in INTEGERS},
    bool: (_bool_text, "bool"),
    float: (_float_text, "float8"),
    Decimal: (_decimal_text, "numeric"),
    bytes: (_bytes_text, "bytea"),
    bytearray: (_bytes_text, "bytea"),
    memoryview: (_bytes_text, "bytea"),
    datetime: (_datetime_text, _datetime_type),
    date: (_date_text, "date"),
    time: (_time_text, _time_type),
    timedelta: (_timedelta_text, "interval"),
    UUID: (UUID.__str__, "uuid"),
    **{kind: (kind.__str__, "inet") for kind in _ADDRESSES},
    **{kind: (kind.__str__, "cidr") for kind in (IPv4Network, IPv6Network)},
    HStore: (_str, "hstore"),
    Enum: (_enum_text, ""),
    dict: (_dict_text, "jsonb"),
    list: (_list_text, _list_type),
    tuple: (_tuple_text, ""),
    **{kind: (_json_text, name) for kind, name in JSON},
    **dict.fromkeys(RANGES, (_range_text, _range_type)),
    **dict.fromkeys(MULTIRANGES, (_multirange_text, "")),
}
#: The writers of literals. Some classes have no quotes, or a special form.
_LITERALS: dict[type, Writer] = {
    **{kind: _quoted_writer(*how) for kind, how in _TYPES.items()},
    type(None): lambda value: "NULL",
    str: quote,
    bool: _bool_literal,
    float: _float_literal,
    Decimal: _decimal_literal,
    **dict.fromkeys((int, *(kind for kind, _ in INTEGERS)), _unquoted_writer(_int)),
}


def register(kind: type, convert: Callable[[Any], Any]) -> None:
    """Write values of *kind* as *convert* returns them, which must be of a known class."""
    _TYPES[kind] = lambda value: text_of(convert(value)), lambda value: _type_of(convert(value))
    _LITERALS[kind] = lambda value: literal(convert(value))


def _look_up(known: Mapping[type, Any], value: object) -> Any:
    """Return the entry for the class of *value*, or for its nearest base class.

    :raises ProgrammingError: there is none.
    """
    for kind in type(value).__mro__:
        if (found := known.get(kind)) is not None:
            return found
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ProgrammingError(
        f"cannot make a literal of a value of type {name!r}: convert it to a str, a number, a "
        "list or another supported type, or register() its type"
    )


def text_of(value: object) -> str:
    """Return the text of *value* for the server's input functions."""
    return _look_up(_TYPES, value)[0](value)  # type: ignore[no-any-return]


def _type_of(value: object) -> str:
    cast = _look_up(_TYPES, value)[1]
    return cast if isinstance(cast, str) else cast(value)


def literal(value: object) -> str:
    """Return *value* as a literal.

    :raises ProgrammingError: its class is unknown.
    :raises DataError: PostgreSQL has no such value: a NUL in a string, an array of several types.
    """
    return (_LITERALS.get(type(value)) or _look_up(_LITERALS, value))(value)


def compose(parts: tuple[str, ...], values: Iterable[object]) -> str:
    """Return the statement made of *parts* with *values* between them."""
    known = _LITERALS.get
    pieces = [parts[0]]
    add = pieces.append
    for value, part in zip(values, parts[1:], strict=True):
        add((known(type(value)) or _look_up(_LITERALS, value))(value))
        add(part)
    return "".join(pieces)
