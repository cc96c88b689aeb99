"""psycopg 3.

https://www.psycopg.org/psycopg3/docs/api/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import psycopg
from psycopg.rows import tuple_row

from relet.core import TransactionStatus

Connection = psycopg.Connection[Any]

#: What a connection hands on to whoever asks next: handlers, and notifications not asked for.
_HANDED_ON = ("_notice_handlers", "_notify_handlers", "_notifies_backlog")
#: A true boolean, in text and in binary.
_TRUE = (b"t", b"\x01")


class Psycopg:
    """The facts about psycopg 3, for adapters of pools of its connections."""

    #: The module, for its exceptions (PEP 249).
    dbapi: ClassVar[Any] = psycopg

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

    def run(self, raw: Connection, sql: str) -> list[tuple[Any, ...]]:
        # Whatever cursor and row factories are set. Several statements cannot be prepared.
        cursor = psycopg.Cursor(raw, row_factory=tuple_row)
        cursor.execute(sql, prepare=False)
        return cursor.fetchall() if cursor.description else []

    def settings(self, raw: Connection) -> object:
        return (
            *(raw.isolation_level, raw.read_only, raw.deferrable),
            *(raw.cursor_factory, raw.row_factory, raw.prepare_threshold, raw.prepared_max),
            # Not public, but nothing else tells: a handler would be called for others.
            *(tuple(getattr(raw, name, None) or ()) for name in _HANDED_ON),
        )

    @classmethod
    def text(cls, query: Any) -> str:
        if isinstance(query, bytes):
            return query.decode(errors="replace")
        if isinstance(query, psycopg.sql.Composable):
            return query.as_string(None)
        return str(query)

    def truths(self, cursor: psycopg.Cursor[Any]) -> Sequence[bool] | None:
        result = cursor.pgresult
        if result is None or result.ntuples != 1:
            return None
        return [result.get_value(0, column) in _TRUE for column in range(result.nfields)]
