"""Parsers for the text of arrays, ranges, records and hstore.

Each text is read once, from left to right, and the first mistake is an error. So no text takes
more than linear time.

https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
https://www.postgresql.org/docs/current/rangetypes.html#RANGETYPES-IO
https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX
https://www.postgresql.org/docs/current/hstore.html#HSTORE-EXTERNAL-REP
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .errors import DataError
from .types import multirange_class, range_class

#: Returns the value of a text, which is in UTF-8.
Loader = Callable[[bytes], Any]

#: The server's limit for the dimensions of an array.
_MOST_DIMENSIONS = 6
#: How many bytes of a text an error shows.
_SHOWN = 100

_ARRAY_TOKEN = re.compile(rb'([{},])|"([^"\\]*)"|(")|([^{},"]+)')
#: The bounds of the dimensions, which the server sends if one does not begin at 1.
_DIMENSIONS = re.compile(rb"(?:\[[-+0-9:]*\])+=")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
#: A quote, which ends a quoted part, or an escaped character, which does not.
_EDGE = re.compile(rb'\\.|"', re.DOTALL)
# In records and ranges, a quote may also be doubled, and a value may have several parts.
_DOUBLED_EDGE = re.compile(rb'\\.|""?', re.DOTALL)
_PART = re.compile(rb'([^"\\,()\[\]]+)|\\(.)|"([^"\\]*)"(?!")|(")', re.DOTALL)
_RECORD_PART = re.compile(rb'([^"\\,()]+)|\\(.)|"([^"\\]*)"(?!")|(")', re.DOTALL)
_HSTORE_QUOTED = re.compile(rb'"([^"\\]*)("?)')


def _malformed(kind: str, data: bytes) -> DataError:
    text = data[:_SHOWN].decode(errors="replace")
    return DataError(f"malformed text of {kind}: {text!r}{'...' if len(data) > _SHOWN else ''}")


def _quoted(data: bytes, begin: int, edge: re.Pattern[bytes]) -> tuple[bytes, int] | None:
    """Return the quoted text that starts at *begin*, and its end; None if it has none."""
    for match in edge.finditer(data, begin):
        if match.group() == b'"':
            text = data[begin : match.start()]
            if edge is _DOUBLED_EDGE:
                text = text.replace(b'""', b'"')
            return _ESCAPE.sub(rb"\1", text), match.end()
    return None


# Arrays.


def array_loader(load: Loader) -> Loader:
    """Return the loader of arrays whose elements *load* loads."""

    def load_array(data: bytes) -> list[Any]:
        if b'"' not in data and data.rfind(b"{") == 0 and data.find(b"}") == len(data) - 1:
            # Most arrays have one dimension and nothing quoted.
            inner = data[1:-1]
            if not inner:
                return []
            return [None if item == b"NULL" else load(item) for item in inner.split(b",")]
        return _nested(data, load)

    return load_array


def _nested(data: bytes, load: Loader) -> list[Any]:
    dimensions = _DIMENSIONS.match(data)
    outermost: list[Any] = []
    stack = [outermost]
    position: int | None = dimensions.end() if dimensions else 0
    while position is not None:
        matches, position = _ARRAY_TOKEN.finditer(data, position), None
        for match in matches:
            punctuation, quoted, quote, plain = match.groups()
            if punctuation == b",":
                continue
            if punctuation == b"{":
                inner: list[Any] = []
                stack[-1].append(inner)
                stack.append(inner)
            elif len(stack) == 1:
                raise _malformed("an array", data)
            elif punctuation == b"}":
                stack.pop()
            elif quoted is not None:
                stack[-1].append(load(quoted))
            elif plain is not None:
                stack[-1].append(None if plain == b"NULL" else load(plain))
            elif quote and (found := _quoted(data, match.end(), _EDGE)) is not None:
                stack[-1].append(load(found[0]))
                position = found[1]
                break
            else:
                raise _malformed("an array", data)
            if len(stack) > _MOST_DIMENSIONS + 1:
                raise _malformed("an array", data)
    if len(stack) != 1 or len(outermost) != 1:
        raise _malformed("an array", data)
    return outermost[0]  # type: ignore[no-any-return]


# Ranges and records.


def _value(
    kind: str, data: bytes, position: int, pattern: re.Pattern[bytes]
) -> tuple[bytes | None, int]:
    """Return the value at *position*, or None if it is empty, and its end."""
    parts: list[bytes] = []
    while (match := pattern.match(data, position)) is not None:
        plain, escaped, quoted, quote = match.groups()
        position = match.end()
        if quote:
            found = _quoted(data, position, _DOUBLED_EDGE)
            if found is None:
                raise _malformed(kind, data)
            quoted, position = found
        parts.append(plain or escaped or quoted)
    return (b"".join(parts) if parts else None), position


def _range_reader(name: str, load: Loader) -> Callable[[bytes, int], tuple[Any, int]]:
    """Return a function that reads the range at a position of a text, and returns its end, too."""
    make = range_class(name)

    def read_range(data: bytes, position: int) -> tuple[Any, int]:
        opening = data[position : position + 1]
        lower, middle = _value("a range", data, position + 1, _PART)
        upper, end = _value("a range", data, middle + 1, _PART)
        closing = data[end : end + 1]
        if (
            opening not in (b"[", b"(")
            or data[middle : middle + 1] != b","
            or closing not in (b"]", b")")
        ):
            raise _malformed("a range", data)
        made = make(
            None if lower is None else load(lower),
            None if upper is None else load(upper),
            (opening + closing).decode(),
        )
        return made, end + 1

    return read_range


def range_loader(name: str, load: Loader) -> Loader:
    """Return the loader of the range type *name*, whose bounds *load* loads."""
    read, make = _range_reader(name, load), range_class(name)

    def load_range(data: bytes) -> Any:
        if data == b"empty":
            return make(empty=True)
        made, end = read(data, 0)
        if end != len(data):
            raise _malformed("a range", data)
        return made

    return load_range


def multirange_loader(name: str, load: Loader) -> Loader:
    """Return the loader of multiranges of the range type *name*."""
    read = _range_reader(name, load)

    def load_multirange(data: bytes) -> Any:
        if data == b"{}":
            return multirange_class([])
        ranges: list[Any] = []
        position, following = 1, b","
        while following == b",":
            made, position = read(data, position)
            ranges.append(made)
            following = data[position : position + 1]
            position += 1
        if data[:1] != b"{" or following != b"}" or position != len(data):
            raise _malformed("a multirange", data)
        return multirange_class(ranges)

    return load_multirange


def load_record(data: bytes) -> tuple[str | None, ...]:
    """Load a record. Its fields are strings, because the server does not send their types."""
    if data == b"()":
        return ()
    fields: list[str | None] = []
    position, following = 1, b","
    while following == b",":
        value, position = _value("a record", data, position, _RECORD_PART)
        fields.append(None if value is None else value.decode())
        following = data[position : position + 1]
        position += 1
    if data[:1] != b"(" or following != b")" or position != len(data):
        raise _malformed("a record", data)
    return tuple(fields)


# hstore.


def load_hstore(data: bytes) -> dict[str, str | None]:
    """Load a value of the type hstore."""
    pairs: dict[str, str | None] = {}
    position = 0
    while position < len(data):
        key, position = _hstore_quoted(data, position)
        if data[position : position + 2] != b"=>":
            raise _malformed("an hstore", data)
        position += 2
        if data[position : position + 4] == b"NULL":
            pairs[key] = None
            position += 4
        else:
            pairs[key], position = _hstore_quoted(data, position)
        if position < len(data) and data[position : position + 2] != b", ":
            raise _malformed("an hstore", data)
        position += 2
    return pairs


def _hstore_quoted(data: bytes, position: int) -> tuple[str, int]:
    match = _HSTORE_QUOTED.match(data, position)
    if match is not None:
        text, quote = match.groups()
        if quote:
            return text.decode(), match.end()
        found = _quoted(data, position + 1, _EDGE)
        if found is not None:
            return found[0].decode(), found[1]
    raise _malformed("an hstore", data)
