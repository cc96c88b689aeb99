"""Connection: a connection of pg8000's with the interface of PEP 249 and psycopg.

pg8000 logs in. From then on, statements are simple queries; see `wire`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from pg8000.core import CoreConnection

from relet.adapters.opening import configure_or_close
from relet.core import TransactionStatus
from relet.core.sql import transactions

from . import errors
from .cursor import Cursor, NamedCursor
from .info import Adapters, Info
from .loaders import Zone
from .session import Session
from .values import Values
from .wire import Wire

IDLE = TransactionStatus.IDLE


class IsolationLevel(IntEnum):
    """An isolation level, by psycopg's numbers, which Django's settings use."""

    READ_UNCOMMITTED = 1
    READ_COMMITTED = 2
    REPEATABLE_READ = 3
    SERIALIZABLE = 4


class Connection:
    """A connection. Threads may share it.

    :param pg: a connection of pg8000's that is logged in. This object takes it over.
    :param texts: names of types that are loaded as text, as the server sends them.
    """

    def __init__(self, pg: CoreConnection, *, texts: frozenset[str] = frozenset()) -> None:
        self._isolation_level: IsolationLevel | None = None
        self._read_only: bool | None = None
        self._deferrable: bool | None = None
        #: The messages between the driver and the server, as psycopg's ``pgconn``.
        self.wire = wire = Wire(pg, Values(texts))
        #: What cursors send statements by.
        self.session = Session(wire)
        #: The server's latest notices.
        self.notices = wire.notices
        #: Notifications that have arrived, in order. The reader removes them.
        self.notifies = wire.notifies
        configure_or_close(self, Connection._start)

    def _start(self) -> None:
        """End a transaction that is open, and set the encoding: a connector may have opened it."""
        if self.wire.pg._transaction_status not in (None, b"I"):
            self.run("ROLLBACK")
        if self.wire.parameters.get("client_encoding") != "UTF8":
            self.run("SET client_encoding TO 'UTF8'")

    # Statements.

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run *sql*, and begin no transaction; return the rows of the first statement with rows."""
        return self.session.run(sql)

    def begin(self) -> None:
        """Begin a transaction, unless one is open or autocommit is on."""
        self.session.begin()

    # PEP 249.

    def cursor(
        self,
        name: str | None = None,
        *,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Cursor:
        """Return a cursor. A cursor with a *name* leaves its rows on the server.

        :param scrollable: whether it can move backwards; None leaves it to the server.
        :param withhold: whether it outlives its transaction.
        """
        self.wire.check_open()
        if name is None:
            return Cursor(self.session, self)
        return NamedCursor(self.session, self, name, scrollable=scrollable, withhold=withhold)

    def commit(self) -> None:
        """Commit the transaction, if one is open."""
        self.session.commit()

    def rollback(self) -> None:
        """Roll the transaction back, if one is open."""
        self.session.rollback()

    def close(self) -> None:
        """Close it; an open transaction is rolled back. Closing it again does nothing.

        In a thread that waits for an answer, the statement raises OperationalError.
        """
        self.wire.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed or lost."""
        return self.wire.closed

    # How transactions begin.

    @property
    def transaction_status(self) -> int:
        """The transaction status, one of `relet.core.TransactionStatus`."""
        return self.wire.transaction_status

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return self.session.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._check_can_change("autocommit")
        self.session.autocommit = bool(value)

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """The isolation level of new transactions; None is the server's default."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, value: int | None) -> None:
        self._check_can_change("isolation_level")
        self._isolation_level = None if value is None else IsolationLevel(value)
        self._compose_begin()

    @property
    def read_only(self) -> bool | None:
        """Whether new transactions are read-only; None is the server's default."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._check_can_change("read_only")
        self._read_only = value
        self._compose_begin()

    @property
    def deferrable(self) -> bool | None:
        """Whether new transactions are deferrable; None is the server's default."""
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._check_can_change("deferrable")
        self._deferrable = value
        self._compose_begin()

    def _check_can_change(self, attribute: str) -> None:
        self.wire.check_open()
        if self.wire.transaction_status != IDLE:
            raise errors.ProgrammingError(
                f"{attribute} cannot be changed while the connection is in a transaction; "
                "commit or roll back first"
            )

    def _compose_begin(self) -> None:
        level = self._isolation_level
        self.session.begin_sql = transactions.begin(
            None if level is None else level.name, self._read_only, self._deferrable
        )

    # Values.

    @property
    def zone(self) -> Zone:
        """The time zone in which a ``timestamptz`` is loaded; see `.loaders.Zone`."""
        return self.wire.values.zone

    @zone.setter
    def zone(self, zone: Zone) -> None:
        self.wire.values.zone = zone

    # The interface of psycopg and psycopg2.

    @property
    def info(self) -> Info:
        """Information about the session, by psycopg's names."""
        return Info(self.wire)

    @property
    def adapters(self) -> Adapters:
        """Where psycopg, and so django.contrib.postgres, registers types of extensions."""
        return Adapters(self.wire.values)

    @property
    def timeout(self) -> float | None:
        """How many seconds the socket waits for the server; None is no limit."""
        return self.wire.timeout

    def fileno(self) -> int:
        """Return the file descriptor of the socket, to wait until `poll` has something to read.

        :raises OperationalError: it is closed.
        """
        return self.wire.fileno()

    def poll(self) -> None:
        """Read what the server has sent by itself, such as notifications, without waiting.

        :raises OperationalError: the connection is closed or lost.
        """
        self.wire.poll()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = TransactionStatus(self.transaction_status).name
        return f"<{type(self).__module__}.{type(self).__qualname__} [{state}] at {id(self):#x}>"
