"""Cursors of psycopg2 that keep their rows when the connection is closed."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import psycopg2
from psycopg2 import extensions

if TYPE_CHECKING:
    from typing_extensions import Self

    Base = extensions.cursor
else:
    Base = object


class Buffered(Base):
    """Mixed in before a cursor class: reads all rows when a statement has run.

    By then psycopg2 has the rows on the client, but it refuses to return them once the connection
    is closed. A lease ends with its statement, and after that the pool may close the connection at
    any moment: because it is too old or superfluous, or because it broke in the next lease.

    A server-side cursor, which has a name, keeps its lease, and is not buffered.
    """

    #: The rows of the last statement, None if it has none, and how many of them were fetched.
    _rows: list[Any] | None = None
    _next = 0
    _closed = False

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's name
        self._rows, self._next = None, 0
        super().execute(query, vars)
        self._read()

    def callproc(self, procname: Any, parameters: Any = None, /) -> Any:
        self._rows, self._next = None, 0
        result = super().callproc(*(procname, *(() if parameters is None else (parameters,))))
        self._read()
        return result

    def executemany(self, query: Any, vars_list: Any) -> None:
        self._rows = None
        super().executemany(query, vars_list)

    def copy_expert(self, *args: Any, **kwargs: Any) -> None:
        self._rows = None
        super().copy_expert(*args, **kwargs)

    def _read(self) -> None:
        if self.name is None and self.description is not None:
            # A signal handler may have closed the cursor; fetching then raises.
            with suppress(psycopg2.InterfaceError):
                self._rows = super().fetchall()

    def close(self) -> None:
        self._closed = True
        super().close()

    # Results.

    def _here(self) -> list[Any] | None:
        """Return the rows; None if psycopg2 itself must return rows, or raise."""
        if self._closed and self._rows is not None:
            raise psycopg2.InterfaceError("cursor already closed")
        return self._rows

    def fetchone(self) -> Any:
        rows = self._here()
        if rows is None:
            return super().fetchone()
        if self._next >= len(rows):
            return None
        self._next += 1
        return rows[self._next - 1]

    def fetchmany(self, size: int | None = None) -> list[Any]:
        rows = self._here()
        if rows is None:
            return super().fetchmany(self.arraysize if size is None else size)
        first = self._next
        self._next = min(first + (self.arraysize if size is None else size), len(rows))
        return rows[first : self._next]

    def fetchall(self) -> list[Any]:
        rows = self._here()
        if rows is None:
            return super().fetchall()
        first, self._next = self._next, len(rows)
        return rows[first:]

    def __iter__(self) -> Self:
        return super().__iter__() if self._here() is None else self

    def __next__(self) -> Any:
        if self._here() is None:
            return super().__next__()
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    @property
    def rownumber(self) -> int:
        return super().rownumber if self._rows is None else self._next

    def scroll(self, value: int, mode: Literal["relative", "absolute"] = "relative") -> None:
        rows = self._here()
        if rows is None:
            super().scroll(value, mode)
            return
        if mode not in ("relative", "absolute"):
            raise psycopg2.ProgrammingError("scroll mode must be 'relative' or 'absolute'")
        target = value + (self._next if mode == "relative" else 0)
        if not 0 <= target < len(rows):
            raise psycopg2.ProgrammingError("scroll destination out of bounds")
        self._next = target


@lru_cache(maxsize=32)
def buffered(cursor_class: type[Any]) -> type[Any]:
    """Return *cursor_class* with `Buffered` mixed in."""
    if issubclass(cursor_class, Buffered):
        return cursor_class
    return type(cursor_class.__name__, (Buffered, cursor_class), {"__doc__": cursor_class.__doc__})
