"""psycopg 3.

https://www.psycopg.org/psycopg3/docs/api/
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.pq.abc import PGconn
from psycopg.rows import tuple_row

from relet.core import Facts, TransactionStatus
from relet.core.outside import from_handler
from relet.core.sql import transactions
from relet.core.sql.classifier import UNREADABLE
from relet.core.sql.quoting import quote_identifier

from . import facts as telling
from .application_name import with_application_name
from .attributes import Snapshot, attributes
from .parameters import refuse_unknown

if TYPE_CHECKING:
    from relet.core.plans import PlanBook

Connection = psycopg.Connection[Any]

#: What a connection says of itself beside its `info`; and what `info` says of the session alone.
_TOLD = (
    *("autocommit", "broken", "closed", "cursor_factory", "deferrable", "isolation_level"),
    *("prepare_threshold", "prepared_max", "read_only", "row_factory", "server_cursor_factory"),
)
_OF_SESSION = {"backend_pid", "error_message", "password", "timezone"}

_Connection = psycopg.Connection
#: The method that psycopg itself has, before any tool replaces it.
_cursor = _Connection.cursor

_PIPELINE_OFF = psycopg.pq.PipelineStatus.OFF

#: A parameter that is not passed, so that nothing is assumed about its value.
_UNKNOWN = "$0"

#: Python's template strings, if psycopg takes them as queries.
_TEMPLATE: Any = getattr(psycopg.sql, "Template", ())

#: A true boolean, in text and in binary.
_TRUE = (b"t", b"\x01")


class Psycopg:
    """psycopg 3's part of adapters of its pools."""

    #: The module, for its exceptions (PEP 249).
    dbapi: ClassVar[Any] = psycopg
    #: Attributes of a connection that `driver_state` ignores, because they change by themselves.
    volatile: ClassVar[frozenset[str]] = frozenset(
        {
            "_adapters",  # made on first use; compared by `_adaptation`
            "_autocommit",  # relet sets it back
            "_begin_statement",  # derived from the others on first use
            *("_created_at", "_expire_at", "_pool", "relet"),  # belong to the pool and the adapter
            "relet_plans",  # what its session has prepared, which is for all leases
        }
    )

    #: Set by the adapter that this is mixed into.
    pool_keys: ClassVar[Sequence[str]]
    plans: PlanBook | None

    @classmethod
    def check_connect(cls, parameters: Mapping[str, Any]) -> None:
        """See `relet.core.PoolAdapter.check_connect`."""
        known = _known_parameters()
        refuse_unknown([key for key in parameters if key not in known], known, cls.pool_keys)

    @staticmethod
    def arguments(parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of ``psycopg.connect()`` for *parameters*."""
        named = with_application_name(
            parameters, dsn="conninfo", parse=psycopg.conninfo.conninfo_to_dict
        )
        return {**named, "autocommit": True}

    @staticmethod
    def connect(parameters: Mapping[str, Any]) -> Connection:
        """Open a connection, in autocommit."""
        return psycopg.connect(**Psycopg.arguments(parameters))

    @classmethod
    def adopt(cls, raw: Connection, parameters: Mapping[str, Any]) -> None:
        """Make *raw*, which other code has opened, as `connect` would have made it.

        :param parameters: those of `connect`. The ones for libpq, except for the encoding, are the
            other code's choice.
        """
        raw.autocommit = True
        raw.row_factory = parameters.get("row_factory") or tuple_row
        for name in "cursor_factory", "prepare_threshold":
            if name in parameters:
                setattr(raw, name, parameters[name])
        if (context := parameters.get("context")) is not None:
            raw._adapters = AdaptersMap(context.adapters)
        encoding = parameters.get("client_encoding")
        if encoding not in (None, raw.info.parameter_status("client_encoding")):
            set_encoding = "SELECT pg_catalog.set_config('client_encoding', %s, false)"
            psycopg.Cursor(raw).execute(set_encoding, [encoding])

    def new_cursor(self, raw: Connection) -> Any:
        if (
            type(raw) is _Connection
            and _Connection.cursor is _cursor
            and "cursor" not in raw.__dict__
        ):
            # The same without its checks, which take a sixth of the time. The cursor makes them
            # when it runs a statement.
            return raw.cursor_factory(raw, row_factory=raw.row_factory)
        return raw.cursor()

    @classmethod
    def cannot_prepare(cls) -> str:
        # Not at the top: most processes prepare nothing.
        from .psycopg_plans import why_not

        return why_not()

    def prepare_targets(self, book: PlanBook) -> None:
        self.plans = book
        # Of this pool only: all others keep the method of the class.
        self.new_cursor = partial(_planned_cursor, book, {})  # type: ignore[method-assign]
        self.transaction_status = _planned_status  # type: ignore[method-assign]

    def transaction_status(self, raw: Connection) -> int:
        return raw.pgconn.transaction_status

    def ping(self, raw: Connection) -> bool:
        try:
            psycopg.Cursor(raw).execute("", prepare=False)
        except psycopg.Error:
            return False
        return self.transaction_status(raw) == TransactionStatus.IDLE

    def execute_internal(self, raw: Connection, sql: str) -> list[tuple[Any, ...]]:
        # Independent of the factories that are set. Several statements cannot be prepared.
        cursor = psycopg.Cursor(raw, row_factory=tuple_row)
        cursor.execute(sql, prepare=False)
        return cursor.fetchall() if cursor.description else []

    def begin_transaction(self, raw: Connection, sql: str) -> None:
        # psycopg's own BEGIN has to be alone in its message, and each statement follows one.
        pgconn = raw.pgconn
        if pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF:
            self.execute_internal(raw, sql)  # several statements cannot be sent
            return
        message = _begin_message(raw.isolation_level, raw.read_only, raw.deferrable, sql)
        with raw.lock:
            raw.wait(_send_simple(pgconn, message))

    def driver_state(self, raw: Connection) -> object:
        pgconn = raw.pgconn
        snapshot = Snapshot(
            *attributes(raw, self.volatile),
            *(raw.prepare_threshold, raw.prepared_max),
            # After pgconn.reset() the server process, and so the session, is another one.
            *(pgconn.backend_pid, pgconn.nonblocking),
            *(pgconn.notice_handler, pgconn.notify_handler),
        )
        return snapshot, _adaptation(raw)

    def facts(self, raw: Connection) -> Facts:
        info = raw.info
        return telling.facts(
            raw,
            told=_TOLD,
            of_session=_OF_SESSION,
            methods={
                "cancel": telling.nothing,
                "cancel_safe": telling.nothing,
                "info.get_parameters": info.get_parameters().copy,
                "info.parameter_status": telling.reported(info.parameter_status),
            },
            blocks={"pipeline"},
        )

    def is_blocked(self, raw: Connection) -> bool:
        # notifies(), stream() and copy() hold the lock until they end.
        return raw.lock.locked()

    def undo_unseen(self, raw: Connection) -> None:
        # libpq does not say whether a trace is on, which writes all messages to a file.
        raw.pgconn.untrace()

    def forget_prepared(self, raw: Connection) -> None:
        # psycopg has no public way. After its next statement, which may not be one that it
        # prepares, it drops what the server still has.
        if (prepared := getattr(raw, "_prepared", None)) is not None:
            prepared.clear()

    @classmethod
    def sql_text(cls, query: Any) -> str:
        if isinstance(query, str):
            return str.__str__(query)
        if isinstance(query, (bytes, bytearray)):
            return query.decode(errors="replace")
        if isinstance(query, psycopg.sql.Composable):
            return _composed_text(query)
        return _template_text(query) if isinstance(query, _TEMPLATE) else UNREADABLE

    @classmethod
    def function_name(cls, name: Any) -> str:
        # As in the cursors of Django, which have callproc(); psycopg has none.
        return (
            cls.sql_text(name)
            if isinstance(name, psycopg.sql.Identifier)
            else quote_identifier(str(name))
        )

    def boolean_columns(self, cursor: psycopg.Cursor[Any]) -> Sequence[bool] | None:
        result = cursor.pgresult
        if result is None or result.ntuples != 1:
            return None
        return [result.get_value(0, column) in _TRUE for column in range(result.nfields)]


def _composed_text(query: psycopg.sql.Composable) -> str:
    """Return the text of *query*, with a value that nobody knows for each that cannot be adapted.

    Only a connection may know how to adapt it. It stays a value, whatever it is adapted to.
    """
    try:
        return query.as_string(None)
    except Exception as error:
        if from_handler(error):
            raise
        if isinstance(query, psycopg.sql.Composed):
            return "".join(map(_composed_text, query))
        if isinstance(query, psycopg.sql.Literal):
            return _UNKNOWN
        raise


def _template_text(template: Any) -> str:
    """Return the text of *template*, with a value that nobody knows for each parameter.

    https://www.psycopg.org/psycopg3/docs/basic/tstrings.html
    """
    return "".join(
        part if isinstance(part, str) else _interpolated_text(part.value, part.format_spec)
        for part in template
    )


def _interpolated_text(value: Any, form: str) -> str:
    if isinstance(value, _TEMPLATE):
        return _template_text(value)
    if isinstance(value, psycopg.sql.Composable):
        return _composed_text(value)
    if form == "i":
        return quote_identifier(str(value))
    return _composed_text(psycopg.sql.Literal(value)) if form == "l" else _UNKNOWN


def _planned_cursor(book: PlanBook, classes: dict[Any, type[Any]], raw: Connection) -> Any:
    """Return a cursor as `Psycopg.new_cursor` does, which prepares the targets of *book*.

    :param classes: by the factory of cursors, the class that prepares.
    """
    factory = raw.cursor_factory
    if type(raw).cursor is not _cursor or "cursor" in raw.__dict__ or not isinstance(factory, type):
        return raw.cursor()  # a tool's own
    cursor_class = classes.get(factory)
    if cursor_class is None:
        from .psycopg_plans import planned

        cursor_class = classes[factory] = planned(factory, book)
    return cursor_class(raw, row_factory=raw.row_factory)


def _planned_status(raw: Connection) -> int:
    """Return the transaction status; UNKNOWN if an exception has left pipeline mode on."""
    pgconn = raw.pgconn
    if pgconn.pipeline_status != _PIPELINE_OFF and raw._pipeline is None:
        return TransactionStatus.UNKNOWN
    return pgconn.transaction_status


@lru_cache(maxsize=512)
def _begin_message(
    level: psycopg.IsolationLevel | None, read_only: bool | None, deferrable: bool | None, sql: str
) -> bytes:
    begin = transactions.begin(None if level is None else level.name, read_only, deferrable)
    return f"{begin}; {sql}".encode()


def _send_simple(pgconn: PGconn, message: bytes) -> PQGen[None]:
    """Send statements as one simple query, as psycopg sends its own.

    :raises Error: one of them failed; those after it have not run.
    """
    pgconn.send_query(message)
    for result in (yield from generators.execute(pgconn)):
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)


@cache
def _known_parameters() -> frozenset[str]:
    """Return the keyword arguments that psycopg and its libpq accept."""
    own = inspect.signature(psycopg.Connection.connect).parameters
    libpq = (option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())
    return frozenset({*own, *libpq} - {"kwargs"})


def _adaptation(raw: Connection) -> object:
    """Return the loaders, dumpers and types of *raw*, to be compared later.

    psycopg copies on write: a copy shares its maps with *raw* until something is registered in
    either. Until then the comparison is of the same objects, which costs nothing, and a dumper that
    psycopg itself caches makes no difference.
    """
    copy = AdaptersMap(raw.adapters)
    return _maps(copy), _maps(copy.types)


def _maps(owner: object) -> list[object]:
    """Return the maps in *owner*, without its types and its copy-on-write flags."""
    found: Mapping[str, object] = getattr(owner, "__dict__", {})
    return [
        value for name, value in found.items() if name != "types" and not name.startswith("_own")
    ]
