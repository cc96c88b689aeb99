"""Results and their columns, and the files of ``COPY``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any, NamedTuple

from .errors import whole_number

_FIELD = Struct("!ihihih")
# With the types of their arrays, whose modifiers are those of the elements.
_SIZED = (1042, 1043, 1014, 1015)  # bpchar, varchar
_NUMERIC = (1700, 1231)
_BITS = (1560, 1562, 1561, 1563)  # bit, varbit
#: time, timestamp, timestamptz, interval, timetz
_TIMED = (1083, 1114, 1184, 1186, 1266, 1183, 1115, 1185, 1187, 1270)
_HEADER = 4
#: How much of a file is sent at a time.
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
    """A column of a result: an item of PEP 249's `description`, as a named tuple.

    https://peps.python.org/pep-0249/#description
    """

    #: The name of its type; "" if only the server knows it.
    type_display: str = ""


def columns_of(
    data: bytes, type_names: Mapping[int, str], decode: Callable[[bytes], str] = bytes.decode
) -> tuple[Column, ...]:
    """Return the columns of a RowDescription.

    :param type_names: the names of known types, by OID.
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
            # As in the server's functions for type modifiers, such as numerictypmodout.
            if oid in _SIZED:
                display_size = modifier - _HEADER
            elif oid in _BITS:
                display_size = modifier
            elif oid in _NUMERIC:
                precision = (modifier - _HEADER) >> 16 & 0xFFFF
                scale = ((modifier - _HEADER & 0x7FF) ^ 1024) - 1024
            elif oid in _TIMED:
                # An interval with fields but without a precision has all bits set.
                precision = None if modifier & 0xFFFF == 0xFFFF else modifier & 0xFFFF
        column = Column(name, oid, display_size, size if size >= 0 else None, precision, scale)
        column.type_display = type_names.get(oid, "")
        found.append(column)
    return tuple(found)


class Result:
    """The result of one statement."""

    __slots__ = ("columns", "rows", "tag")

    def __init__(
        self, columns: tuple[Column, ...] | None, rows: list[tuple[Any, ...]], tag: str
    ) -> None:
        self.columns = columns
        self.rows = rows
        #: The command tag, such as ``INSERT 0 1``.
        self.tag = tag

    @property
    def count(self) -> int:
        """How many rows it has, or the statement changed; -1 if neither applies."""
        if self.columns is not None:
            return len(self.rows)  # the tag of SHOW and EXPLAIN has no number
        number = whole_number(self.tag.rpartition(" ")[2])
        return -1 if number is None else number


class Copying:
    """The file that a ``COPY`` reads or writes.

    The text of text files is encoded and decoded in the session's encoding.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        # All text files of Python's have it, also those that `tempfile` wraps.
        self._text = hasattr(file, "encoding")

    def chunks(self, encode: Callable[[str], bytes]) -> Iterator[bytes]:
        """Yield the contents of the file."""
        while chunk := self._file.read(_CHUNK):
            yield encode(chunk) if isinstance(chunk, str) else chunk

    def write(self, data: bytes, decode: Callable[[bytes], str]) -> None:
        """Write *data*, which is a row of text, or a part of binary data."""
        self._file.write(decode(data) if self._text else data)
