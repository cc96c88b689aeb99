"""The text of arrays, ranges, records and hstore, taken apart.

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

#: Makes a value of its text, in UTF-8.
Loader = Callable[[bytes], Any]

_QUOTED = rb'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(rb"(\{)|(\})|,|(" + _QUOTED + rb')|([^{},"]+)', re.DOTALL)
#: The bounds of each dimension, where they do not begin with 1.
_DIMENSIONS = re.compile(rb"(?:\[[-+0-9:]*\])+=")
_BACKSLASH = re.compile(rb"\\(.)", re.DOTALL)
# In records and ranges, a quote may be doubled, too, and a value may be in parts.
_PART = rb'(?:[^"\\,()\[\]]|\\.|"(?:[^"\\]|\\.|"")*")*'
_PARTS = re.compile(rb'"((?:[^"\\]|\\.|"")*)"|\\(.)|([^"\\]+)', re.DOTALL)
_RANGE = re.compile(rb"([\[(])(" + _PART + rb"),(" + _PART + rb")([\])])", re.DOTALL)
_FIELD = re.compile(rb'((?:[^"\\,()]|\\.|"(?:[^"\\]|\\.|"")*")*)([,)])', re.DOTALL)
_PAIR = re.compile(rb"(" + _QUOTED + rb")=>(?:(" + _QUOTED + rb")|NULL)(?:, )?", re.DOTALL)


def _unquoted(text: bytes) -> bytes:
    text = text[1:-1]
    return _BACKSLASH.sub(rb"\1", text) if b"\\" in text else text


def _unescaped(text: bytes) -> bytes:
    def value(match: re.Match[bytes]) -> bytes:
        quoted, escaped, plain = match.groups()
        if quoted is not None:
            return _BACKSLASH.sub(rb"\1", quoted.replace(b'""', b'"'))
        return bytes(escaped or plain)

    return _PARTS.sub(value, text)


def array_loader(load: Loader) -> Loader:
    """Return the loader of arrays of what *load* loads."""

    def load_array(data: bytes) -> list[Any]:
        if b'"' not in data and data.rfind(b"{") == 0:
            # Most are of one dimension, without anything to be quoted.
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
    for match in _TOKEN.finditer(data, dimensions.end() if dimensions else 0):
        opening, closing, quoted, plain = match.groups()
        if opening:
            inner: list[Any] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif closing:
            stack.pop()
        elif quoted is not None:
            stack[-1].append(load(_unquoted(quoted)))
        elif plain is not None:
            stack[-1].append(None if plain == b"NULL" else load(plain))
    if len(stack) != 1 or len(outermost) != 1:
        raise DataError(f"not the text of an array: {data.decode(errors='replace')!r}")
    return outermost[0]  # type: ignore[no-any-return]


def range_loader(name: str, load: Loader) -> Loader:
    """Return the loader of ranges *name*, of what *load* loads."""
    make = range_class(name)

    def load_range(data: bytes) -> Any:
        if data == b"empty":
            return make(empty=True)
        match = _RANGE.fullmatch(data)
        if match is None:
            raise DataError(f"not the text of a range: {data.decode(errors='replace')!r}")
        opening, lower, upper, closing = match.groups()
        return make(
            load(_unescaped(lower)) if lower else None,
            load(_unescaped(upper)) if upper else None,
            (opening + closing).decode(),
        )

    return load_range


def multirange_loader(name: str, load: Loader) -> Loader:
    """Return the loader of multiranges of the ranges *name*."""
    load_range = range_loader(name, load)

    def load_multirange(data: bytes) -> Any:
        return multirange_class([load_range(match.group()) for match in _RANGE.finditer(data)])

    return load_multirange


def load_record(data: bytes) -> tuple[str | None, ...]:
    """Load a record, the types of whose fields the server does not tell: so they are texts."""
    if data == b"()":
        return ()
    return tuple(
        _unescaped(match.group(1)).decode() if match.group(1) else None
        for match in _FIELD.finditer(data, 1)
    )


def load_hstore(data: bytes) -> dict[str, str | None]:
    """Load a value of the extension hstore."""
    return {
        _unquoted(key).decode(): _unquoted(value).decode() if value else None
        for key, value in _PAIR.findall(data)
    }
