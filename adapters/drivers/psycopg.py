"""psycopg 3.

https://www.psycopg.org/psycopg3/docs/api/
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.rows import tuple_row

from relet.core import Facts, TransactionStatus

from . import facts as telling
from .attributes import Snapshot, attributes
from .parameters import refuse_unknown

Connection = psycopg.Connection[Any]

#: What a connection tells of itself, beside its `info`; and what of that, about its session alone.
_TOLD = (
    *("autocommit", "broken", "closed", "cursor_factory", "deferrable", "isolation_level"),
    *("prepare_threshold", "prepared_max", "read_only", "row_factory", "server_cursor_factory"),
)
_OF_SESSION = {"backend_pid", "error_message", "password", "timezone"}

#: A true boolean, in text and in binary.
_TRUE = (b"t", b"\x01")


class Psycopg:
    """The facts about psycopg 3, for adapters of pools of its connections."""

    #: The module, for its exceptions (PEP 249).
    dbapi: ClassVar[Any] = psycopg
    #: Attributes of a connection that `driver_state` leaves out, because they change by themselves.
    volatile: ClassVar[frozenset[str]] = frozenset(
        {
            "_adapters",  # made when they are first needed; looked into by `_adaptation`
            "_autocommit",  # relet sets it back
            "_begin_statement",  # composed of the others when it is first needed
            *("_created_at", "_expire_at", "_pool", "relet"),  # the pool's, and the adapter's
        }
    )

    #: Of the adapter that this is mixed into.
    pool_keys: ClassVar[Sequence[str]]

    @classmethod
    def check_connect(cls, parameters: Mapping[str, Any]) -> None:
        """See `relet.core.PoolAdapter.check_connect`."""
        known = _known_parameters()
        refuse_unknown([key for key in parameters if key not in known], known, cls.pool_keys)

    @staticmethod
    def connect(parameters: Mapping[str, Any]) -> Connection:
        """Open a connection, in autocommit."""
        return psycopg.connect(**{**parameters, "autocommit": True})

    def transaction_status(self, raw: Connection) -> int:
        return raw.pgconn.transaction_status

    def ping(self, raw: Connection) -> bool:
        try:
            psycopg.Cursor(raw).execute("", prepare=False)
        except psycopg.Error:
            return False
        return self.transaction_status(raw) == TransactionStatus.IDLE

    def execute_internal(self, raw: Connection, sql: str) -> list[tuple[Any, ...]]:
        # Whatever cursor and row factories are set. Several statements cannot be prepared.
        cursor = psycopg.Cursor(raw, row_factory=tuple_row)
        cursor.execute(sql, prepare=False)
        return cursor.fetchall() if cursor.description else []

    def driver_state(self, raw: Connection) -> object:
        pgconn = raw.pgconn
        snapshot = Snapshot(
            *attributes(raw, self.volatile),
            *(raw.prepare_threshold, raw.prepared_max),
            # The process is another after reset(), and so is the session.
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
        # notifies(), stream() and copy() hold it until they end.
        return raw.lock.locked()

    def undo_unseen(self, raw: Connection) -> None:
        # libpq does not tell whether it writes what it sends and receives to somebody's file.
        raw.pgconn.untrace()

    @classmethod
    def sql_text(cls, query: Any) -> str:
        if isinstance(query, bytes):
            return query.decode(errors="replace")
        if isinstance(query, psycopg.sql.Composable):
            return query.as_string(None)
        return str(query)

    def boolean_columns(self, cursor: psycopg.Cursor[Any]) -> Sequence[bool] | None:
        result = cursor.pgresult
        if result is None or result.ntuples != 1:
            return None
        return [result.get_value(0, column) in _TRUE for column in range(result.nfields)]


@cache
def _known_parameters() -> frozenset[str]:
    """Return the keyword arguments that psycopg takes, and those that its libpq does."""
    own = inspect.signature(psycopg.Connection.connect).parameters
    libpq = (option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())
    return frozenset({*own, *libpq} - {"kwargs"})


def _adaptation(raw: Connection) -> object:
    """Return the loaders, dumpers and types that *raw* has, to be compared later.

    psycopg copies on write: a copy shares its maps with *raw* until something is registered in
    either. So as long as nothing is, this compares the same objects, which costs nothing, and a
    dumper that psycopg looks up by itself and keeps is no difference.
    """
    copy = AdaptersMap(raw.adapters)
    return _maps(copy), _maps(copy.types)


def _maps(owner: object) -> list[object]:
    """Return what is in *owner*, except its types, and its flags of what it does not share."""
    found: Mapping[str, object] = getattr(owner, "__dict__", {})
    return [
        value for name, value in found.items() if name != "types" and not name.startswith("_own")
    ]
