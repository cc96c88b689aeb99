"""ObservedCursor: a cursor that counts its statements.

A plain statement is counted here: one that is a lease of its own with one look at the clock, one in
a lease that was kept with two. All others are left to `ObservedRunner.measure`.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Iterator
from functools import cache
from math import frexp
from sys import _getframe
from time import monotonic
from typing import Any, ClassVar

from relet.backends.leases.observed_runner import ObservedRunner
from relet.backends.leases.runner import CHECKIN, PIN_CURSOR
from relet.backends.observe import stacks
from relet.backends.observe.kept import Trace

from .cursor import LeasedCursor
from .server_cursor import LeasedServerCursor
from .transfers import Copy, Stream, Transferring


class ObservedCursor(LeasedCursor):
    """A `LeasedCursor` that counts its statements."""

    __slots__ = ()

    #: The class of cursors that are taken while the lease outlasts its statements.
    noting: ClassVar[type[ObservedCursor]]
    _runner: ObservedRunner

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        # The hot path: `LeasedCursor.execute` inlined, and below it what is counted.
        runner = self._runner
        if (
            query.__class__ is not str
            or runner.effects[query] is not None
            or kwargs
            or runner.detour
            or runner.thread != get_ident()
        ):
            return runner.measure(self, query, self._execute_slowly, query, params, kwargs)
        lease = runner.lease
        if lease.connection is not None:
            return self._execute_kept(runner, lease.trace, query, params)
        before = lease.leased_at
        scope = lease.running_for = runner.scope() or runner.fallback
        try:
            raw = runner.begin(query)
            driver = self._driver if self._raw is raw else self._bind(raw)
            if params is None:
                driver.execute(query)
            else:
                driver.execute(query, params)
            if (action := runner.end()) is PIN_CURSOR:
                self._pin_lease()
        except BaseException as error:
            self._fail(error)
            runner.ended(self, query, before, error=error)
            raise
        leased_at = lease.leased_at
        tally = runner.tally
        if action is not CHECKIN or tally.waited or runner.contention.until > leased_at:
            if lease.trace is None:
                runner.ended(self, query, before)
            else:
                runner.began(self, query, driver.rowcount)
            return self
        ran = monotonic() - leased_at
        try:
            counts = tally.texts[scope.route][query]
        except KeyError:
            counts = tally.find(scope.route, query)
        counts.total += ran
        if ran > counts.maximum:
            counts.maximum = ran
        counts.buckets[frexp(ran)[1]] += 1
        if (rows := driver.rowcount) > 0:
            counts.rows += rows
        return self

    def _execute_kept(
        self, runner: ObservedRunner, trace: Trace | None, query: str, params: Any
    ) -> LeasedCursor:
        """Execute a plain statement in a lease that was kept. Again, all of it is inlined."""
        if trace is None:
            return runner.measure(self, query, self._execute_slowly, query, params, {})
        if (walk := trace.walk) is not None:
            # The stack of who has called Django's cursor, or relet's. Frames in between are skipped
            # without a look at them, which is what takes time.
            try:
                # 1 `execute`, 2 and 3 Django's cursor, 4 its execute().
                frame = _getframe(4)
            except ValueError:  # there are not so many
                trace.ran_at = walk(_getframe(2))
            else:
                django = frame.f_code is stacks.DJANGO_EXECUTE
                trace.ran_at = walk(frame.f_back if django else _getframe(2))
        trace.since = began = monotonic()
        try:
            raw = runner.begin(query)
            driver = self._driver if self._raw is raw else self._bind(raw)
            if params is None:
                driver.execute(query)
            else:
                driver.execute(query, params)
            if runner.end() is PIN_CURSOR:
                self._pin_lease()
        except BaseException as error:
            self._fail(error)
            runner.ended(self, query, began, trace, began, error)
            raise
        trace.since = now = monotonic()
        ran = now - began
        trace.ran += ran
        try:
            counts = runner.tally.texts[(runner.scope() or runner.fallback).route][query]
        except KeyError:
            counts = runner.tally.find(runner.route(), query)
        counts.inner += 1
        counts.total += ran
        counts.inner_total += ran
        if ran > counts.maximum:
            counts.maximum = ran
        counts.buckets[frexp(ran)[1]] += 1
        if (rows := driver.rowcount) > 0:
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


class NotingCursor(ObservedCursor):
    """An `ObservedCursor` that notes where it is taken, if the lease outlasts its statements."""

    __slots__ = ()

    #: The class of all other cursors.
    plain: ClassVar[type[ObservedCursor]] = ObservedCursor

    def __init__(self, runner: ObservedRunner) -> None:
        super().__init__(runner)
        lease = runner.lease
        if (trace := lease.trace) is not None:
            trace.cursor_at = stacks.of_cursor(_getframe(_CURSOR_FRAMES))
        elif lease.connection is None:
            self._wrapper.cursor_class = self.plain


ObservedCursor.noting = NotingCursor

#: Frames to skip: those of relet.
_CURSOR_FRAMES = 3


class ObservedServerCursor(LeasedServerCursor):
    """A `LeasedServerCursor` that counts its statements."""

    __slots__ = ()

    _runner: ObservedRunner
    #: The route and the SQL of the statement that it has executed.
    _counted: tuple[str, Any]

    def __init__(self, runner: ObservedRunner, name: str) -> None:
        super().__init__(runner, name)
        if (trace := runner.lease.trace) is not None and trace.walk is not None:
            trace.cursor_at = stacks.of_cursor(_getframe(_CURSOR_FRAMES))

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        runner, run = self._runner, self._execute_slowly
        result = runner.measure(self, query, run, query, params, kwargs, alone=False)
        self._counted = runner.route(), query
        return result

    def _execute_slowly(self, query: Any, params: Any, kwargs: dict[str, Any]) -> LeasedCursor:
        return super().execute(query, params, **kwargs)

    # The driver knows how many rows there were only when they are fetched.

    def fetchone(self) -> Any:
        row = super().fetchone()
        self._add_rows(0 if row is None else 1)
        return row

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        rows = super().fetchmany(*args, **kwargs)
        self._add_rows(len(rows))
        return rows

    def fetchall(self) -> Any:
        rows = super().fetchall()
        self._add_rows(len(rows))
        return rows

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            self._add_rows(1)
            yield row

    def _add_rows(self, rows: int) -> None:
        if rows:
            self._runner.add_rows(*self._counted, rows)


class _Counted:
    """A transfer that is counted as one statement when it ends, also if its caller dropped it.

    :param driver: the driver's cursor. The lease keeps this object, and relet's cursor would keep
        its wrapper, which must be collected when it is dropped.
    :param began: when it began, with a connection; None if none came.
    """

    __slots__ = ("_began", "_driver", "_query", "_ran_before", "_trace", "rows")

    def __init__(self, driver: Any, query: Any, began: float | None, trace: Trace | None) -> None:
        self._driver, self._query = driver, query
        self._began, self._trace = began, trace
        self._ran_before = 0.0 if trace is None else trace.ran
        self.rows = 0

    def end(self, runner: ObservedRunner, error: BaseException | None) -> None:
        ran = None if self._began is None else monotonic() - self._began
        if self._trace is not None:
            self._trace.ran = self._ran_before + (ran or 0.0)
        failed = None if isinstance(error, GeneratorExit) else error
        counts = runner.count(self._driver, self._query, ran, failed)
        counts.inner += 1
        counts.inner_total += ran or 0.0
        counts.rows += self.rows


class _ObservedTransfer(Transferring):
    """Counts a transfer as one statement, which runs until the transfer ends."""

    _runner: ObservedRunner
    _counted: _Counted

    def _begin(self, method: str, finish: Callable[[Any, Any, BaseException | None], Any]) -> Any:
        lease = self._runner.lease
        kept, called = lease.connection is not None, monotonic()

        def began() -> float | None:
            if kept:
                return called
            # It does not run while it waits for its connection, which may not have come.
            return lease.leased_at if lease.leased_at >= called else None

        try:
            opened = super()._begin(method, finish)
        except BaseException as error:
            _Counted(None, self._query, began(), None).end(self._runner, error)
            raise
        trace = lease.trace
        self._counted = counted = _Counted(self._cursor._driver, self._query, began(), trace)
        self._transfer.when_ended = counted.end  # type: ignore[union-attr]
        return opened


class ObservedCopy(_ObservedTransfer, Copy):
    """A `Copy` that is counted."""


class ObservedStream(_ObservedTransfer, Stream):
    """A `Stream` that is counted, with its rows, which the driver does not count."""

    def __next__(self) -> Any:
        row = super().__next__()
        self._counted.rows += 1
        return row


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
    name = cursor_class.__name__
    plain: Any = type(f"Observed{name}", (ObservedCursor, cursor_class), attributes)
    attributes["plain"] = plain
    plain.noting = type(f"Noting{name}", (NotingCursor, cursor_class), attributes)
    return plain  # type: ignore[no-any-return]


@cache
def observed_server_cursor(cursor_class: type[LeasedServerCursor]) -> type[LeasedServerCursor]:
    """Return *cursor_class* with `ObservedServerCursor` mixed in."""
    if cursor_class is LeasedServerCursor:
        return ObservedServerCursor
    attributes = {"__module__": __name__, "__slots__": ()}
    bases = (ObservedServerCursor, cursor_class)
    return type(f"Observed{cursor_class.__name__}", bases, attributes)
