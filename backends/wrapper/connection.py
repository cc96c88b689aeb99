"""LeasedConnection: what Django's users see as the driver's connection.

Many tools look at it before each statement, to tell which server that goes to. What a connection
tells of itself is known in advance, so it is answered here, without a lease. Anything else that is
asked of it, or changed, takes a lease. Nobody knows what is done with it then, so the session is
restored after that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relet.core.facts import Facts

    from .cursor import LeasedCursor
    from .wrapper import LeasingWrapper


class LeasedConnection:
    """Stands where a driver's connection stands.

    :param cursor: whose it is. A lease that it takes lasts until that cursor is closed; without a
        cursor, until the next statement has ended.
    """

    # No name of a driver's may be taken, so these are private to the class.
    __slots__ = ("__db", "__look", "__weakref__")

    def __init__(self, db: LeasingWrapper, cursor: LeasedCursor | None = None) -> None:
        object.__setattr__(self, "_LeasedConnection__db", db)
        object.__setattr__(self, "_LeasedConnection__look", _Look(db, cursor))

    def __getattr__(self, name: str) -> Any:
        return self.__look.at(name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__look.take(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__look.take(), name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # for isinstance()
        facts = self.__db._facts_if_known()
        return LeasedConnection if facts is None else facts.kind

    def __dir__(self) -> list[str]:
        return sorted(self.__db._facts().names)

    def __eq__(self, other: object) -> bool:
        return type(other) is LeasedConnection and other.__db is self.__db

    def __hash__(self) -> int:
        return hash(self.__db)

    def __repr__(self) -> str:
        connection = self.__db._lease.connection
        what = "at rest" if connection is None else repr(connection.raw)
        return f"<LeasedConnection of DATABASES[{self.__db.alias!r}], {what}>"

    def __enter__(self) -> Any:
        return self.__look.take().__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        return self.__look.take().__exit__(*exc_info)


class _Look:
    """A look at the connection of *db*, or at a part of it.

    :param part: its name, and a dot.
    """

    __slots__ = ("_cursor", "_db", "_part")

    def __init__(self, db: LeasingWrapper, cursor: LeasedCursor | None, part: str = "") -> None:
        self._db, self._cursor, self._part = db, cursor, part

    def at(self, name: str) -> Any:
        """Return what is at *name*."""
        db, path = self._db, self._part + name
        facts, connection = db._facts(), db._lease.connection
        if path in facts.values:
            if connection is not None:
                return attrgetter(path)(connection.raw)
            return self._at_rest(path, facts.values[path])
        if path in facts.methods:
            return _method(db, facts, path)
        if path in facts.parts:
            return _Part(self._db, self._cursor, path)
        if path in facts.blocks:
            return partial(_Block, db, name)
        if path in facts.of_session:
            return attrgetter(path)(self._keep() if connection is None else connection.raw)
        if connection is None:
            if not self._part and name not in facts.names:
                raise AttributeError(f"{facts.kind.__name__!r} object has no attribute {name!r}")
            return attrgetter(path)(self.take())
        value = attrgetter(path)(connection.raw)  # if there is none, nothing is used
        self.take()
        return value

    def _at_rest(self, path: str, value: Any) -> Any:
        """Return what is at *path*, where no connection is leased."""
        db = self._db
        if path == "autocommit":  # a transaction may have begun that has taken no connection yet
            return not db._in_transaction
        if path == "closed" and self._cursor is None and db._closed:
            return type(value)(True)  # by the wrapper's close(); psycopg2 has a number
        return value

    def take(self) -> Any:
        """Return the driver's connection, for who uses it."""
        self._keep()
        return self._db._lend()

    def _keep(self) -> Any:
        """Have a lease, and return the driver's connection."""
        db = self._db
        if db._lease.connection is None:
            db.validate_thread_sharing()
        if self._cursor is not None and not self._cursor.closed:
            self._cursor.keep()
        elif db._lease.connection is None:
            db._ensure_connection()
        return db._lease.connection.raw  # type: ignore[union-attr]


class _Part:
    """Stands where a part of the driver's connection stands, such as psycopg's ``info``."""

    __slots__ = ("__look", "__weakref__")

    def __init__(self, db: LeasingWrapper, cursor: LeasedCursor | None, path: str) -> None:
        self.__look = _Look(db, cursor, f"{path}.")

    def __getattr__(self, name: str) -> Any:
        return self.__look.at(name)


def _method(db: LeasingWrapper, facts: Facts, path: str) -> Callable[..., Any]:
    """Return a function that tells what the method at *path* does."""

    def tell(*args: Any, **kwargs: Any) -> Any:
        connection = db._lease.connection
        asked = facts.methods[path] if connection is None else attrgetter(path)(connection.raw)
        return asked(*args, **kwargs)

    tell.__name__ = tell.__qualname__ = path.rpartition(".")[2]
    return tell


class _Block:
    """A block of the driver's, such as psycopg's ``pipeline()``: the lease lasts as long."""

    def __init__(self, db: LeasingWrapper, name: str, *args: Any, **kwargs: Any) -> None:
        self._db, self._name, self._args, self._kwargs = db, name, args, kwargs
        self._pin = db._pin_of(self)
        self._block: Any = None

    def __enter__(self) -> Any:
        try:
            raw = self._db._pin(self._pin)
            self._db._expose()
            self._block = getattr(raw, self._name)(*self._args, **self._kwargs)
            return self._db._call(self._block.__enter__)
        except BaseException:
            self._db._unpin(self._pin)
            raise

    def __exit__(self, *exc_info: Any) -> Any:
        try:
            return self._db._call(self._block.__exit__, *exc_info)
        finally:
            self._db._unpin(self._pin)
