"""Prepared plans with psycopg 3: a cursor that has the server prepare targets.

Everything but targets runs as on the cursor that it is mixed into. A target is sent with its
parameters apart from its text. If that cursor writes them into the text, as Django's does, they
have the types that their literals would have there, so that the statement means what it means.

psycopg's own prepared statements are not used: after a ROLLBACK, also to a savepoint, it drops all
of them.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from psycopg import capabilities, generators, pq
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat
from psycopg.pq.abc import PGconn, PGresult

from relet.core import TransactionStatus
from relet.core.plans import Disturbance, PlanBook, Prepared, SessionPlans, Shape, Target, Text
from relet.core.plans.book import POOLER, PlanError, advice, is_refusal
from relet.core.plans.numbers import FLOAT8, INT4, INT8, NUMERIC, literal_type
from relet.core.plans.placeholders import Unfit

if TYPE_CHECKING:
    Base = psycopg.Cursor[Any]
else:
    Base = object

IDLE, IN_ERROR = TransactionStatus.IDLE, TransactionStatus.IN_ERROR
COMMAND_OK, FATAL_ERROR = pq.ExecStatus.COMMAND_OK, pq.ExecStatus.FATAL_ERROR
PIPELINE_SYNC, TUPLES_OK = pq.ExecStatus.PIPELINE_SYNC, pq.ExecStatus.TUPLES_OK
SQLSTATE = pq.DiagnosticField.SQLSTATE
#: The fields of an error that `PlanError` has, but for its message.
_ERROR_FIELDS = (
    *(SQLSTATE, pq.DiagnosticField.SOURCE_FUNCTION),
    *(pq.DiagnosticField.SOURCE_FILE, pq.DiagnosticField.CONTEXT),
)

#: Types of numbers, which psycopg chooses by their value: int2, oid and float4 among them.
_NUMBERS = frozenset({INT4, INT8, FLOAT8, NUMERIC, 26, 700})
_INTEGERS = frozenset({INT4, INT8, 26})
#: An integer of fewer characters is an int4.
_SHORT = 10
#: The text type. psycopg writes its values as literals of an open type.
_TEXT = 25
#: Types whose literals always have the same type: the least integers, and text.
_LITERALS = {21: INT4, _TEXT: 0}
#: Values of a float for which psycopg writes a literal with a cast.
_NO_NUMBERS = (b"nan", b"inf", b"-inf")

_SAVEPOINT = b"relet_plan"
#: Setting the mode for the rest of the transaction; outside of one, that is this message.
#: https://www.postgresql.org/docs/current/runtime-config-query.html#GUC-PLAN-CACHE-MODE
_FORCE = {
    mode: (
        "SELECT pg_catalog.set_config('relet.plan_cache_mode', "
        "pg_catalog.current_setting('plan_cache_mode'), true), "
        f"pg_catalog.set_config('plan_cache_mode', 'force_{mode}_plan', true)"
    ).encode()
    for mode in ("generic", "custom")
}
_UNFORCE = (
    b"SELECT pg_catalog.set_config('plan_cache_mode', "
    b"pg_catalog.current_setting('relet.plan_cache_mode'), true)"
)
#: The methods of psycopg's cursors and connections that `Planned` relies on.
_NEEDED = ("_execute_gen", "_start_query", "_check_results", "_set_results", "_reset")


def why_not() -> str:
    """Return why this version of psycopg cannot prepare targets; or ""."""
    missing = [name for name in _NEEDED if not hasattr(psycopg.Cursor, name)]
    if missing:
        return f"psycopg {psycopg.__version__} is not known to relet (no {', '.join(missing)})"
    if not capabilities.has_pipeline():
        return "preparing needs libpq 14 or newer"
    return ""


class Planned(Base):
    """Mixed in before a cursor class: runs targets prepared.

    :cvar writes_literals: whether that class writes parameters into the text.
    """

    book: ClassVar[PlanBook]
    writes_literals: ClassVar[bool]

    def _execute_gen(
        self,
        query: Any,
        params: Any = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> PQGen[None]:
        book = self.book
        if query.__class__ is not str:
            text = book.find(self._text(query))
            if not isinstance(text, Disturbance):
                return super()._execute_gen(query, params, prepare=prepare, binary=binary)
        else:
            text = book.texts[query]
            if text.__class__ is Text and text.target is None:
                text = book.find(query)
            if text is None or book.off:
                return super()._execute_gen(query, params, prepare=prepare, binary=binary)
        if isinstance(text, Disturbance):
            run = super()._execute_gen(query, params, prepare=prepare, binary=binary)
            return self._disturbing_gen(text, run)
        if prepare is not None or binary or self.format or self._conn._pipeline:
            return super()._execute_gen(query, params, prepare=prepare, binary=binary)
        return self._planned_gen(text, query, params)

    def _text(self, query: Any) -> str:
        """Return the text of *query*, which is not a str."""
        try:
            if isinstance(query, bytes):
                return query.decode(errors="replace")
            return str(query.as_string(self._conn))
        except (psycopg.Error, AttributeError, UnicodeError):
            return ""

    def _disturbing_gen(self, what: Disturbance, run: PQGen[None]) -> PQGen[None]:
        """*run* a statement after which targets may mean something else."""
        try:
            yield from run
        finally:
            in_transaction = self._pgconn.transaction_status != IDLE
            self.book.disturb(self._session(), what, in_transaction=in_transaction)

    def _session(self) -> SessionPlans:
        raw: Any = self._conn
        try:
            session: SessionPlans = raw.relet_plans
        except AttributeError:
            session = self.book.new_session(raw)
        return session

    def _planned_gen(self, text: Text, query: str, params: Any) -> PQGen[None]:
        native = text.native
        ordered: Sequence[Any] = ()
        if params.__class__ is tuple and native.names is None and len(params) == native.count:
            ordered = params
        elif params is not None or native.count or "%" in query:
            try:
                ordered = native.values(params)
            except Unfit:
                yield from super()._execute_gen(query, params)
                return
        yield from self._start_query(query)
        pgconn = self._pgconn
        status = pgconn.transaction_status
        values: list[Any] | None = None
        types: tuple[int, ...] = ()
        if ordered:
            formats = text.formats
            if formats is None:
                formats = text.formats = [PyFormat.TEXT] * native.count
            try:
                dumped: Any = self._tx.dump_sequence(ordered, formats)
            except psycopg.Error:
                yield from super()._execute_gen(query, params)
                return
            sent: Any = self._tx.types
            values = dumped
            types = _literal_types(dumped, sent) if self.writes_literals else tuple(sent)
        shape = text.shapes.get(types)
        if shape is None or shape.refused:
            shape = text.shape(types)
        if shape is None or status == IN_ERROR:
            yield from super()._execute_gen(query, params)
            return
        book, target = self.book, shape.target
        try:
            session: SessionPlans = self._conn.relet_plans  # type: ignore[attr-defined]
        except AttributeError:
            session = self._session()
        prepared = session.prepared.get(shape) if session.epoch == book.epoch else None
        if prepared is not None and target.mode == "auto" and target.trial is None:
            # The hot path: `SessionPlans.find` and `_take` inlined.
            session.used = prepared.used = session.used + 1
            began = monotonic()
            pgconn.send_query_prepared(prepared.sql_name, values)
            results = yield from generators.execute(pgconn)
            if results and (result := results[0].status) != FATAL_ERROR:
                book.executed(prepared, target, "auto", monotonic() - began)
                if result == TUPLES_OK:
                    self._query = _Sent((self._conn, query, params))  # type: ignore[assignment]
                    self._set_results(results)
                    self._last_query = query
                    return
            elif lost_plan(book, session, shape, prepared, results):
                yield from self._heal(shape, session, query, params, values, results, status)
                return
        else:
            if session.doubtful:
                if status == IDLE:
                    book.settle(session)
                if session.doubtful:
                    yield from super()._execute_gen(query, params)
                    return
            if not book.checked:
                yield from _check_pooler(pgconn, book)
            if book.off:
                yield from super()._execute_gen(query, params)
                return
            if session.epoch != book.epoch:
                book.expired(session)
            run = _Run(pgconn, book, session, shape, values, in_transaction=status != IDLE)
            found = yield from run.execute()
            if found is None:
                # If this raises, too, the statement is wrong, prepared or not.
                yield from super()._execute_gen(query, params)
                shape.refused = True
                book.refuse(target, f"the server refuses to prepare it ({run.refusal})")
                return
            if _failed(found) and lost_plan(
                book, session, shape, session.prepared.get(shape), found
            ):
                yield from self._heal(shape, session, query, params, values, found, status)
                return
            results = found
        self._take(query, params, results)

    def _heal(
        self,
        shape: Shape,
        session: SessionPlans,
        query: str,
        params: Any,
        values: list[Any] | None,
        results: list[PGresult],
        status: int,
    ) -> PQGen[None]:
        """Run *shape* again, now that the session has dropped its plan; or raise with advice.

        :param results: those of its first execution, which has failed before it did anything.
        :param status: the transaction status before that.
        """
        error = psycopg.errors.error_from_result(results[0], encoding=self._encoding)
        if status != IDLE:
            message = str(error).strip().partition("\n")[0]
            shape.target.problem = message
            raise type(error)(advice(self.book.alias, shape, message)) from error
        shape.target.healed += 1
        run = _Run(self._pgconn, self.book, session, shape, values, in_transaction=False)
        again = yield from run.execute()
        if again is None:
            yield from super()._execute_gen(query, params)
            return
        self._take(query, params, again)

    def _take(self, query: str, params: Any, results: list[PGresult]) -> None:
        """Take the results of a statement, or raise its error."""
        self._query = _Sent((self._conn, query, params))  # type: ignore[assignment]
        self._check_results(results)
        self._set_results(results)
        self._last_query = query


class _Sent(tuple[Any, str, Any]):
    """The last statement of a cursor, in the place where Django's query log looks for it.

    Its connection, its text and its parameters.
    """

    __slots__ = ()

    @property
    def query(self) -> bytes:
        """The statement with its values, as it would have been sent without a plan."""
        connection, query, params = self
        return psycopg.ClientCursor(connection).mogrify(query, params).encode()


class _Run:
    """One execution of a shape.

    :ivar refusal: why the server has refused to prepare it.
    """

    __slots__ = ("book", "in_transaction", "pgconn", "refusal", "session", "shape", "values")

    def __init__(
        self,
        pgconn: PGconn,
        book: PlanBook,
        session: SessionPlans,
        shape: Shape,
        values: list[Any] | None,
        *,
        in_transaction: bool,
    ) -> None:
        self.pgconn = pgconn
        self.book = book
        self.session = session
        self.shape = shape
        self.values = values
        self.in_transaction = in_transaction
        self.refusal = ""

    def execute(self) -> PQGen[list[PGresult] | None]:
        """Run it in one round trip; return its results, or None if it cannot be prepared."""
        shape, values = self.shape, self.values
        target: Target = shape.target
        mode = "auto" if values is None else target.next_mode()
        prepared = self.session.find(shape)
        began = monotonic()
        if prepared is None:
            prepared, results = yield from self._prepare(mode)
            if prepared is None:
                return results
        elif mode == "auto":
            self.pgconn.send_query_prepared(prepared.sql_name, values)
            results = yield from generators.execute(self.pgconn)
        else:
            answers = yield from _in_one_message(self.pgconn, self._bind(prepared.sql_name, mode))
            results = answers[1]
        if results and results[0].status != FATAL_ERROR:
            if values is None:
                prepared.counts.add_run("generic", monotonic() - began)
            else:
                self.book.executed(prepared, target, mode, monotonic() - began)
        return results

    def _bind(self, name: bytes, mode: str) -> list[Callable[[], None]]:
        """Return what to send to run it, prepared as *name*, with the plan *mode*."""
        pgconn, values = self.pgconn, self.values
        commands: list[Callable[[], None]] = [lambda: pgconn.send_query_prepared(name, values)]
        if mode == "auto":
            return commands
        commands.insert(0, lambda: pgconn.send_query_params(_FORCE[mode], None))
        if self.in_transaction:
            commands.append(lambda: pgconn.send_query_params(_UNFORCE, None))
        return commands

    def _prepare(self, mode: str) -> PQGen[tuple[Prepared | None, list[PGresult] | None]]:
        """Prepare it and run it, in one round trip.

        :return: what the session has prepared, and the results. If it has not prepared it, the
            results are those with the error, or None if the statement may run unprepared.
        """
        pgconn, session, shape = self.pgconn, self.session, self.shape
        self.book.make_room(session)
        name = session.next_name(shape)
        commands: list[Callable[[], None]] = []
        # An error would abort the transaction, and it is not known yet whether there will be one.
        guarded = self.in_transaction and not shape.proven
        stale, session.stale = session.stale, []
        if capabilities.has_send_close_prepared():
            commands += [_command(pgconn.send_close_prepared, old.encode()) for old in stale]
        elif stale:
            yield from self._deallocate(stale)
        if guarded:
            commands.append(lambda: pgconn.send_query_params(b"SAVEPOINT " + _SAVEPOINT, None))
        at = len(commands)
        sql = shape.text.native.sql.encode()
        types: Any = shape.types
        commands.append(lambda: pgconn.send_prepare(name.encode(), sql, types))
        if guarded:
            commands.append(
                lambda: pgconn.send_query_params(b"RELEASE SAVEPOINT " + _SAVEPOINT, None)
            )
        runs_at = len(commands) + (mode != "auto")
        commands += self._bind(name.encode(), mode)
        answers = yield from _in_one_message(pgconn, commands)
        answer = answers[at][0]
        if answer.status == COMMAND_OK:
            shape.proven = True
            return session.add(shape, name), answers[runs_at]
        state = (answer.error_field(SQLSTATE) or b"").decode()
        if shape.proven or answer.status != FATAL_ERROR or not is_refusal(state):
            return None, next(each for each in answers if _failed(each))
        self.refusal = _name_of(answer)
        if guarded:
            undo = b"ROLLBACK TO SAVEPOINT %s; RELEASE SAVEPOINT %s" % (_SAVEPOINT, _SAVEPOINT)
            pgconn.send_query(undo)
            yield from generators.execute(pgconn)
        return None, None

    def _deallocate(self, names: list[str]) -> PQGen[None]:
        """Drop *names* in the session, without the message that libpq 17 has for it."""
        if self.in_transaction:
            self.session.stale = names  # an error would abort the transaction
            return
        for name in names:
            self.pgconn.send_query(f"DEALLOCATE {name}".encode())
            yield from generators.execute(self.pgconn)


def lost_plan(
    book: PlanBook,
    session: SessionPlans,
    shape: Shape,
    prepared: Prepared | None,
    results: list[PGresult],
) -> bool:
    """Return whether *results* say that the plan of *session* is no good; drop its plans if so."""
    result = results[0] if results else None
    if result is None or prepared is None or result.status != FATAL_ERROR:
        return False
    state, function, file, context = (
        (result.error_field(field) or b"").decode(errors="replace") for field in _ERROR_FIELDS
    )
    message = result.error_message.decode(errors="replace")
    error = PlanError(state, function, message, file, context)
    return book.is_lost(session, shape, prepared, error)


def _attach(book: PlanBook, raw: Any, session: SessionPlans) -> None:
    """Have psycopg's own prepared statements say when those of *session* are lost."""
    plans: Any = getattr(raw, "_prepared", None)
    if hasattr(plans, "maintain_gen"):
        kind: Any = type(plans)
        plans.__class__ = _beside_ours(kind)
        plans.relet_lost = partial(book.lost, session)


@cache
def _beside_ours(manager_class: type[Any]) -> type[Any]:
    """Return the class of psycopg's own prepared statements, which says when ours are lost.

    To drop its own, psycopg drops all that the session has.
    """

    def maintain_gen(self: Any, conn: Any) -> PQGen[None]:
        everything = None in self._to_flush
        yield from manager_class.maintain_gen(self, conn)
        if everything:
            self.relet_lost()

    return type(manager_class.__name__, (manager_class,), {"maintain_gen": maintain_gen})


def _command(send: Callable[[bytes], None], name: bytes) -> Callable[[], None]:
    return lambda: send(name)


def _failed(results: list[PGresult]) -> bool:
    return bool(results) and results[0].status == FATAL_ERROR


def _name_of(result: PGresult) -> str:
    """Return what *result*, an error, is called. Its message may have a value in it."""
    state = (result.error_field(SQLSTATE) or b"").decode()
    try:
        return f"{psycopg.errors.lookup(state).__name__}, {state}"
    except KeyError:
        return state


def _in_one_message(
    pgconn: PGconn, commands: Sequence[Callable[[], None]]
) -> PQGen[list[list[PGresult]]]:
    """Send *commands* at once; return the results of each.

    After one that fails, the others are not run.
    """
    answers: list[list[PGresult]] = []
    try:
        pgconn.enter_pipeline_mode()
        for command in commands:
            command()
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        while True:
            results = yield from generators.fetch_many(pgconn)
            if results and results[0].status == PIPELINE_SYNC:
                break
            answers.append(results)
        if len(answers) > len(commands):
            # The commit has failed, which comes after the last of them: a deferred constraint.
            answers[len(commands) - 1 :] = answers[len(commands) :]
        return answers
    finally:
        _leave_pipeline_mode(pgconn)


def _leave_pipeline_mode(pgconn: PGconn) -> None:
    try:
        if pgconn.pipeline_status != pq.PipelineStatus.OFF:
            pgconn.exit_pipeline_mode()
    except psycopg.Error:
        # Answers are due, because of an exception from outside. Nobody would read them.
        with suppress(psycopg.Error):
            pgconn.finish()


def _check_pooler(pgconn: PGconn, book: PlanBook) -> PQGen[None]:
    """Prepare nothing if a pooler gives each transaction another session.

    Such a pooler tells another process id than the server does. Some know what each client has
    prepared, and give it names of their own.
    https://www.pgbouncer.org/config.html#max_prepared_statements
    """
    # A name that nobody else has: it may stay in a session that others get.
    name = f"relet_pooler_{os.urandom(8).hex()}"
    commands: list[Callable[[], None]] = [
        lambda: pgconn.send_prepare(name.encode(), b"SELECT 1"),
        lambda: pgconn.send_query_params(_POOLER.format(name).encode(), None),
    ]
    closes = capabilities.has_send_close_prepared()
    if closes:
        commands.append(lambda: pgconn.send_close_prepared(name.encode()))
    answers = yield from _in_one_message(pgconn, commands)
    answer = answers[1][0]
    if answer.status != TUPLES_OK:
        return  # the statement itself will tell what is wrong
    book.checked = True
    pid, known = (answer.get_value(0, column) for column in range(2))
    book.renames = known == b"0"
    if not book.renames:
        if int(pid or 0) != pgconn.backend_pid:
            book.turn_off(POOLER)
        elif not closes:
            pgconn.send_query(f"DEALLOCATE {name}".encode())
            yield from generators.execute(pgconn)


_POOLER = (
    "SELECT pg_catalog.pg_backend_pid()::text, pg_catalog.count(*)::text "
    "FROM pg_catalog.pg_prepared_statements WHERE name = '{}'"
)


def _literal_types(values: Sequence[Any], types: Sequence[int]) -> tuple[int, ...]:
    """Return the types that the literals of *values* would have.

    :param types: the types as which psycopg would send them.
    """
    found = []
    for value, oid in zip(values, types, strict=True):
        if (literal := _LITERALS.get(oid)) is not None:
            found.append(literal)
        elif oid not in _NUMBERS:
            found.append(oid)
        elif oid in _INTEGERS and len(value) < _SHORT:
            found.append(INT4)
        else:
            number = bytes(value)
            found.append(oid if number.lower() in _NO_NUMBERS else literal_type(number))
    return tuple(found)


def planned(cursor_class: type[Any], book: PlanBook) -> type[Any]:
    """Return *cursor_class* with `Planned` mixed in."""
    book.attach = partial(_attach, book)
    writes_literals = issubclass(cursor_class, psycopg.ClientCursor)
    attributes = {
        "__doc__": cursor_class.__doc__,
        "book": book,
        "writes_literals": writes_literals,
    }
    return type(cursor_class.__name__, (Planned, cursor_class), attributes)
