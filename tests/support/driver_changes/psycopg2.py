"""What can be changed of a connection of psycopg2."""

from __future__ import annotations

import io
from contextlib import suppress
from datetime import date, datetime, timezone
from typing import Any

import psycopg2
from psycopg2 import extensions, extras

from . import Change, Kept, setting

INSTANCES = [""]
PARTS = {"": lambda raw: raw}

SERIALIZABLE = extensions.ISOLATION_LEVEL_SERIALIZABLE


class OtherCursor(extensions.cursor):
    pass


def execute(raw: Any, sql: str) -> Any:
    cursor = extensions.cursor(raw)
    cursor.execute(sql)
    return cursor


def begin_two_phases(raw: Any) -> None:
    raw.autocommit = False
    raw.tpc_begin("relet")


def level(raw: Any) -> object:
    return raw.isolation_level, raw.readonly, raw.deferrable


def loaded(raw: Any) -> object:
    """Return what some values are loaded as."""
    return execute(raw, "SELECT '1'::jsonb, 7").fetchone()


def parameter(name: str) -> Any:
    return lambda raw: raw.get_parameter_status(name)


def mutate(name: str) -> Any:
    def make(raw: Any) -> None:
        getattr(raw, name)[23] = psycopg2.STRING

    return make


def has_been_put(raw: Any) -> list[bool]:
    return [isinstance(kept, Own) for kept in (raw.notices, raw.notifies)]


class Own(list[Any]):
    """What somebody has messages put into."""


CHANGES = [
    setting("autocommit", False)._replace(kept=Kept.SET_BACK),
    Change(
        "set_session (autocommit)",
        lambda raw: raw.set_session(autocommit=False),
        lambda raw: raw.autocommit,
        kept=Kept.SET_BACK,
    ),
    Change(
        "set_isolation_level (default)",
        lambda raw: raw.set_isolation_level(extensions.ISOLATION_LEVEL_DEFAULT),
        lambda raw: raw.autocommit,
        kept=Kept.SET_BACK,
    ),
    Change("set_isolation_level", lambda raw: raw.set_isolation_level(SERIALIZABLE), level),
    setting("isolation_level", SERIALIZABLE),
    setting("readonly", True),
    setting("deferrable", True),
    Change("set_session (level)", lambda raw: raw.set_session("SERIALIZABLE"), level),
    Change("set_session (read only)", lambda raw: raw.set_session(readonly=False), level),
    Change("set_session (deferrable)", lambda raw: raw.set_session(deferrable=False), level),
    Change(
        "set_client_encoding",
        lambda raw: raw.set_client_encoding("LATIN1"),
        lambda raw: raw.encoding,
    ),
    setting("cursor_factory", OtherCursor),
    Change("string_types", mutate("string_types"), loaded),
    Change(
        "string_types (register_type)",
        lambda raw: extensions.register_type(psycopg2.NUMBER, raw),
        lambda raw: sorted(raw.string_types),
    ),
    # Equal to the one that Django has registered.
    Change(
        "string_types (jsonb)", lambda raw: extras.register_default_jsonb(raw, loads=repr), loaded
    ),
    Change(
        "string_types (uuid)",
        lambda raw: extras.register_uuid(conn_or_curs=raw),
        lambda raw: sorted(raw.string_types),
    ),
    Change("binary_types", mutate("binary_types"), lambda raw: sorted(raw.binary_types)),
    Change("notices", lambda raw: setattr(raw, "notices", Own()), has_been_put),
    Change("notifies", lambda raw: setattr(raw, "notifies", Own()), has_been_put),
    Change(
        "notifies (put in)", lambda raw: raw.notifies.append("x"), lambda raw: list(raw.notifies)
    ),
    Change("tpc_begin", begin_two_phases, lambda raw: raw.status),
    Change(
        "reset",
        lambda raw: raw.reset(),
        parameter("TimeZone"),
        kept=Kept.SESSION,
        before=lambda raw: execute(raw, "SET TimeZone = 'Asia/Tokyo'"),
    ),
    Change(
        "cursor",
        lambda raw: execute(raw, "SET application_name = 'somebody'"),
        parameter("application_name"),
        kept=Kept.SESSION,
    ),
]

# Ordinary use, which changes nothing.


def send_values(raw: Any) -> None:
    cursor = raw.cursor()
    values = [1, 0.5, "x", None, True, b"x", [1, 2], date(2020, 1, 1), datetime.now(timezone.utc)]
    cursor.execute(f"SELECT {', '.join(['%s'] * len(values))}", values)
    cursor.fetchall()
    cursor.execute("SELECT '1'::json, '1'::jsonb, now(), '{1}'::int[], '[1,2)'::int4range")
    cursor.fetchall()
    extras.execute_values(cursor, "SELECT * FROM (VALUES %s) AS v", [(1,), (2,)])


def begin(raw: Any) -> None:
    raw.autocommit = False
    execute(raw, "SELECT 1")
    raw.rollback()
    with raw, raw.cursor("named") as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
    raw.lobject(0).unlink()
    raw.commit()
    raw.autocommit = True


def fail(raw: Any) -> None:
    with suppress(psycopg2.DataError):
        execute(raw, "SELECT 1/0")


def listen(raw: Any) -> None:
    execute(raw, "LISTEN relet_ordinary; NOTIFY relet_ordinary")
    raw.poll()
    raw.notifies.clear()
    execute(raw, "UNLISTEN *")


def copy(raw: Any) -> None:
    raw.cursor().copy_expert("COPY (SELECT 1) TO STDOUT", io.StringIO())


def set_and_set_back(raw: Any) -> None:
    raw.isolation_level = SERIALIZABLE
    raw.isolation_level = None
    raw.set_client_encoding("LATIN1")
    raw.set_client_encoding("UTF8")


def look_around(raw: Any) -> None:
    extensions.register_type(psycopg2.NUMBER, raw.cursor())
    execute(raw, "DO $$ BEGIN RAISE NOTICE 'x'; END $$")


ORDINARY = [send_values, begin, fail, listen, copy, set_and_set_back, look_around]

_READ = "it is only read"
_SQL = "what it does is in the session, or in a transaction"
_SOCKET = "what is done to the socket itself, or by libpq's own functions, nobody sees"

EXCEPTIONS = {
    "async": _READ,
    "async_": _READ,
    "cancel": "the server is told to, about the statement that runs",
    "close": "the connection is closed, and so discarded",
    "closed": _READ,
    "commit": _SQL,
    "dsn": _READ,
    "encoding": "set_client_encoding() sets it",
    "fileno": _SOCKET,
    "get_backend_pid": _READ,
    "get_dsn_parameters": _READ,
    "get_native_connection": _SOCKET,
    "get_parameter_status": _READ,
    "get_transaction_status": _READ,
    "info": _READ,
    "isexecuting": _READ,
    "lobject": _SQL,
    "pgconn_ptr": _SOCKET,
    "poll": "it takes what has come",
    "protocol_version": _READ,
    "rollback": _SQL,
    "server_version": _READ,
    "status": "tpc_begin() sets it",
    "tpc_commit": "it ends what tpc_begin() has begun",
    "tpc_prepare": "as tpc_begin()",
    "tpc_recover": _READ,
    "tpc_rollback": "it ends what tpc_begin() has begun",
    "xid": _READ,
}

VOLATILE: dict[str, str] = {}
