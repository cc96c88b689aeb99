"""Prepared plans with pg8000: a cursor that has the server prepare targets.

Statements are simple queries, so a target is prepared by ``PREPARE`` and run by ``EXECUTE``, with
its parameters as literals. Both are sent at once when a session first runs it.

https://www.postgresql.org/docs/current/sql-prepare.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar

from relet.core import TransactionStatus
from relet.core.plans import Disturbance, PlanBook, SessionPlans, Shape, Text
from relet.core.plans.book import POOLER, PlanError, advice, is_refusal
from relet.core.plans.numbers import INT4, INT8, NUMERIC, literal_type
from relet.core.plans.placeholders import Unfit

from .cursor import Cursor, Params
from .errors import DatabaseError
from .literals import literal
from .results import Copying, Result
from .templates import is_closed

IDLE, IN_ERROR = TransactionStatus.IDLE, TransactionStatus.IN_ERROR

#: Separates statements. The line break ends a comment at the end of a statement.
_SEPARATOR = "\n;\n"
_CAST = re.compile(r"'::([a-z]\w*(?:\[\])*)\Z")
_NUMBERS = {INT4: "int4", INT8: "int8", NUMERIC: "numeric"}
_WORDS = {"NULL": "unknown", "true": "bool", "false": "bool"}
_FORCE = (
    "SELECT pg_catalog.set_config('relet.plan_cache_mode', "
    "pg_catalog.current_setting('plan_cache_mode'), true), "
    "pg_catalog.set_config('plan_cache_mode', 'force_{}_plan', true)"
)
_UNFORCE = (
    "SELECT pg_catalog.set_config('plan_cache_mode', "
    "pg_catalog.current_setting('relet.plan_cache_mode'), true)"
)
_NOTHING = Result(None, [], "")


class PlannedCursor(Cursor):
    """A cursor that runs targets prepared."""

    book: ClassVar[PlanBook]
    #: The last statement that was run prepared.
    _sent: tuple[str, Params | None] | None = None

    def execute(
        self, query: Any, params: Params | None = None, /, *, copying: Copying | None = None
    ) -> Cursor:
        book = self.book
        if (
            query.__class__ is not str
            or copying is not None
            or (text := book.find(query)) is None
            or book.off
            or self._closed
        ):
            return super().execute(query, params, copying=copying)
        if isinstance(text, Disturbance):
            return self._disturb(text, query, params)
        values = self._literals(text, query, params)
        shape = None if values is None else text.shape(tuple(map(_type, values)))
        if values is None or shape is None or None in shape.types:
            return super().execute(query, params)
        self._session.begin()
        status = self._session.wire.transaction_status
        plans = self._plans()
        if plans.doubtful and status == IDLE:
            book.settle(plans)
        if status == IN_ERROR or plans.doubtful or not self._is_direct():
            return super().execute(query, params)
        self._sql, self._sent = None, (query, params)
        self._results, self._result, self._position = [], _NOTHING, 0
        self._rowcount = None
        result = self._run(shape, values, in_transaction=status != IDLE)
        if result is None:
            # If this raises, too, the statement is wrong, prepared or not.
            super().execute(query, params)
            shape.refused = True
            return self
        self._result, self._results = result, [result]
        return self

    @property
    def query(self) -> bytes | None:
        """The last statement, with its values, as it would have been sent without a plan."""
        if self._sql is None and self._sent is not None:
            self._sql = self.mogrify(*self._sent)
        return super().query

    def _literals(self, text: Text, query: str, params: Any) -> list[str] | None:
        """Return the parameters as literals; None if they do not fit, or are not to be prepared."""
        native = text.native
        if params is None and not native.count and "%" not in query:
            return []
        if text.formats is None:
            text.formats = is_closed(query)
        try:
            found = native.values(params)
            return list(map(literal, self._adapted(found))) if text.formats else None
        except (Unfit, ArithmeticError, ValueError):
            return None

    def _disturb(self, what: Disturbance, query: Any, params: Params | None) -> Cursor:
        """Run a statement after which targets may mean something else."""
        try:
            return super().execute(query, params)
        finally:
            in_transaction = self._session.wire.transaction_status != IDLE
            self.book.disturb(self._plans(), what, in_transaction=in_transaction)

    def _plans(self) -> SessionPlans:
        raw = self.connection
        try:
            plans: SessionPlans = raw.relet_plans
        except AttributeError:
            plans = self.book.new_session(raw)
        return plans

    def _is_direct(self) -> bool:
        """Return whether no pooler mixes sessions up. The first statement of a pool asks."""
        book = self.book
        if not book.checked:
            ((pid,),) = self._session.run("SELECT pg_catalog.pg_backend_pid()")
            if pid != self.connection.info.backend_pid:
                book.turn_off(POOLER)
            book.checked = True
        return not book.off

    def _run(self, shape: Shape, values: list[str], *, in_transaction: bool) -> Result | None:
        """Run *shape*; return its result, or None if the server refuses to prepare it."""
        book, plans = self.book, self._plans()
        if plans.epoch != book.epoch:
            book.expired(plans)
        try:
            return self._execute_once(plans, shape, values, in_transaction)
        except DatabaseError as error:
            if not self._lost_plan(plans, shape, error):
                raise
            if in_transaction:
                message = str(error).partition("\n")[0]
                shape.target.problem = message
                advised: Any = type(error)(advice(book.alias, shape, message))
                advised.sqlstate, advised.diag = error.sqlstate, error.diag
                raise advised from error
        shape.target.healed += 1
        return self._execute_once(plans, shape, values, in_transaction)

    def _execute_once(
        self, plans: SessionPlans, shape: Shape, values: list[str], in_transaction: bool
    ) -> Result | None:
        prepared, target = plans.find(shape), shape.target
        mode = target.next_mode() if values else "auto"
        began = monotonic()
        name = prepared.name if prepared is not None else self._new_name(plans, shape)
        run = [f"EXECUTE {name}({', '.join(values)})" if values else f"EXECUTE {name}"]
        at = 0
        if mode != "auto":
            run.insert(0, _FORCE.format(mode))
            at = 1
            if in_transaction:
                run.append(_UNFORCE)
        sql = _SEPARATOR.join(run)
        if prepared is not None:
            results = self._send(sql)
        else:
            found = self._prepare_and_send(shape, name, sql, in_transaction)
            if found is None:
                return None
            prepared, results = plans.add(shape, name), found
        if values:
            self.book.executed(prepared, target, mode, monotonic() - began)
        else:
            prepared.counts.add_run("generic", monotonic() - began)
        return results[at]

    def _new_name(self, plans: SessionPlans, shape: Shape) -> str:
        self.book.make_room(plans)
        if plans.stale and self._session.wire.transaction_status == IDLE:
            self._deallocate(plans)
        return plans.next_name(shape)

    def _prepare_and_send(
        self, shape: Shape, name: str, sql: str, in_transaction: bool
    ) -> list[Result] | None:
        """Prepare *shape* and run *sql*; return the results, or None if the server refuses to.

        It is one round trip, and several messages. The server keeps the whole message in which a
        statement was prepared, so it must not have values. And in one that has a syntax error,
        nothing is run.
        """
        # An error would abort the transaction, and it is not known yet whether there will be one.
        guarded = in_transaction and not shape.proven
        before = [_prepare(shape, name)]
        if guarded:
            # By a name that no other statement has: what it undoes is this one.
            before = [f"SAVEPOINT {name}", f"{before[0]}{_SEPARATOR}RELEASE SAVEPOINT {name}"]
        for message in (*before, sql):
            self._session.wire.check(message)  # below, each error is the server's, or of a result
        try:
            results = self._send(sql, before)
        except DatabaseError as error:
            if not hasattr(error, "failed_message"):
                # It is of the statement, if the connection is not lost.
                if not self._session.wire.closed:
                    shape.proven = True
                    self._plans().add(shape, name)
                raise
            state = getattr(error, "sqlstate", None) or ""
            if shape.proven or not is_refusal(state):
                raise
            if guarded:
                self._session.run(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}")
            self.book.refuse(shape.target, f"the server refuses to prepare it (SQLSTATE {state})")
            return None
        shape.proven = True
        return results

    def _send(self, sql: str, before: Sequence[str] = ()) -> list[Result]:
        return self._session.send(sql, self._loaders(), None, before)

    def _deallocate(self, plans: SessionPlans) -> None:
        stale, plans.stale = plans.stale, []
        for name in stale:
            with suppress(DatabaseError):  # it may never have been there
                self._session.run(f"DEALLOCATE {name}")

    def _lost_plan(self, plans: SessionPlans, shape: Shape, error: Any) -> bool:
        """Return whether *error* says that the session's plan is no good; drop it if so."""
        prepared, state = plans.find(shape), getattr(error, "sqlstate", None)
        if prepared is None or state is None:
            return False
        diag = error.diag
        function, file, context = diag.source_function, diag.source_file, diag.context
        found = PlanError(state, function or "", str(error), file or "", context or "")
        return self.book.is_lost(plans, shape, prepared, found)


def _type(written: str) -> str | None:
    """Return the type of a literal; None if it is none that is known."""
    if written[-1] == "'":
        return "unknown"
    if word := _WORDS.get(written):
        return word
    if written.lstrip(" -")[:1].isdigit():
        return _NUMBERS[literal_type(written.lstrip().encode())]
    cast = _CAST.search(written)
    return None if cast is None else cast[1]


def _prepare(shape: Shape, name: str) -> str:
    """Return the statement that prepares *shape*."""
    types = f" ({', '.join(map(str, shape.types))})" if shape.types else ""
    return f"PREPARE {name}{types} AS {shape.text.native.sql.rstrip().rstrip(';')}"


def planned(book: PlanBook) -> type[PlannedCursor]:
    """Return the class of cursors that prepare the targets of *book*."""
    return type("Cursor", (PlannedCursor,), {"__doc__": Cursor.__doc__, "book": book})
