"""What can be changed of a connection of psycopg 3."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from typing import Any

import psycopg
import pytest
from psycopg.adapt import PyFormat
from psycopg.pq import Format
from psycopg.rows import dict_row
from psycopg.types import TypeInfo, TypesRegistry
from psycopg.types.json import Jsonb
from psycopg.types.range import Range
from psycopg.types.string import StrDumper, TextLoader

from . import Change, Kept, enter, kept_open, setting

INSTANCES = [""]
PARTS = {
    "": lambda raw: raw,
    "adapters.": lambda raw: raw.adapters,
    "adapters.types.": lambda raw: raw.adapters.types,
    "pgconn.": lambda raw: raw.pgconn,
}

TEXT, INT4 = 25, 23
INFO = TypeInfo("relet_type", 999_999, 999_998)


class Colour(Enum):
    RED = "red"


class OtherDumper(StrDumper):
    pass


class OtherServerCursor(psycopg.ServerCursor[Any]):
    pass


def handle(message: object) -> None:
    pass


def leave_notifies_halfway(raw: Any) -> None:
    """Take one notification of two, under the lock that it is taken under."""
    for sql in "LISTEN relet_halfway", "NOTIFY relet_halfway, '1'", "NOTIFY relet_halfway, '2'":
        psycopg.Cursor(raw).execute(sql)
    generator = raw.notifies(timeout=0)
    if next(generator, None) is None:
        pytest.skip("this psycopg has dropped what came with an answer")
    kept_open.append(generator)


def begin_two_phases(raw: Any) -> None:
    raw.autocommit = False
    raw.tpc_begin("relet")


def enter_pipeline(raw: Any) -> None:
    enter(raw.pipeline())


def func(handler: Any) -> object:
    """Return the function of a partial one."""
    return getattr(handler, "func", handler)


def dumper(raw: Any) -> object:
    return raw.adapters.get_dumper(str, PyFormat.AUTO)


def loader(raw: Any) -> object:
    return raw.adapters.get_loader(INT4, Format.TEXT)


def known(raw: Any) -> list[bool]:
    return [raw.adapters.types.get(name) is not None for name in ("relet_type", "text")]


CHANGES = [
    setting("autocommit", False)._replace(kept=Kept.SET_BACK),
    Change(
        *("set_autocommit", lambda raw: raw.set_autocommit(False), lambda raw: raw.autocommit),
        kept=Kept.SET_BACK,
    ),
    setting("isolation_level", psycopg.IsolationLevel.SERIALIZABLE),
    setting("read_only", True),
    setting("deferrable", True),
    Change(
        "set_isolation_level",
        lambda raw: raw.set_isolation_level(4),
        lambda raw: raw.isolation_level,
    ),
    Change("set_read_only", lambda raw: raw.set_read_only(False), lambda raw: raw.read_only),
    Change("set_deferrable", lambda raw: raw.set_deferrable(False), lambda raw: raw.deferrable),
    setting("row_factory", dict_row),
    setting("cursor_factory", psycopg.RawCursor),
    setting("server_cursor_factory", OtherServerCursor),
    setting("prepare_threshold", 17),
    setting("prepared_max", 17),
    Change(
        "adapters.register_dumper",
        lambda raw: raw.adapters.register_dumper(str, OtherDumper),
        dumper,
    ),
    Change(
        "adapters.register_loader",
        lambda raw: raw.adapters.register_loader(INT4, TextLoader),
        loader,
    ),
    Change("adapters", lambda raw: INFO.register(raw), known),
    Change("adapters.types", lambda raw: setattr(raw.adapters, "types", TypesRegistry()), known),
    Change("adapters.types.add", lambda raw: raw.adapters.types.add(INFO), known),
    Change("adapters.types.clear", lambda raw: raw.adapters.types.clear(), known),
    Change(
        "add_notice_handler",
        lambda raw: raw.add_notice_handler(handle),
        lambda raw: list(raw._notice_handlers),
    ),
    Change(
        "add_notify_handler",
        lambda raw: raw.add_notify_handler(handle),
        lambda raw: list(raw._notify_handlers),
    ),
    Change(
        "remove_notice_handler",
        lambda raw: raw.remove_notice_handler(handle),
        lambda raw: list(raw._notice_handlers),
        before=lambda raw: raw.add_notice_handler(handle),
    ),
    Change(
        "remove_notify_handler",
        lambda raw: raw.remove_notify_handler(handle),
        lambda raw: list(raw._notify_handlers),
        before=lambda raw: raw.add_notify_handler(handle),
    ),
    Change("notifies", leave_notifies_halfway, lambda raw: raw.lock.locked(), kept=Kept.BLOCKED),
    Change(
        "lock", lambda raw: raw.lock.acquire(), lambda raw: raw.lock.locked(), kept=Kept.BLOCKED
    ),
    Change("pipeline", enter_pipeline, lambda raw: raw.pgconn.pipeline_status),
    Change("transaction", lambda raw: enter(raw.transaction()), lambda raw: raw._num_transactions),
    Change("tpc_begin", begin_two_phases, lambda raw: raw._tpc),
    Change(
        "pgconn.nonblocking",
        lambda raw: setattr(raw.pgconn, "nonblocking", 0),
        lambda raw: raw.pgconn.nonblocking,
    ),
    Change(
        "pgconn.notice_handler",
        lambda raw: setattr(raw.pgconn, "notice_handler", handle),
        lambda raw: func(raw.pgconn.notice_handler),
    ),
    Change(
        "pgconn.notify_handler",
        lambda raw: setattr(raw.pgconn, "notify_handler", handle),
        lambda raw: func(raw.pgconn.notify_handler),
    ),
    Change(
        "pgconn.reset",
        lambda raw: raw.pgconn.reset(),
        lambda raw: raw.info.parameter_status("TimeZone"),
        before=lambda raw: psycopg.Cursor(raw).execute("SET TimeZone = 'Asia/Tokyo'"),
    ),
    Change(
        "pgconn.enter_pipeline_mode",
        lambda raw: raw.pgconn.enter_pipeline_mode(),
        lambda raw: raw.pgconn.pipeline_status,
        kept=Kept.REFUSED,
    ),
    Change(
        "pgconn.exec_",
        lambda raw: raw.pgconn.exec_(b"SET application_name = 'somebody'"),
        lambda raw: raw.info.parameter_status("application_name"),
        kept=Kept.SESSION,
    ),
    Change(
        "execute",
        lambda raw: raw.execute("SET application_name = 'somebody'"),
        lambda raw: raw.info.parameter_status("application_name"),
        kept=Kept.SESSION,
    ),
]

# Ordinary use, which changes nothing.


def send_values(raw: Any) -> None:
    """Send values of types that the driver looks for a dumper for, when it meets them first."""
    values = [
        *(uuid.uuid4(), Decimal("1.5"), [1, 2], Jsonb({"a": 1}), Range(1, 2), b"\0", None, True),
        *(date(2020, 1, 1), datetime.now(timezone.utc), timedelta(1), IPv4Address("127.0.0.1")),
        *(Colour.RED, "text", 1 << 70, 0.5),
    ]
    for binary in False, True:
        psycopg.Cursor(raw).execute(
            f"SELECT {', '.join(['%s'] * len(values))}", values, binary=binary
        ).fetchall()


def prepare(raw: Any) -> None:
    for n in range(8):
        raw.execute("SELECT %s::int", [n], prepare=True)


def begin(raw: Any) -> None:
    with raw.transaction(), raw.transaction():
        raw.execute("SELECT 1")
    with suppress(ZeroDivisionError), raw.transaction():
        raise ZeroDivisionError
    raw.autocommit = False
    raw.execute("SELECT 1")
    raw.rollback()
    raw.autocommit = True


def pipe(raw: Any) -> None:
    with raw.pipeline():
        raw.execute("SELECT 1")
        raw.execute("SELECT 2")
    raw.cursor().executemany("SELECT %s", [(1,), (2,)])


def fetch(raw: Any) -> None:
    with raw.transaction(), raw.cursor("named") as cursor:
        cursor.execute("SELECT 1").fetchall()
    list(raw.cursor().stream("SELECT generate_series(1, 3)"))
    with raw.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
        list(copy)


def fail(raw: Any) -> None:
    with suppress(psycopg.DataError):
        raw.execute("SELECT 1/0")


def listen(raw: Any) -> None:
    raw.execute("LISTEN relet_ordinary")
    raw.execute("NOTIFY relet_ordinary")
    list(raw.notifies(timeout=0))
    raw.execute("UNLISTEN *")


def set_and_set_back(raw: Any) -> None:
    before = raw.row_factory, raw.isolation_level, raw.prepare_threshold
    raw.row_factory, raw.isolation_level, raw.prepare_threshold = dict_row, 4, 3
    raw.row_factory, raw.isolation_level, raw.prepare_threshold = before
    raw.add_notify_handler(handle)
    raw.remove_notify_handler(handle)


def adapt_a_cursor(raw: Any) -> None:
    cursor = raw.cursor()
    cursor.adapters.register_loader(INT4, TextLoader)
    cursor.adapters.register_dumper(str, OtherDumper)
    INFO.register(cursor)
    cursor.execute("SELECT 1").fetchall()


def look_around(raw: Any) -> None:
    raw.adapters.get_dumper(uuid.UUID, PyFormat.AUTO)
    TypeInfo.fetch(raw, "int4")
    raw.execute("DO $$ BEGIN RAISE NOTICE 'x'; END $$")


ORDINARY = [
    *(send_values, prepare, begin, pipe, fetch, fail, listen),
    *(set_and_set_back, adapt_a_cursor, look_around),
]

_READ = "it is only read"
_SQL = "what it does is in the session, or in a transaction"
_BENEATH = "statements that are prepared by the protocol are the driver's, and left alone"
_CLOSES = "the connection is closed, and so discarded"
_STATUS = "the transaction status tells, and whatever it is but idle is ended, or discarded"
_RESULT = "it is for the result that is being fetched"
_OF_A_TRACE = "a trace is ended by undo_unseen(); see test_a_trace"
_OPENS = "it opens another connection"

EXCEPTIONS = {
    "broken": _READ,
    "cancel": "the server is told to, about the statement that runs",
    "cancel_safe": "the server is told to, about the statement that runs",
    "close": _CLOSES,
    "closed": _READ,
    "commit": _SQL,
    "connect": _OPENS,
    "connection": _READ,
    "cursor": "a cursor has attributes and adapters of its own",
    "fileno": "what is done to the socket itself, nobody sees",
    "info": _READ,
    "pgconn": "see pgconn., and the test of instance attributes",
    "relet": "relet's own",
    "rollback": _SQL,
    "tpc_commit": "it ends what tpc_begin() has begun",
    "tpc_prepare": "as tpc_begin()",
    "tpc_recover": _READ,
    "tpc_rollback": "it ends what tpc_begin() has begun",
    "wait": "it waits for something else",
    "xid": _READ,
    **{f"adapters.{name}": _READ for name in ("adapters", "connection", "get_loader")},
    **{f"adapters.{name}": _READ for name in ("get_dumper", "get_dumper_by_oid")},
    **{f"adapters.types.{name}": _READ for name in ("get", "get_by_subtype", "get_oid")},
    **{f"pgconn.{name}": _READ for name in ("backend_pid", "db", "error_message", "host")},
    **{f"pgconn.{name}": _READ for name in ("full_protocol_version", "get_error_message")},
    **{f"pgconn.{name}": _READ for name in ("hostaddr", "info", "is_busy", "needs_password")},
    **{f"pgconn.{name}": _READ for name in ("options", "parameter_status", "password", "port")},
    **{f"pgconn.{name}": _READ for name in ("pipeline_status", "protocol_version")},
    **{f"pgconn.{name}": _READ for name in ("server_version", "ssl_in_use", "status", "tty")},
    **{f"pgconn.{name}": _READ for name in ("transaction_status", "used_gssapi", "user")},
    "pgconn.used_password": _READ,
    "pgconn.socket": "what is done to the socket itself, nobody sees",
    "pgconn.pgconn_ptr": "what libpq is told by its own functions, nobody sees",
    "pgconn.connect": _OPENS,
    "pgconn.connect_start": _OPENS,
    "pgconn.ping": _OPENS,
    "pgconn.cancel_conn": _OPENS,
    "pgconn.get_cancel": _OPENS,
    "pgconn.connect_poll": _STATUS,
    "pgconn.reset_start": _STATUS,
    "pgconn.reset_poll": _STATUS,
    "pgconn.finish": _CLOSES,
    "pgconn.change_password": "it is the role's",
    "pgconn.encrypt_password": _READ,
    "pgconn.make_empty_result": _READ,
    **{f"pgconn.{name}": _SQL for name in ("exec_params", "exec_prepared")},
    **{f"pgconn.{name}": _SQL for name in ("describe_portal", "describe_prepared")},
    "pgconn.close_portal": _SQL,
    **{f"pgconn.{name}": _BENEATH for name in ("prepare", "close_prepared")},
    **{f"pgconn.{name}": _STATUS for name in ("send_query", "send_query_params")},
    **{f"pgconn.{name}": _STATUS for name in ("send_query_prepared", "send_prepare")},
    **{f"pgconn.{name}": _STATUS for name in ("send_describe_portal", "send_describe_prepared")},
    **{f"pgconn.{name}": _STATUS for name in ("send_close_portal", "send_close_prepared")},
    **{f"pgconn.{name}": _STATUS for name in ("pipeline_sync", "send_flush_request", "flush")},
    **{f"pgconn.{name}": _RESULT for name in ("get_result", "consume_input", "get_copy_data")},
    **{f"pgconn.{name}": _RESULT for name in ("put_copy_data", "put_copy_end")},
    **{f"pgconn.{name}": _RESULT for name in ("set_chunked_rows_mode", "set_single_row_mode")},
    "pgconn.exit_pipeline_mode": "it ends what enter_pipeline_mode() has begun",
    "pgconn.notifies": "it takes what has come",
    "pgconn.trace": _OF_A_TRACE,
    "pgconn.set_trace_flags": _OF_A_TRACE,
    "pgconn.untrace": _OF_A_TRACE,
}

#: Why an instance attribute is not in settings().
VOLATILE = {
    "_adapters": "it is made when it is first needed; see adapters.",
    "_autocommit": "it is set back; see autocommit",
    "_begin_statement": "it is composed of isolation_level, read_only and deferrable",
    "_created_at": "psycopg_pool's",
    "_expire_at": "psycopg_pool's",
    "_pool": "psycopg_pool's",
    "relet": "relet's",
    "relet_plans": "what relet has prepared in the session, which is for all leases",
}
