"""Bench: an adapter class under test, its pools, and a connection that observes the server."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import count
from typing import Any, Literal

from relet.core import PoolAdapter, PoolConfig, PooledConnection

from .patience import patience

_numbers = count(1)


class Broken(Exception):
    """A rule is broken. The text says what was observed."""

    #: The name of the rule, for a check that is not among the rules.
    rule = "machine"


def demand(fact: object, otherwise: str) -> None:
    """Raise `Broken` with the text *otherwise* unless *fact*."""
    if not fact:
        raise Broken(otherwise)


def eventually(fact: Callable[[], object], otherwise: str) -> None:
    """Raise `Broken` unless *fact* soon becomes true."""
    seconds = patience.seconds
    if not comes_true(fact, seconds):
        patience.lose()
        raise Broken(f"{otherwise} (waited {seconds:g} s)")


def comes_true(fact: Callable[[], object], seconds: float) -> bool:
    """Return whether *fact* becomes true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Make Python's threads interleave more often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


class ConfigureFailed(Exception):
    """Raised while a new connection is configured."""


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


class Call:
    """A function that runs in a thread of its own, because it may never return."""

    #: The threads' name.
    NAME = "conformance-kit"

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._outcome: Any = None
        self.error: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=self.NAME, daemon=True).start()

    def _run(self) -> None:
        try:
            self._outcome = self._function()
        except BaseException as error:  # noqa: BLE001 - carried to the caller
            self.error = error
        self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Return whether it ends within *seconds*."""
        return self._ended.wait(seconds)

    def result(self, seconds: float | None = None) -> Any:
        """Return what the function returns, or raise what it raises.

        :param seconds: how long to wait for it; by default `patience`.
        """
        seconds = patience.seconds if seconds is None else seconds
        if not self._ended.wait(seconds):
            patience.lose()
            raise Broken(f"It did not return within {seconds:g} s.")
        if self.error is not None:
            raise self.error
        return self._outcome


class Lease:
    """A place for one connection that is checked out, as the engine's leases are."""

    def __init__(self, connection: PooledConnection | None = None) -> None:
        self.connection = connection


class Bench:
    """Makes pools of one adapter class; closes them and any connections they leave open.

    :param leases: whether connections are moved into and out of leases, as the engine does, or by
        `checkout`, `checkin` and `discard`.
    """

    def __init__(
        self,
        adapter: type[PoolAdapter[Any]],
        parameters: Mapping[str, Any],
        *,
        leases: bool = True,
    ) -> None:
        self.adapter = adapter
        self.parameters = parameters
        self.leases = leases
        #: The connections that `configure` was called with, in order.
        self.configured: list[Any] = []
        #: Their server processes.
        self.pids: list[int] = []
        #: Whether `configure` was called with a connection that was not in autocommit.
        self.not_in_autocommit = False
        #: Whether `configure` raises once, for the next new connection.
        self.refuse = False
        #: What is to be asked for at each connection, and how often that was done.
        self.asked_for: Mapping[str, Any] = {}
        self.asked = 0
        self._made: list[PoolAdapter[Any]] = []
        self._observer: PooledConnection | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pool in self._made:
            with suppress(Exception, Broken):
                Call(pool.close).result()
        for raw in (*self.configured, *([self._observer.raw] if self._observer else [])):
            with suppress(Exception):
                raw.close()

    def pool(
        self, size: int = 1, timeout: float | None = None, **parameters: Any
    ) -> PoolAdapter[Any]:
        """Make a pool, and open it.

        :param timeout: the pool's timeout; by default a long one.
        :param parameters: arguments of the driver's ``connect()`` that replace the bench's.
        """
        pool = self.unopened(size, timeout, **parameters)
        Call(pool.open).result()
        return pool

    def unopened(
        self, size: int = 1, timeout: float | None = None, **parameters: Any
    ) -> PoolAdapter[Any]:
        """Make a pool, and do not open it."""
        seconds = patience.seconds / 2 if timeout is None else timeout
        return self.made(self.adapter.options_for(size=size, timeout=seconds), **parameters)

    def made(
        self, options: Mapping[str, Any] | Literal[False], **parameters: Any
    ) -> PoolAdapter[Any]:
        """Make a pool with *options*."""
        self.adapter.check_options(options)
        alias = f"conformance_{next(_numbers)}"
        made: list[PoolAdapter[Any]] = []

        def configure(raw: Any) -> None:
            if raw.autocommit is not True:
                self.not_in_autocommit = True
            self.pids.append(self.pid(made[0], raw))
            made[0].execute_internal(
                raw, f"SELECT set_config('relet.configured', '{alias}', false)"
            )
            if self.refuse:
                self.refuse = False
                raise ConfigureFailed("refused by the kit")
            self.configured.append(raw)

        def ask() -> Mapping[str, Any]:
            self.asked += 1
            return self.asked_for

        connect = {**self.parameters, **parameters}
        config = PoolConfig(alias, connect, options, configure, ask)
        made.append(self.adapter(config))
        self._made += made
        return made[0]

    # Calls of pools, in the thread that calls.

    def take(self, pool: PoolAdapter[Any], timeout: float | None = None) -> PooledConnection:
        if not self.leases:
            return pool.checkout(timeout)
        lease = Lease()
        pool.checkout_into(lease, timeout)
        connection: Any = lease.connection
        return connection  # type: ignore[no-any-return]

    def give(self, pool: PoolAdapter[Any], connection: PooledConnection) -> None:
        if not self.leases:
            pool.checkin(connection)
            return
        lease = Lease(connection)
        pool.checkin_from(lease)
        demand(lease.connection is None, "checkin_from() did not set lease.connection to None.")

    def throw_away(self, pool: PoolAdapter[Any], connection: PooledConnection) -> None:
        if not self.leases:
            pool.discard(connection)
            return
        lease = Lease(connection)
        pool.discard_from(lease)
        demand(lease.connection is None, "discard_from() did not set lease.connection to None.")

    # The same, each with a time limit.

    def checkout(self, pool: PoolAdapter[Any], timeout: float | None = None) -> PooledConnection:
        connection = Call(lambda: self.take(pool, timeout)).result()
        demand(
            isinstance(connection, PooledConnection),
            f"checkout() returned {connection!r}, not a PooledConnection.",
        )
        demand(connection.raw is not None, "checkout() returned a connection whose raw is None.")
        return connection  # type: ignore[no-any-return]

    def waiter(self, pool: PoolAdapter[Any], timeout: float = 60.0) -> Call:
        """Start a thread that waits for a connection; return when the pool counts it."""
        before = pool.stats().waiting
        call = Call(lambda: self.take(pool, timeout))
        eventually(
            lambda: call.ended or pool.stats().waiting == before + 1,
            f"A thread waits, but stats().waiting stays {before}",
        )
        if call.ended:
            got = "raised " + repr(call.error) if call.error else "returned a connection"
            raise Broken(f"With none left, checkout(timeout={timeout:g}) {got} instead of waiting.")
        return call

    def checkin(self, pool: PoolAdapter[Any], connection: PooledConnection) -> None:
        Call(lambda: self.give(pool, connection)).result()

    def discard(self, pool: PoolAdapter[Any], connection: PooledConnection) -> None:
        call = Call(lambda: self.throw_away(pool, connection))
        try:
            call.result()
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"discard() raised {error!r}; it must never raise.") from error

    def must_fail(self, call: Callable[[], object], pool: PoolAdapter[Any], what: str) -> str:
        """Demand that *call* raises the driver's OperationalError, naming the alias."""
        started = Call(call)
        try:
            started.result()
        except Broken:
            raise
        except Exception as error:  # noqa: BLE001 - any error is checked below
            demand(
                self.is_operational(error),
                f"{what} raised {error!r}; it must be the driver's OperationalError.",
            )
            alias = pool.config.alias
            demand(alias in str(error), f"The error of {what} does not name the alias: {error!s}")
            return str(error)
        raise Broken(f"{what} raised nothing.")

    def is_operational(self, error: BaseException) -> bool:
        """Whether *error* is the driver's OperationalError (PEP 249)."""
        return any(
            cls.__name__ == "OperationalError" and _package(cls) in self._drivers
            for cls in type(error).__mro__
        )

    @cached_property
    def _drivers(self) -> set[str]:
        """The packages that define the driver's connections and exceptions."""
        classes = list(type(self.observer.raw).__mro__)
        try:
            self.ask("SELECT 1/0")
        except Exception as error:  # noqa: BLE001 - its class is wanted
            classes += type(error).__mro__
        return set(map(_package, classes)) - {"builtins"}

    # The server's side.

    @property
    def observer(self) -> PooledConnection:
        """A connection from a separate pool, kept until the end."""
        if self._observer is None:
            config = PoolConfig(
                "observer", self.parameters, self.adapter.options_for(size=1, timeout=5.0)
            )
            self._observers = pool = self.adapter(config)
            self._made.append(pool)
            pool.open()
            self._observer = self.checkout(pool)
        return self._observer

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Run *sql* on the observer; return the rows."""
        raw = self.observer.raw
        return self._observers.execute_internal(raw, sql)

    def pid(self, pool: PoolAdapter[Any], raw: Any) -> int:
        return int(pool.execute_internal(raw, "SELECT pg_backend_pid()")[0][0])

    def alive(self) -> set[int]:
        """The server processes of configured connections that are still alive."""
        if not self.pids:
            return set()
        pids = ", ".join(map(str, self.pids))
        rows = self.ask(f"SELECT pid FROM pg_stat_activity WHERE pid IN ({pids})")
        return {int(row[0]) for row in rows}

    def kill(self, pid: int) -> None:
        """End a server process, and wait until it is gone."""
        self.ask(f"SELECT pg_terminate_backend({pid}, 5000)")
