"""ObservedRunner: a runner that notes what its statements do.

It is the runner of wrappers that are observed. The others have a plain `LeaseRunner`, which knows
nothing of this.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import Any, TypeVar

from relet.backends.observe import collection, stacks
from relet.backends.observe.kept import KeptLeases, ObservedLease, Trace
from relet.backends.observe.scopes import Scope
from relet.core import Lease
from relet.core.observe import StatementCounts, Tally
from relet.core.sql.fingerprint import unparsed

from .runner import RUNNING, LeaseRunner
from .session_rules import SYNTAX_ERROR, sqlstate

Result = TypeVar("Result")


class ObservedRunner(LeaseRunner):
    """A `LeaseRunner` that notes what its statements do.

    :ivar tally: what its thread has counted for its alias.
    :ivar scope: returns the scope of this thread or task, if any.
    :ivar fallback: the scope if there is none.
    :ivar contention: who waits for connections of its alias.
    """

    lease_class = ObservedLease
    lease: ObservedLease

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self._observe()

    def _observe(self) -> None:
        # Here, too, so that statements need one look-up less.
        lease = self.lease
        self.tally, self.contention = lease.tally, lease.contention
        self.scope, self.fallback = lease.scope, lease.fallback

    def forked(self) -> None:
        super().forked()
        self.lease.observe()
        self._observe()

    # Statements. The plain ones are counted by the cursor.

    def measure(
        self, cursor: Any, sql: Any, run: Callable[..., Result], *args: Any, alone: bool = True
    ) -> Result:
        """Return the result of ``run(*args)``, which runs the statement *sql* of *cursor*.

        :param alone: whether it may be a lease of its own.
        """
        lease = self.lease
        before = lease.leased_at
        lease.running_for = self._scope()
        began = monotonic()
        if (trace := lease.trace) is not None:
            if trace.walk is not None:
                trace.ran_at = stacks.of_statement(_CURSOR_FRAMES, trace.walk)
            trace.since = began
        try:
            result = run(*args)
        except BaseException as error:
            self.ended(cursor, sql, before, trace, began, error, alone=alone)
            raise
        self.ended(cursor, sql, before, trace, began, alone=alone)
        return result

    def ended(
        self,
        cursor: Any,
        sql: Any,
        before: float,
        trace: Trace | None = None,
        began: float | None = None,
        error: BaseException | None = None,
        *,
        alone: bool = True,
    ) -> None:
        """Count a statement that has ended.

        :param before: when the last lease before the statement began.
        :param trace: what is noted of the lease if it was kept before the statement.
        :param began: when the statement began, if `measure` calls this; else it began when its
            lease did.
        :param alone: whether it may be a lease of its own.
        """
        now = monotonic()
        lease = self.lease
        measured, sent = False, True
        if trace is not None:
            alone = False
        else:
            measured = began is not None
            if lease.leased_at != before:
                began = lease.leased_at
            elif began is None or lease.connection is None:  # no connection came free
                began, alone, sent = now, False, False
            if lease.connection is not None:
                alone = False
            if (trace := lease.trace) is not None and trace.walk is not None:
                # From now on, note where cursors are taken.
                wrapper = cursor._wrapper
                wrapper.cursor_class = wrapper.cursor_class.noting
        ran = now - began  # type: ignore[operator]
        if trace is not None:
            trace.since = now
            trace.ran += ran
            if measured and trace.walk is not None:
                # Its stack was taken on the way, far from the code that runs the statement.
                stack = stacks.of_statement(_ENDED_FRAMES, trace.walk)
                trace.leased_at = trace.cursor_at = trace.ran_at = stack
        counts = self.count(cursor, sql, ran if sent else None, error)
        if not alone:
            counts.inner += 1
            counts.inner_total += ran
        elif self.contention.until > began:  # type: ignore[operator]
            pool = lease.pool
            waited = self.contention.waited_since(began, now)  # type: ignore[arg-type]
            blocked = waited / ((pool is not None and pool.max_size) or 1)
            self._tally().route(self.route()).counts.blocked += blocked

    def began(self, cursor: Any, sql: str, rows: int) -> None:
        """Count a plain statement that has begun a lease which goes on, as `ended` does.

        :param rows: how many it has returned or changed; less than 0 if that is unknown.
        """
        lease = self.lease
        trace: Trace = lease.trace  # type: ignore[assignment]
        trace.since = now = monotonic()
        trace.ran = ran = now - lease.leased_at
        if trace.walk is not None:
            # From now on, note where cursors are taken.
            wrapper = cursor._wrapper
            wrapper.cursor_class = wrapper.cursor_class.noting
        tally = self.tally
        try:
            counts = tally.texts[(self.scope() or self.fallback).route][sql]
        except KeyError:
            counts = tally.find(self.route(), sql)
        if tally.waited:
            waited, tally.waited = tally.waited, 0.0
            counts.waited += waited
        counts.add_inner(ran, rows)

    def count(
        self, cursor: Any, sql: Any, ran: float | None, error: BaseException | None
    ) -> StatementCounts:
        """Count a call of the statement *sql*, which ran for *ran* seconds.

        :param ran: None if it never ran, because no connection came.
        """
        tally = self._tally()
        text = self._text(sql)
        if error is not None and sqlstate(error) == SYNTAX_ERROR:
            text = unparsed(text)
        counts = tally.find(self.route(), text)
        if tally.waited:
            waited, tally.waited = tally.waited, 0.0
            counts.waited += waited
        if ran is None:
            counts.unsent += 1
        else:
            counts.add(ran, 0 if error is not None else cursor.rowcount)
        if error is not None:
            counts.errors += 1
        return counts

    def add_rows(self, route: str, sql: Any, rows: int) -> None:
        """Count more rows of a call of *sql* that was counted for *route*."""
        self._tally().find(route, self._text(sql)).rows += rows

    def _text(self, sql: Any) -> str:
        found: str = sql if sql.__class__ is str else self.host_class.adapter_class.sql_text(sql)
        return found

    def _tally(self) -> Tally:
        # Another thread may use a wrapper that is shared.
        return self.tally if self.thread == get_ident() else collection.here(self.lease.alias)

    def route(self) -> str:
        """Return the route of this thread or task."""
        return self._scope().route

    def _scope(self) -> Scope:
        if (scope := self.scope()) is not None:
            return scope
        # See `_tally`.
        here = self.thread == get_ident()
        return self.fallback if here else collection.fallback(self.lease.alias)

    # What else uses the connection.

    def call_for_transfer(
        self, function: Callable[..., Result], *arguments: Any, **options: Any
    ) -> Result:
        lease = self.lease
        if (trace := lease.trace) is None or lease.state in RUNNING:
            return super().call_for_transfer(function, *arguments, **options)
        trace.since = began = monotonic()
        try:
            return super().call_for_transfer(function, *arguments, **options)
        finally:
            trace.since = now = monotonic()
            trace.ran += now - began

    def initialize_connection(self, lease: Lease) -> None:
        # The statement that opens the connection has waited for it, and not what receivers of
        # connection_created run.
        tally = self._tally()
        waited, tally.waited = tally.waited, 0.0
        try:
            super().initialize_connection(lease)
        finally:
            tally.waited += waited
        connection, pool = lease.connection, lease.pool
        if pool is not None and connection is not None:
            kept = pool.long_leases
            if isinstance(kept, KeptLeases) and (session := kept.sessions.find(connection.raw)):
                session.used(connection)

    def undo(self, lease: Lease) -> bool:
        left = lease.session is not None and bool(lease.session.left)
        restored = super().undo(lease)
        if left and restored:
            self.tally.pool.resets += 1
        return restored


#: Frames from `ObservedRunner.measure` to relet's cursor, and from the `ended` that it calls.
_CURSOR_FRAMES, _ENDED_FRAMES = 1, 2


@cache
def observed(runner_class: type[LeaseRunner]) -> type[LeaseRunner]:
    """Return *runner_class* with `ObservedRunner` mixed in."""
    if runner_class is LeaseRunner:
        return ObservedRunner
    name = f"Observed{runner_class.__name__}"
    return type(name, (ObservedRunner, runner_class), {"__module__": __name__})
