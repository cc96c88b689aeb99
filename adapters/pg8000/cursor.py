"""Cursors: they put parameters into statements, send them, and return the rows.

https://peps.python.org/pep-0249/#cursor-objects
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from relet.core import TransactionStatus

from .batches import Batch
from .errors import DataError, InterfaceError, ProgrammingError
from .exclusive import exclusive
from .literals import HStore, compose, hstore_text, identifier, quote
from .loaders import Loaders, Zone
from .results import Column, Copying, Result
from .session import Session
from .templates import template

Params = Sequence[Any] | Mapping[str, Any]
Row = tuple[Any, ...]

IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION
_NOTHING = Result(None, [], "")


class Sent:
    """The last statement of a cursor, in the place where psycopg has it and Django looks."""

    __slots__ = ("query",)

    def __init__(self, query: bytes) -> None:
        self.query = query


class Cursor:
    """A cursor that has all rows on the client when `execute` returns.

    :param connection: its connection, for callers that ask the cursor for it.
    """

    #: How many rows `fetchmany` returns by default.
    arraysize = 1
    _closed = False
    _sql: str | None = None
    _result = _NOTHING
    _position = 0
    _rowcount: int | None = None
    _zone: tuple[Zone] | None = None

    def __init__(self, session: Session, connection: object) -> None:
        self._session = session
        self.connection: Any = connection
        #: All results; once `nextset` was called, the results that follow.
        self._results: list[Result] | deque[Result] = []

    @property
    def zone(self) -> Zone:
        """The time zone in which a ``timestamptz`` is loaded; by default the connection's."""
        return self._session.values.zone if self._zone is None else self._zone[0]

    @zone.setter
    def zone(self, zone: Zone) -> None:
        self._zone = (zone,)

    def _loaders(self) -> Loaders | None:
        # Not cached, because they change with the session's encoding.
        return None if self._zone is None else self._session.values.loaders_for(*self._zone)

    # Statements.

    def mogrify(self, query: Any, params: Params | None = None) -> str:
        """Return the statement that `execute` would send.

        :raises ProgrammingError: the parameters do not fit, or the type of one is unknown.
        :raises DataError: PostgreSQL has no such value.
        """
        sql = query if query.__class__ is str else self._text(query)
        if params is None:
            return sql
        parts, names, tight = parsed = template(sql)
        if names is not None or params.__class__ not in _SIMPLE or len(params) + 1 != len(parts):
            params = parsed.values(params)
        params = self._adapted(params)
        return parsed.compose(params) if tight else compose(parts, params)

    def _adapted(self, params: Sequence[Any]) -> Sequence[Any]:
        """Return *params* as what `literal` takes."""
        return list(map(_with_hstore, params)) if self._session.values.has_hstore else params

    def _text(self, query: Any) -> str:
        """Return the text of a statement that is to be sent."""
        if not isinstance(query, bytes):
            return statement_text(query)
        try:
            return self._session.wire.decoded(query)
        except UnicodeDecodeError as error:
            raise DataError(
                f"the statement is bytes, and the byte at position {error.start} is not valid in "
                f"the client encoding ({error.encoding})"
            ) from error

    def execute(
        self, query: Any, params: Params | None = None, /, *, copying: Copying | None = None
    ) -> Cursor:
        """Run one or several statements, in one round trip.

        :param query: SQL, with placeholders ``%s`` or ``%(name)s`` if there are *params*.
        :raises Error: the server reports an error, or the connection is closed or lost.
        """
        if self._closed:
            raise InterfaceError("the cursor is closed")
        plain = params is None and query.__class__ is str
        self._sql = sql = query if plain else self.mogrify(query, params)
        self._results, self._result, self._position = [], _NOTHING, 0
        self._rowcount = None
        loaders = None if self._zone is None else self._loaders()
        results = self._session.send(sql, loaders, copying)
        if results:
            self._result = results[0]
            self._results = results
        return self

    def executemany(self, query: Any, params: Iterable[Params], /) -> None:
        """Run a statement with each of *params*; `rowcount` is the sum.

        All statements are composed before the first is sent. Outside of a transaction, all succeed
        or none.

        :raises Error: the server reports an error, or the connection is closed or lost. An error of
            the server has ``executemany_index``, the index of the failed parameters, if known.
        """
        if self._closed:
            raise InterfaceError("the cursor is closed")
        sql = query if query.__class__ is str else self._text(query)
        statements = [self.mogrify(sql, each) for each in params]
        self._results, self._result, self._position = [], _NOTHING, 0
        self._rowcount = None
        if statements:
            self._sql = statements[-1]
            results = Batch(sql, statements).send(self._session, self._loaders())
            self._result = Result(None, [], results[-1].tag)  # rows are not for executemany()
            self._rowcount = sum(max(result.count, 0) for result in results)
        else:
            self._rowcount = 0

    def callproc(self, name: str, args: Sequence[Any] | None = None) -> Sequence[Any] | None:
        """Call a function, as Django's cursors for psycopg do."""
        slots = ", ".join(["%s"] * len(args or ()))
        self.execute(f"SELECT * FROM {identifier(name)}({slots})", args or ())
        return args

    def copy_expert(self, sql: Any, file: Any) -> None:
        """Run ``COPY ... FROM STDIN``, which reads *file*, or ``TO STDOUT``, which writes to it.

        :param file: a file of bytes or of text.
        """
        self.execute(sql, copying=Copying(file))

    # Rows.

    @property
    def description(self) -> list[Column] | None:
        """The columns of the result; None if the statement has none."""
        columns = self._result.columns
        return None if columns is None else list(columns)

    @property
    def rowcount(self) -> int:
        """How many rows the statement returned or changed; -1 if that is unknown."""
        return self._result.count if self._rowcount is None else self._rowcount

    @property
    def rownumber(self) -> int | None:
        """The index of the next row; None if there is no result."""
        return None if self._result.columns is None else self._position

    @property
    def statusmessage(self) -> str | None:
        """The command tag, such as ``INSERT 0 1``."""
        return self._result.tag or None

    def fetchone(self) -> Any:
        """Return the next row, or None after the last."""
        rows = self._rows()
        if self._position >= len(rows):
            return None
        row = rows[self._position]
        self._position += 1
        return row

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows, at most *size*."""
        rows = self._rows()
        start = self._position
        self._position = min(start + (self.arraysize if size is None else size), len(rows))
        return rows[start : self._position]

    def fetchall(self) -> list[Any]:
        """Return the remaining rows."""
        rows = self._rows()
        start, self._position = self._position, len(rows)
        return rows[start:] if start else rows

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Move by *value* rows or, in the mode ``absolute``, to the row with the index *value*.

        :raises IndexError: there is no such row.
        """
        rows = self._rows()
        if mode not in ("relative", "absolute"):
            raise ValueError(f"mode is {mode!r}; it must be 'relative' or 'absolute'")
        position = value + (self._position if mode == "relative" else 0)
        if not 0 <= position < len(rows):
            raise IndexError("scroll destination out of bounds")
        self._position = position

    def peek(self) -> list[Row]:
        """Return the rows of the result, without fetching them."""
        return self._result.rows

    def nextset(self) -> bool | None:
        """Move to the result of the next statement; return None if there is none."""
        if self._closed:
            raise InterfaceError("the cursor is closed")
        if isinstance(self._results, list):
            self._results = deque(self._results[1:])
        if not self._results:
            return None
        self._result, self._position = self._results.popleft(), 0
        return True

    def _rows(self) -> list[Row]:
        if self._closed:
            raise InterfaceError("the cursor is closed")
        if self._result.columns is None:
            raise ProgrammingError("no result available: the statement returns no rows")
        return self._result.rows

    def __iter__(self) -> Iterator[Any]:
        self._rows()
        while (row := self.fetchone()) is not None:
            yield row

    # What Django reads.

    @property
    def query(self) -> bytes | None:
        """The last statement that was sent."""
        return None if self._sql is None else self._sql.encode(errors="replace")

    @property
    def _query(self) -> Sent | None:
        query = self.query
        return None if query is None else Sent(query)

    # Closing.

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def close(self) -> None:
        """Close it, and drop its rows."""
        self._closed = True

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class NamedCursor(Cursor):
    """A cursor whose rows stay on the server until they are fetched.

    What its methods do depends on whether it is declared, and in which transaction. They check this
    and act under the connection's lock, because another thread may share the connection.

    https://www.postgresql.org/docs/current/sql-declare.html
    """

    #: How many rows an iteration fetches at a time.
    itersize = 100

    def __init__(
        self,
        session: Session,
        connection: object,
        name: str,
        *,
        scrollable: bool | None,
        withhold: bool,
    ) -> None:
        super().__init__(session, connection)
        self.name = name
        self.scrollable = scrollable
        self.withhold = withhold
        self._declared = False

    @exclusive("_session.lock")
    def execute(
        self, query: Any, params: Params | None = None, /, *, copying: Copying | None = None
    ) -> Cursor:
        words = ["DECLARE", identifier(self.name)]
        if self.scrollable is not None:
            words.append("SCROLL" if self.scrollable else "NO SCROLL")
        words.append("CURSOR")
        if self.withhold:
            words.append("WITH HOLD")
        if self._declared:
            self._close_on_server()
        sql = self.mogrify(query, params)
        super().execute(f"{' '.join(words)} FOR {sql}")
        self._declared = True
        self._results, self._result = [], _NOTHING
        return self

    def executemany(self, query: Any, params: Iterable[Params], /) -> None:
        raise InterfaceError("executemany() is not supported on a named cursor")

    @property
    @exclusive("_session.lock")
    def description(self) -> list[Column] | None:
        if self._declared and self._result.columns is None:
            self._fetch("FORWARD 0")
        return super().description

    @property
    def rowcount(self) -> int:
        return -1

    def fetchone(self) -> Any:
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return self._fetch(f"FORWARD {self.arraysize if size is None else int(size)}")

    def fetchall(self) -> list[Any]:
        return self._fetch("FORWARD ALL")

    @exclusive("_session.lock")
    def scroll(self, value: int, mode: str = "relative") -> None:
        if mode not in ("relative", "absolute"):
            raise ValueError(f"mode is {mode!r}; it must be 'relative' or 'absolute'")
        if self._declared and self._result.columns is None:
            self._fetch("FORWARD 0")  # after the move, this would move back to a row
        self._move("MOVE", f"{mode.upper()} {int(value)}")
        self._position = int(value) + (self._position if mode == "relative" else 0)

    @exclusive("_session.lock")
    def _fetch(self, what: str) -> list[Any]:
        result = self._move("FETCH", what)
        self._position += len(result.rows)
        self._result = Result(result.columns, [], result.tag)
        return result.rows

    def _move(self, verb: str, what: str) -> Result:
        if self._closed:
            raise InterfaceError("the cursor is closed")
        if not self._declared:
            raise ProgrammingError("no statement has been executed on this cursor")
        sql = f"{verb} {what} FROM {identifier(self.name)}"
        return self._session.wire.exchange(sql, self._loaders())[0]

    def __iter__(self) -> Iterator[Any]:
        while rows := self.fetchmany(self.itersize):
            yield from rows

    @exclusive("_session.lock")
    def close(self) -> None:
        """Close it, also on the server."""
        if not self._closed:
            self._closed = True
            if self._declared:
                self._close_on_server()

    def _close_on_server(self) -> None:
        self._declared = False
        session, wire = self._session, self._session.wire
        status = wire.transaction_status
        close = f"CLOSE {identifier(self.name)}"
        if status == IDLE and self.withhold:
            with suppress(ProgrammingError):  # a statement has closed it already
                wire.exchange(close)
        # It is gone if its transaction is over, or its savepoint was rolled back.
        elif status == IN_TRANSACTION and session.run(
            f"SELECT FROM pg_cursors WHERE name = {quote(self.name)}"
        ):
            wire.exchange(close)
        # A failed transaction accepts no CLOSE; the cursor ends with it.


_SIMPLE = (tuple, list)


def statement_text(query: Any) -> str:
    """Return the SQL of a subclass of str, of bytes, or of an object of ``psycopg.sql``.

    It is for reading: what is no letter in bytes is replaced.
    """
    if isinstance(query, str):
        return str.__str__(query)
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    if hasattr(query, "as_string"):
        return str(query.as_string(None))
    raise TypeError(f"a statement must be a str, not {type(query).__name__}")


def _with_hstore(value: Any) -> Any:
    """Return *value* with dicts as hstore, as psycopg does once hstore is registered."""
    if isinstance(value, list):
        return list(map(_with_hstore, value))
    return HStore(hstore_text(value)) if isinstance(value, dict) else value
