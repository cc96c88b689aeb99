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
from typing import TYPE_CHECKING, Any, Protocol

from relet.backends.leases.runner import LeaseRunner

if TYPE_CHECKING:
    from relet.core.facts import Facts


class _Cursor(Protocol):
    """The cursor whose connection it is."""

    @property
    def closed(self) -> bool: ...

    def keep(self) -> None: ...


class LeasedConnection:
    """Stands where a driver's connection stands.

    :param cursor: whose it is. A lease that it takes lasts until that cursor is closed; without a
        cursor, until the next statement has ended.
    """

    # No name of a driver's may be taken, so these are private to the class.
    __slots__ = ("__look", "__runner", "__weakref__")

    def __init__(self, runner: LeaseRunner, cursor: _Cursor | None = None) -> None:
        object.__setattr__(self, "_LeasedConnection__runner", runner)
        object.__setattr__(self, "_LeasedConnection__look", _Look(runner, cursor))

    def __getattr__(self, name: str) -> Any:
        return self.__look.at(name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__look.take(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__look.take(), name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # for isinstance()
        facts = self.__runner.facts_if_known()
        return LeasedConnection if facts is None else facts.kind

    def __dir__(self) -> list[str]:
        return sorted(self.__runner.facts().names)

    def __eq__(self, other: object) -> bool:
        return type(other) is LeasedConnection and other.__runner is self.__runner

    def __hash__(self) -> int:
        return hash(self.__runner)

    def __repr__(self) -> str:
        lease = self.__runner.lease
        what = "at rest" if lease.connection is None else repr(lease.connection.raw)
        return f"<LeasedConnection of DATABASES[{lease.alias!r}], {what}>"

    def __enter__(self) -> Any:
        return self.__look.take().__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        return self.__look.take().__exit__(*exc_info)


class _Look:
    """A look at the connection of *runner*, or at a part of it.

    :param part: its name, and a dot.
    """

    __slots__ = ("_cursor", "_part", "_runner")

    def __init__(self, runner: LeaseRunner, cursor: _Cursor | None, part: str = "") -> None:
        self._runner, self._cursor, self._part = runner, cursor, part

    def at(self, name: str) -> Any:
        """Return what is at *name*."""
        runner, path = self._runner, self._part + name
        facts, connection = runner.facts(), runner.lease.connection
        if path in facts.values:
            if connection is not None:
                return attrgetter(path)(connection.raw)
            return self._at_rest(path, facts.values[path])
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
            return attrgetter(path)(self.take())
        value = attrgetter(path)(connection.raw)  # if there is none, nothing is used
        self.take()
        return value

    def _at_rest(self, path: str, value: Any) -> Any:
        """Return what is at *path*, where no connection is leased."""
        runner = self._runner
        if path == "autocommit":  # a transaction may have begun that has taken no connection yet
            return not runner.host._in_transaction
        if path == "closed" and self._cursor is None and runner.closed:
            return type(value)(True)  # by the wrapper's close(); psycopg2 has a number
        return value

    def take(self) -> Any:
        """Return the driver's connection, for who uses it."""
        self._keep()
        return self._runner.lend()

    def _keep(self) -> Any:
        """Have a lease, and return the driver's connection."""
        runner = self._runner
        if runner.lease.connection is None:
            runner.host.validate_thread_sharing()
        if self._cursor is not None and not self._cursor.closed:
            self._cursor.keep()
        elif runner.lease.connection is None:
            runner.ensure_connection()
        return runner.lease.connection.raw  # type: ignore[union-attr]


class _Part:
    """Stands where a part of the driver's connection stands, such as psycopg's ``info``."""

    __slots__ = ("__look", "__weakref__")

    def __init__(self, runner: LeaseRunner, cursor: _Cursor | None, path: str) -> None:
        self.__look = _Look(runner, cursor, f"{path}.")

    def __getattr__(self, name: str) -> Any:
        return self.__look.at(name)


def _method(runner: LeaseRunner, facts: Facts, path: str) -> Callable[..., Any]:
    """Return a function that tells what the method at *path* does."""

    def tell(*args: Any, **kwargs: Any) -> Any:
        connection = runner.lease.connection
        asked = facts.methods[path] if connection is None else attrgetter(path)(connection.raw)
        return asked(*args, **kwargs)

    tell.__name__ = tell.__qualname__ = path.rpartition(".")[2]
    return tell


class _Block:
    """A block of the driver's, such as psycopg's ``pipeline()``: the lease lasts as long."""

    def __init__(self, runner: LeaseRunner, name: str, *args: Any, **kwargs: Any) -> None:
        self._runner, self._name, self._args, self._kwargs = runner, name, args, kwargs
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
