"""psycopg2.

https://www.psycopg.org/docs/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import psycopg2
from psycopg2 import extensions, sql

from relet.core import TransactionStatus
from relet.core.sql.classifier import UNREADABLE
from relet.core.sql.quoting import quote_identifier

from .application_name import with_application_name
from .attributes import Snapshot, attributes, contents
from .buffered_cursor import buffered
from .parameters import refuse_unknown


class Psycopg2:
    """psycopg2's part of adapters of its pools."""

    #: The module, for its exceptions (PEP 249).
    dbapi: ClassVar[Any] = psycopg2
    keeps_notices: ClassVar[bool] = True
    #: Attributes of a connection that `driver_state` ignores, because they change by themselves.
    #: psycopg2's own connections have no others than those that `driver_state` names.
    volatile: ClassVar[frozenset[str]] = frozenset()

    #: Set by the adapter that this is mixed into.
    pool_keys: ClassVar[Sequence[str]]

    @classmethod
    def check_connect(cls, parameters: Mapping[str, Any]) -> None:
        """See `relet.core.PoolAdapter.check_connect`."""
        unknown = [key for key in parameters if key not in _OWN and not _is_libpqs(key)]
        refuse_unknown(unknown, (*_OWN, *_LIBPQ), cls.pool_keys)

    @staticmethod
    def connect(parameters: Mapping[str, Any]) -> Any:
        """Open a connection, in autocommit, whose cursors are `Buffered`."""
        factory = _cursor_factory(parameters)
        named = with_application_name(parameters, dsn="dsn", parse=extensions.parse_dsn)
        raw = psycopg2.connect(**{**named, "cursor_factory": factory})
        raw.autocommit = True
        return raw

    @classmethod
    def adopt(cls, raw: Any, parameters: Mapping[str, Any]) -> None:
        """Make *raw*, which other code has opened, as `connect` would have made it.

        :param parameters: those of `connect`. The ones for libpq, except for the encoding, are the
            other code's choice.
        """
        raw.autocommit = True
        raw.cursor_factory = _cursor_factory(parameters)
        if encoding := parameters.get("client_encoding"):
            raw.set_client_encoding(encoding)  # no round trip, if it has that

    @classmethod
    def cannot_prepare(cls) -> str:
        return "psycopg2 puts parameters into the text; install psycopg 3, or use pg8000"

    def transaction_status(self, raw: Any) -> int:
        status: int = raw.get_transaction_status()
        return status

    def ping(self, raw: Any) -> bool:
        try:
            with extensions.cursor(raw) as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return self.transaction_status(raw) == TransactionStatus.IDLE

    def execute_internal(self, raw: Any, sql: str) -> list[tuple[Any, ...]]:
        # psycopg2 itself goes on with the encoding of the login, whatever has been SET since. The
        # server would read other characters.
        name = raw.get_parameter_status("client_encoding")
        encoded = sql.encode(extensions.encodings.get(name, "ascii"))
        # Independent of the cursor factory that is set.
        with extensions.cursor(raw) as cursor:
            cursor.execute(encoded)
            return list(cursor.fetchall()) if cursor.description else []

    def driver_state(self, raw: Any) -> object:
        return Snapshot(
            *attributes(raw, self.volatile),
            *(raw.isolation_level, raw.readonly, raw.deferrable, raw.encoding),
            raw.status,  # shows a two-phase transaction, for example
            raw.cursor_factory,
            *contents(raw.string_types),
            *contents(raw.binary_types),
            raw.notices,  # their contents are dropped by `drop_notices`
            raw.notifies,
            *(contents(raw.notifies) if isinstance(raw.notifies, list) else ()),
        )

    def drop_notices(self, raw: Any) -> None:
        notices = raw.notices
        if notices and notices.__class__ is list:
            notices.clear()

    @classmethod
    def sql_text(cls, query: Any) -> str:
        if isinstance(query, str):
            return str.__str__(query)
        if isinstance(query, bytes):
            return query.decode(errors="replace")
        return _text(query) if isinstance(query, sql.Composable) else UNREADABLE

    def boolean_columns(self, cursor: Any) -> Sequence[bool] | None:
        if cursor.description is None or cursor.rowcount != 1:
            return None
        (row,) = cursor.fetchall()
        cursor.scroll(0, mode="absolute")  # the rows are on the client
        values = row.values() if isinstance(row, dict) else row
        return [value is True for value in values]


def _cursor_factory(parameters: Mapping[str, Any]) -> Any:
    factory = parameters.get("cursor_factory") or extensions.cursor
    # A function may return any class.
    return buffered(factory) if isinstance(factory, type) else factory


#: psycopg2's own arguments.
_OWN = ("async", "async_", "connection_factory", "cursor_factory", "database", "dsn")
#: Some of libpq's parameters, for suggestions: psycopg2 has no list of them.
_LIBPQ = (
    *("application_name", "client_encoding", "connect_timeout", "dbname", "gssencmode", "host"),
    *("hostaddr", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
    *("options", "passfile", "password", "port", "service", "sslcert", "sslcrl", "sslkey"),
    *("sslmode", "sslpassword", "sslrootcert", "target_session_attrs", "tcp_user_timeout", "user"),
)


def _is_libpqs(key: str) -> bool:
    try:
        extensions.parse_dsn(f"{key}=''")
    except psycopg2.ProgrammingError:
        return False
    return True


def _text(part: sql.Composable) -> str:
    """Return what ``as_string()`` would, without the connection that it asks for the encoding."""
    if isinstance(part, sql.Composed):
        return "".join(map(_text, part.seq))
    if isinstance(part, sql.Identifier):
        return ".".join(map(quote_identifier, part.strings))
    if isinstance(part, sql.Literal):
        adapted = extensions.adapt(part.wrapped)
        if hasattr(adapted, "encoding"):
            adapted.encoding = "utf8"
        try:
            quoted: bytes = adapted.getquoted()
        except UnicodeError:
            return "NULL"  # an array, say, which never decides what a statement does
        return quoted.decode(errors="replace")
    return str(part.as_string(None))  # type: ignore[arg-type]
