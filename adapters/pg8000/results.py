"""What comes back: results and their columns; and the files of ``COPY``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any, NamedTuple

from .errors import whole_number

_FIELD = Struct("!ihihih")
_SIZED = (1042, 1043)  # bpchar, varchar
_NUMERIC = 1700
_BITS = (1560, 1562)  # bit, varbit
_TIMED = (1083, 1114, 1184, 1186, 1266)
_HEADER = 4
#: How much of a file is sent at once.
_CHUNK = 1 << 15


class _Description(NamedTuple):
    name: str
    type_code: int
    display_size: int | None = None
    internal_size: int | None = None
    precision: int | None = None
    scale: int | None = None
    null_ok: None = None


class Column(_Description):
    """A column of a result: an item of PEP 249's `description`, with names.

    https://peps.python.org/pep-0249/#description
    """

    #: The name of its type; "" if that is not known without asking.
    type_display: str = ""


def columns_of(
    data: bytes, type_names: Mapping[int, str], decode: Callable[[bytes], str] = bytes.decode
) -> tuple[Column, ...]:
    """Return the columns that a RowDescription tells of.

    :param type_names: the names of the types that are known, by OID.
    """
    found = []
    position = 2
    while position < len(data):
        end = data.index(b"\0", position)
        try:
            name = decode(data[position:end])
        except UnicodeError:
            name = data[position:end].decode(errors="replace")
        _, _, oid, size, modifier, _ = _FIELD.unpack_from(data, end + 1)
        position = end + 1 + _FIELD.size
        display_size = precision = scale = None
        if modifier >= 0:
            # As the types' own functions of modifiers have it, numerictypmodout and others.
            if oid in _SIZED:
                display_size = modifier - _HEADER
            elif oid in _BITS:
                display_size = modifier
            elif oid == _NUMERIC:
                precision = (modifier - _HEADER) >> 16 & 0xFFFF
                scale = ((modifier - _HEADER & 0x7FF) ^ 1024) - 1024
            elif oid in _TIMED:
                # Of an interval with fields, all bits are set where none is said.
                precision = None if modifier & 0xFFFF == 0xFFFF else modifier & 0xFFFF
        column = Column(name, oid, display_size, size if size >= 0 else None, precision, scale)
        column.type_display = type_names.get(oid, "")
        found.append(column)
    return tuple(found)


class Result:
    """What one statement has returned."""

    __slots__ = ("columns", "rows", "tag")

    def __init__(
        self, columns: tuple[Column, ...] | None, rows: list[tuple[Any, ...]], tag: str
    ) -> None:
        self.columns = columns
        self.rows = rows
        #: What the server says has been done, such as ``INSERT 0 1``.
        self.tag = tag

    @property
    def count(self) -> int:
        """How many rows it has, or the statement changed; -1 if it was about none."""
        if self.columns is not None:
            return len(self.rows)  # the tag of SHOW and EXPLAIN has no number
        number = whole_number(self.tag.rpartition(" ")[2])
        return -1 if number is None else number


class Copying:
    """The files of a ``COPY``: what is read, and what is written.

    Text files are encoded and decoded as the session is.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        # As all of Python's text files have, those that `tempfile` wraps, too.
        self._text = hasattr(file, "encoding")

    def chunks(self, encode: Callable[[str], bytes]) -> Iterator[bytes]:
        """Yield what the file has, to be sent."""
        while chunk := self._file.read(_CHUNK):
            yield encode(chunk) if isinstance(chunk, str) else chunk

    def write(self, data: bytes, decode: Callable[[bytes], str]) -> None:
        """Write what has been received: a row of text, or a part of what is binary."""
        self._file.write(decode(data) if self._text else data)
