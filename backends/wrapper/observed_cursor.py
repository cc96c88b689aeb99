"""ObservedCursor: a cursor that counts its statements.

A plain statement, which is a lease of its own, is counted here with one look at the clock. All
others are left to `ObservedRunner.measure`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import frexp
from time import monotonic
from typing import Any

from relet.backends.leases.observed_runner import ObservedRunner
from relet.backends.observe.kept import Trace

from .cursor import LeasedCursor
from .server_cursor import LeasedServerCursor
from .transfers import Copy, Stream, Transferring

_execute = LeasedCursor.execute


class ObservedCursor(LeasedCursor):
    """A `LeasedCursor` that counts its statements."""

    __slots__ = ()

    _runner: ObservedRunner

    def __init__(self, runner: ObservedRunner) -> None:
        LeasedCursor.__init__(self, runner)
        if runner.lease.connection is not None:
            runner.note_cursor()

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        # The hot path.
        runner = self._runner
        lease = runner.lease
        if lease.connection is not None or query.__class__ is not str or kwargs or runner.detour:
            return runner.measure(self, query, self._execute_slowly, query, params, kwargs)
        before = lease.leased_at
        try:
            _execute(self, query, params)
        except BaseException as error:
            runner.ended(self, query, before, error=error)
            raise
        now = monotonic()
        leased_at = lease.leased_at
        tally = runner.tally
        if (
            lease.connection is not None
            or leased_at == before
            or tally.waited
            or runner.contention.until > leased_at
        ):
            runner.ended(self, query, before)
            return self
        ran = now - leased_at
        counts = tally[(runner.scope() or runner.fallback).route][query]
        counts.calls += 1
        counts.total += ran
        if ran > counts.maximum:
            counts.maximum = ran
        counts.buckets[frexp(ran)[1]] += 1
        if (rows := self._driver.rowcount) > 0:
            counts.rows += rows
        return self

    def _execute_slowly(self, query: Any, params: Any, kwargs: dict[str, Any]) -> LeasedCursor:
        return super().execute(query, params, **kwargs)

    def _run(self, method: str, query: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = super()._run
        if method == "execute":  # it is counted already
            return run(method, query, args, kwargs)
        return self._runner.measure(self, _text(method, query), run, method, query, args, kwargs)

    def copy(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        return ObservedCopy(self, query, args, kwargs)

    def stream(self, query: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return ObservedStream(self, query, args, kwargs)


def _text(method: str, query: Any) -> Any:
    """Return what a statement is called in reports if its text is not known."""
    if method == "callproc":
        return f"CALLPROC {query}"
    return f"COPY ({method})" if method in ("copy_from", "copy_to") else query


class ObservedServerCursor(LeasedServerCursor):
    """A `LeasedServerCursor` that counts its statements."""

    __slots__ = ()

    _runner: ObservedRunner

    def __init__(self, runner: ObservedRunner, name: str) -> None:
        super().__init__(runner, name)
        runner.note_cursor()

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        run = self._execute_slowly
        return self._runner.measure(self, query, run, query, params, kwargs, alone=False)

    def _execute_slowly(self, query: Any, params: Any, kwargs: dict[str, Any]) -> LeasedCursor:
        return super().execute(query, params, **kwargs)


class _ObservedTransfer(Transferring):
    """Counts a transfer as one statement, which runs until the transfer ends."""

    _runner: ObservedRunner
    _began_at: float | None = None
    _trace: Trace | None = None
    _ran_before = 0.0

    def _begin(self, method: str, finish: Callable[[Any, Any, BaseException | None], Any]) -> Any:
        self._began_at = monotonic()
        try:
            opened = super()._begin(method, finish)
        except BaseException as error:
            self._count(error)
            raise
        self._trace = self._runner.trace()
        if self._trace is not None:
            self._ran_before = self._trace.ran
        return opened

    def _end(self, error: BaseException | None) -> Any:
        if self._trace is not None and self._began_at is not None:
            self._trace.ran = self._ran_before + monotonic() - self._began_at
        try:
            return super()._end(error)
        finally:
            self._count(error)

    def _count(self, error: BaseException | None) -> None:
        if (began := self._began_at) is not None:
            self._began_at = self._trace = None
            ran = monotonic() - began
            failed = None if isinstance(error, GeneratorExit) else error
            counts = self._runner.count(self._cursor, self._query, ran, failed)
            counts.inner += 1
            counts.inner_total += ran


class ObservedCopy(_ObservedTransfer, Copy):
    """A `Copy` that is counted."""


class ObservedStream(_ObservedTransfer, Stream):
    """A `Stream` that is counted."""


@cache
def observed_cursor(cursor_class: type[LeasedCursor]) -> type[LeasedCursor]:
    """Return *cursor_class* with `ObservedCursor` mixed in."""
    if cursor_class is LeasedCursor:
        return ObservedCursor
    execute = cursor_class.execute

    # As `ObservedCursor.execute`, but it runs the statement with the method of that class.
    def measured(
        self: ObservedCursor, query: Any, params: Any = None, /, **kwargs: Any
    ) -> LeasedCursor:
        def run() -> LeasedCursor:
            return execute(self, query, params, **kwargs)

        return self._runner.measure(self, query, run)

    attributes = {"__module__": __name__, "__slots__": (), "execute": measured}
    return type(f"Observed{cursor_class.__name__}", (ObservedCursor, cursor_class), attributes)


@cache
def observed_server_cursor(cursor_class: type[LeasedServerCursor]) -> type[LeasedServerCursor]:
    """Return *cursor_class* with `ObservedServerCursor` mixed in."""
    if cursor_class is LeasedServerCursor:
        return ObservedServerCursor
    attributes = {"__module__": __name__, "__slots__": ()}
    bases = (ObservedServerCursor, cursor_class)
    return type(f"Observed{cursor_class.__name__}", bases, attributes)
