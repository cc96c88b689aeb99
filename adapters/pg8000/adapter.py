"""The adapter for pg8000's connections in SQLAlchemy's QueuePool."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from relet.adapters.drivers import facts as telling
from relet.adapters.drivers.application_name import with_application_name
from relet.adapters.drivers.attributes import Snapshot, attributes
from relet.adapters.drivers.parameters import refuse_unknown
from relet.adapters.queue_pool import QueuePoolAdapter
from relet.core import Facts, TransactionStatus
from relet.core.locks import depth
from relet.core.sql.quoting import quote_identifier

from . import dbapi, settings
from .connection import Connection
from .cursor import Cursor, statement_text
from .plans import PlannedCursor, planned

#: What a connection says of itself, beside its `info`.
_TOLD = (
    *("autocommit", "closed", "deferrable", "isolation_level", "read_only", "transaction_status"),
    "zone",
)


class Pg8000Adapter(QueuePoolAdapter):
    """A pool of SQLAlchemy's, with connections that pg8000 opens and that send simple queries."""

    #: The module, for its exceptions (PEP 249).
    dbapi: ClassVar[Any] = dbapi
    keeps_notices: ClassVar[bool] = True
    #: Attributes of a connection that `driver_state` ignores, because they change by themselves.
    volatile: ClassVar[frozenset[str]] = frozenset(
        {
            "autocommit",  # relet sets it back
            *("_decode", "_encode", "loaders"),  # they follow the session's encoding
            *("_rest", "transaction_status"),  # change with each statement
            "notices",  # their contents are dropped by `drop_notices`
            "relet_plans",  # what its session has prepared, which is for all leases
        }
    )

    @staticmethod
    def connect(parameters: Mapping[str, Any]) -> Connection:
        """Open a connection, in autocommit; see `relet.adapters.pg8000.connect.connect`."""
        # What else a connector accepts, nobody knows.
        connector = parameters.get("connect") is not None
        raw = dbapi.connect(**(parameters if connector else with_application_name(parameters)))
        raw.autocommit = True
        return raw

    @classmethod
    def check_connect(cls, parameters: Mapping[str, Any]) -> None:
        given = {name: value for name, value in parameters.items() if name != "texts"}
        if given.get("connect") is None:  # else the other settings are arguments of that function
            known = (*settings.LIBPQ, *settings.PG8000, "connect")
            others = [name for name in given if name not in (*known, *settings.RESERVED)]
            refuse_unknown(others, known, cls.pool_keys)
        settings.check(given)

    @classmethod
    def cannot_prepare(cls) -> str:
        return ""

    def prepare_targets(self, book: Any) -> None:
        self.plans = book
        # Of this pool only: all others keep the method of the class.
        self.new_cursor = partial(_planned_cursor, planned(book))  # type: ignore[method-assign]

    def transaction_status(self, raw: Connection) -> int:
        return raw.wire.transaction_status

    def ping(self, raw: Connection) -> bool:
        try:
            raw.wire.exchange("")
        except dbapi.Error:
            return False
        return raw.wire.transaction_status == TransactionStatus.IDLE

    def execute_internal(self, raw: Connection, sql: str) -> list[tuple[Any, ...]]:
        raw.begin()
        return raw.run(sql)

    def begin_transaction(self, raw: Connection, sql: str) -> None:
        raw.session.begin_with(sql)

    def is_in_call(self, raw: Connection) -> bool:
        return depth(raw.wire.lock) > 0  # every call that waits for the server holds the lock

    def driver_state(self, raw: Connection) -> object:
        session, wire, values = raw.session, raw.wire, raw.wire.values
        parts = (raw, session, wire, values)
        return Snapshot(
            *(value for part in parts for value in attributes(part, self.volatile)),
            *(raw.notices, wire.notices),
            values.loaders is values.loaders_for(values.zone),
            wire.timeout,
        )

    def facts(self, raw: Connection) -> Facts:
        return telling.facts(
            raw,
            told=_TOLD,
            of_session={"backend_pid"},
            methods={"info.parameter_status": telling.reported(raw.info.parameter_status)},
        )

    def drop_notices(self, raw: Connection) -> None:
        notices = raw.notices
        if notices and notices.__class__ is deque:
            notices.clear()

    @classmethod
    def sql_text(cls, query: Any) -> str:
        return statement_text(query)

    @classmethod
    def function_name(cls, name: Any) -> str:
        return quote_identifier(str(name))  # as in its cursors

    def boolean_columns(self, cursor: Cursor) -> Sequence[bool] | None:
        rows = cursor.peek()
        return [value is True for value in rows[0]] if len(rows) == 1 else None


def _planned_cursor(cursor_class: type[PlannedCursor], raw: Connection) -> Cursor:
    raw.wire.check_open()
    return cursor_class(raw.session, raw)
