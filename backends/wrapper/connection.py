"""LeasedConnection: stands in for the driver's connection as ``connection.connection``.

Many tools read it before each statement, to see which server the statement goes to. Facts such as
the host and the server's version are known from the pool's newest connection, so they are answered
here without a lease. Any other access takes a lease. relet cannot see what the caller then does to
the session, so it restores the session afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from django.db import DatabaseError

from relet.backends.leases.runner import LeaseRunner

if TYPE_CHECKING:
    from relet.core.facts import Facts


class _Cursor(Protocol):
    """The part of `LeasedCursor` that a connection needs."""

    @property
    def closed(self) -> bool: ...

    def keep(self) -> None: ...


class LeasedConnection:
    """A proxy of the driver's connection that leases one only when it must.

    :param cursor: the cursor that it belongs to. A lease that it takes lasts until that cursor is
        closed; without a cursor, until the next statement has ended.
    """

    # Name-mangled, so that they cannot hide an attribute of the driver's connection.
    __slots__ = ("__access", "__runner", "__weakref__")

    def __init__(self, runner: LeaseRunner, cursor: _Cursor | None = None) -> None:
        object.__setattr__(self, "_LeasedConnection__runner", runner)
        object.__setattr__(self, "_LeasedConnection__access", _Access(runner, cursor))

    def __getattr__(self, name: str) -> Any:
        return self.__access.get(name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__access.lease(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__access.lease(), name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # for isinstance()
        try:
            kind: type = self.__runner.facts().kind
            return kind
        except DatabaseError:  # there is no connection: to ask for a class raises no error
            return LeasedConnection

    def __dir__(self) -> list[str]:
        return sorted(self.__runner.facts().names)

    def __eq__(self, other: object) -> bool:
        return type(other) is LeasedConnection and other.__runner is self.__runner

    def __hash__(self) -> int:
        return hash(self.__runner)

    def __repr__(self) -> str:
        lease = self.__runner.lease
        what = "none leased" if lease.connection is None else repr(lease.connection.raw)
        return f"<LeasedConnection of DATABASES[{lease.alias!r}], {what}>"

    def __enter__(self) -> Any:
        return self.__access.lease().__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        return self.__access.lease().__exit__(*exc_info)


class _Access:
    """Attribute access to the connection of *runner*, or to a part of it.

    :param part: the part's name followed by a dot, or nothing for the connection itself.
    """

    __slots__ = ("_cursor", "_part", "_runner", "_wrapper")

    def __init__(self, runner: LeaseRunner, cursor: _Cursor | None, part: str = "") -> None:
        self._runner, self._cursor, self._part = runner, cursor, part
        self._wrapper = runner.host  # kept alive by this, as by a cursor

    def get(self, name: str) -> Any:
        """Return the attribute *name*, without a lease where that is possible."""
        runner, path = self._runner, self._part + name
        facts, connection = runner.facts(), runner.lease.connection
        if path in facts.values:
            if connection is not None:
                return attrgetter(path)(connection.raw)
            return self._unleased_value(path, facts.values[path])
        if path in facts.methods:
            return _method(runner, facts, path)
        if path in facts.parts:
            return _Part(runner, self._cursor, path)
        if path in facts.blocks:
            return partial(_Block, runner, name)
        if path in facts.of_session:
            return attrgetter(path)(self._keep() if connection is None else connection.raw)
        if connection is None:
            if not self._part and name not in facts.names:
                raise AttributeError(f"{facts.kind.__name__!r} object has no attribute {name!r}")
            return attrgetter(path)(self.lease())
        # First the attribute: if it does not exist, the session was not used.
        value = attrgetter(path)(connection.raw)
        self.lease()
        return value

    def _unleased_value(self, path: str, value: Any) -> Any:
        """Return the value at *path* while no connection is leased.

        :param value: the value that a connection of the pool had.
        """
        runner = self._runner
        if path == "autocommit":  # the transaction may have begun without a connection
            return not self._wrapper._in_transaction
        if path == "closed" and self._cursor is None and runner.closed:
            return type(value)(True)  # closed by the wrapper's close(); an int in psycopg2
        return value

    def lease(self) -> Any:
        """Return the driver's connection, for a caller who may change its session."""
        self._keep()
        return self._runner.lend()

    def _keep(self) -> Any:
        """Return the driver's connection; lease one if there is no lease."""
        runner = self._runner
        if runner.lease.connection is None:
            self._wrapper.validate_thread_sharing()
        if self._cursor is not None and not self._cursor.closed:
            self._cursor.keep()
        elif runner.lease.connection is None:
            runner.ensure_connection()
        return runner.lease.connection.raw  # type: ignore[union-attr]


class _Part:
    """A proxy of a part of the driver's connection, such as psycopg's ``info``."""

    __slots__ = ("__access", "__weakref__")

    def __init__(self, runner: LeaseRunner, cursor: _Cursor | None, path: str) -> None:
        self.__access = _Access(runner, cursor, f"{path}.")

    def __getattr__(self, name: str) -> Any:
        return self.__access.get(name)


def _method(runner: LeaseRunner, facts: Facts, path: str) -> Callable[..., Any]:
    """Return a stand-in for the driver's method at *path*, which needs no lease."""

    def call(*args: Any, **kwargs: Any) -> Any:
        connection = runner.lease.connection
        method = facts.methods[path] if connection is None else attrgetter(path)(connection.raw)
        return method(*args, **kwargs)

    call.__name__ = call.__qualname__ = path.rpartition(".")[2]
    return call


class _Block:
    """A context manager of the driver, such as psycopg's ``pipeline()``. It pins the lease."""

    def __init__(self, runner: LeaseRunner, name: str, *args: Any, **kwargs: Any) -> None:
        self._runner, self._wrapper = runner, runner.host
        self._name, self._args, self._kwargs = name, args, kwargs
        self._pin = runner.pin_for(self)
        self._block: Any = None

    def __enter__(self) -> Any:
        try:
            raw = self._runner.pin(self._pin)
            self._runner.mark_dirty()
            self._block = getattr(raw, self._name)(*self._args, **self._kwargs)
            return self._runner.call(self._block.__enter__)
        except BaseException:
            self._runner.unpin(self._pin)
            raise

    def __exit__(self, *exc_info: Any) -> Any:
        try:
            return self._runner.call(self._block.__exit__, *exc_info)
        finally:
            self._runner.unpin(self._pin)
