"""Connection: a connection of pg8000's, as PEP 249 and psycopg have it.

pg8000 opens it, with all that belongs to that: TLS, passwords, startup. From then on, its
statements are simple queries, see `wire`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from pg8000.core import CoreConnection

from relet.adapters.opening import configure_or_close
from relet.core import TransactionStatus

from . import errors
from .cursor import Cursor, NamedCursor
from .info import Adapters, Info
from .loaders import Zone
from .session import Session
from .values import Values
from .wire import Wire

IDLE = TransactionStatus.IDLE


class IsolationLevel(IntEnum):
    """What ``BEGIN`` asks for; by psycopg's numbers, which Django's settings have."""

    READ_UNCOMMITTED = 1
    READ_COMMITTED = 2
    REPEATABLE_READ = 3
    SERIALIZABLE = 4


class Connection:
    """A connection; threads may share it.

    :param pg: a connection of pg8000's, opened by whatever opens them; it is this one's now.
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
        #: Messages of the server, the last ones.
        self.notices = wire.notices
        #: What has been sent by ``NOTIFY`` and arrived, in order; whoever reads it clears it.
        self.notifies = wire.notifies
        configure_or_close(self, Connection._start)

    def _start(self) -> None:
        """Leave the transaction and the encoding that somebody else has opened it with."""
        if self.wire.pg._transaction_status not in (None, b"I"):
            self.run("ROLLBACK")
        if self.wire.parameters.get("client_encoding") != "UTF8":
            self.run("SET client_encoding TO 'UTF8'")

    # Statements.

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run *sql*, in autocommit or not; return the rows of the first statement that has some."""
        return self.session.run(sql)

    def begin(self) -> None:
        """Begin a transaction, if none has begun and this is not in autocommit."""
        self.session.begin()

    # PEP 249.

    def cursor(
        self,
        name: str | None = None,
        *,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Cursor:
        """Return a cursor; one with a *name* leaves its rows on the server.

        :param scrollable: whether it can go back; None leaves it to the server.
        :param withhold: whether it outlives its transaction.
        """
        self.wire.check_open()
        if name is None:
            return Cursor(self.session, self)
        return NamedCursor(self.session, self, name, scrollable=scrollable, withhold=withhold)

    def commit(self) -> None:
        """End the transaction, if there is one."""
        self.session.commit()

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        self.session.rollback()

    def close(self) -> None:
        """Close it; what was begun is undone. Closing it again does nothing.

        A thread that waits for an answer is told that it is closed.
        """
        self.wire.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed, or lost."""
        return self.wire.closed

    # How transactions begin.

    @property
    def transaction_status(self) -> int:
        """The transaction status, one of `relet.core.TransactionStatus`."""
        return self.wire.transaction_status

    @property
    def autocommit(self) -> bool:
        """Whether statements are transactions by themselves."""
        return self.session.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._check_can_change("autocommit")
        self.session.autocommit = bool(value)

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """That of the transactions that begin; None for the server's default."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, value: int | None) -> None:
        self._check_can_change("isolation_level")
        self._isolation_level = None if value is None else IsolationLevel(value)
        self._compose_begin()

    @property
    def read_only(self) -> bool | None:
        """Whether transactions only read; None for the server's default."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._check_can_change("read_only")
        self._read_only = value
        self._compose_begin()

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions wait for a snapshot that cannot fail; None for the default."""
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
        words = ["BEGIN"]
        if self._isolation_level is not None:
            words.append(f"ISOLATION LEVEL {self._isolation_level.name.replace('_', ' ')}")
        if self._read_only is not None:
            words.append("READ ONLY" if self._read_only else "READ WRITE")
        if self._deferrable is not None:
            words.append("DEFERRABLE" if self._deferrable else "NOT DEFERRABLE")
        self.session.begin_sql = " ".join(words)

    # What values are.

    @property
    def zone(self) -> Zone:
        """What a ``timestamptz`` is loaded in; see `relet.adapters.pg8000.loaders.Zone`."""
        return self.wire.values.zone

    @zone.setter
    def zone(self, zone: Zone) -> None:
        self.wire.values.zone = zone

    # psycopg's, and psycopg2's.

    @property
    def info(self) -> Info:
        """What is known of the session, by psycopg's names."""
        return Info(self.wire)

    @property
    def adapters(self) -> Adapters:
        """What psycopg, and so django.contrib.postgres, tells of types that extensions bring."""
        return Adapters(self.wire.values)

    @property
    def timeout(self) -> float | None:
        """For how many seconds its socket waits for the server; None is for good."""
        return self.wire.timeout

    def fileno(self) -> int:
        """Return the file descriptor of its socket, to wait for what `poll` takes.

        :raises OperationalError: it is closed.
        """
        return self.wire.fileno()

    def poll(self) -> None:
        """Take what the server has sent by itself, such as `notifies`, without waiting for it.

        :raises OperationalError: the connection is closed, or lost.
        """
        self.wire.poll()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = TransactionStatus(self.transaction_status).name
        return f"<{type(self).__module__}.{type(self).__qualname__} [{state}] at {id(self):#x}>"
