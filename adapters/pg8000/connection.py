"""Connection: a connection of pg8000's, as PEP 249 and psycopg have it.

pg8000 opens it, with all that belongs to that: TLS, passwords, startup. From then on, its
statements are simple queries, see `wire`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from pg8000.core import CoreConnection

from relet.core import TransactionStatus

from . import errors
from .composites import load_hstore
from .cursor import Cursor, NamedCursor
from .exclusive import exclusive
from .info import Adapters, Info
from .loaders import Loaders, Zone
from .wire import CLOSED, Wire

IDLE = TransactionStatus.IDLE


class IsolationLevel(IntEnum):
    """What ``BEGIN`` asks for; by psycopg's numbers, which Django's settings have."""

    READ_UNCOMMITTED = 1
    READ_COMMITTED = 2
    REPEATABLE_READ = 3
    SERIALIZABLE = 4


class Connection(Wire):
    """A connection; threads may share it.

    :param pg: a connection of pg8000's, opened by whatever opens them; it is this one's now.
    :param texts: names of types that are loaded as text, as the server sends them.
    """

    def __init__(self, pg: CoreConnection, *, texts: frozenset[str] = frozenset()) -> None:
        self._texts = texts
        self._registered: list[tuple[Any, ...]] = []
        self._loaders: dict[tuple[Zone, Any], Loaders] = {}
        self._zone: Zone = "server"
        #: Whether it is told of hstore, which a dict is then taken for.
        self.has_hstore = False
        self._autocommit = False
        self._isolation_level: IsolationLevel | None = None
        self._read_only: bool | None = None
        self._deferrable: bool | None = None
        self._begin = "BEGIN"
        super().__init__(pg)
        try:
            if pg._transaction_status not in (None, b"I"):
                self.run("ROLLBACK")
            if self.parameters.get("client_encoding") != "UTF8":
                self.run("SET client_encoding TO 'UTF8'")
        except BaseException:
            self.close()
            raise

    # Statements.

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run *sql*, in autocommit or not; return the rows of the first statement that has some."""
        for result in self.exchange(sql):
            if result.columns is not None:
                return result.rows
        return []

    @exclusive("_lock")
    def begin(self) -> None:
        """Begin a transaction, if none has begun and this is not in autocommit."""
        if not self._autocommit and self.transaction_status == IDLE:
            self.exchange(self._begin)

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
        if self._socket is None:
            raise errors.OperationalError(CLOSED)
        if name is None:
            return Cursor(self)
        return NamedCursor(self, name, scrollable=scrollable, withhold=withhold)

    def commit(self) -> None:
        """End the transaction, if there is one."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        self._end("ROLLBACK")

    @exclusive("_lock")
    def _end(self, sql: str) -> None:
        if self._socket is None:
            raise errors.OperationalError(CLOSED)
        if self.transaction_status != IDLE:
            self.exchange(sql)

    # How transactions begin.

    @property
    def autocommit(self) -> bool:
        """Whether statements are transactions by themselves."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._change("autocommit")
        self._autocommit = bool(value)

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """That of the transactions that begin; None for the server's default."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, value: int | None) -> None:
        self._change("isolation_level")
        self._isolation_level = None if value is None else IsolationLevel(value)
        self._compose_begin()

    @property
    def read_only(self) -> bool | None:
        """Whether transactions only read; None for the server's default."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._change("read_only")
        self._read_only = value
        self._compose_begin()

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions wait for a snapshot that cannot fail; None for the default."""
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._change("deferrable")
        self._deferrable = value
        self._compose_begin()

    def _change(self, attribute: str) -> None:
        if self._socket is None:
            raise errors.OperationalError(CLOSED)
        if self.transaction_status != IDLE:
            raise errors.ProgrammingError(
                f"{attribute} cannot be changed now: the connection is in a transaction"
            )

    def _compose_begin(self) -> None:
        words = ["BEGIN"]
        if self._isolation_level is not None:
            words.append(f"ISOLATION LEVEL {self._isolation_level.name.replace('_', ' ')}")
        if self._read_only is not None:
            words.append("READ ONLY" if self._read_only else "READ WRITE")
        if self._deferrable is not None:
            words.append("DEFERRABLE" if self._deferrable else "NOT DEFERRABLE")
        self._begin = " ".join(words)

    # What values are.

    @property
    def zone(self) -> Zone:
        """What a ``timestamptz`` is loaded in; see `relet.adapters.pg8000.loaders.Zone`."""
        return self._zone

    @zone.setter
    def zone(self, zone: Zone) -> None:
        self._zone, self.loaders = zone, self.loaders_for(zone)

    def loaders_for(self, zone: Zone) -> Loaders:
        """Return the loaders of this connection for another zone."""
        key = zone, self._decode
        if (loaders := self._loaders.get(key)) is None:
            loaders = self._loaders[key] = Loaders(zone, self._texts, self._decode)
            for what in self._registered:
                loaders.register(*what)
        return loaders

    def register(self, name: str, oid: int, array_oid: int = 0) -> None:
        """Tell it of a type that an extension has brought: hstore, or one loaded as text."""
        what: tuple[Any, ...] = (name, oid, array_oid)
        if name == "hstore":
            what, self.has_hstore = (*what, load_hstore), True
        self._registered.append(what)
        for loaders in self._loaders.values():
            loaders.register(*what)

    def _follow_encoding(self) -> None:
        super()._follow_encoding()
        self.zone = self._zone

    @property
    def info(self) -> Info:
        """What is known of the session, by psycopg's names."""
        return Info(self)

    @property
    def adapters(self) -> Adapters:
        """What psycopg, and so django.contrib.postgres, tells of types that extensions bring."""
        return Adapters(self)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = TransactionStatus(self.transaction_status).name
        return f"<{type(self).__module__}.{type(self).__qualname__} [{state}] at {id(self):#x}>"
