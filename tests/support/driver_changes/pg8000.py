"""What can be changed of a connection of pg8000's, as the adapter has it."""

from __future__ import annotations

import datetime
import io
import uuid
from collections import deque
from contextlib import suppress
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from relet.adapters.pg8000.connection import IsolationLevel
from relet.adapters.pg8000.errors import DataError
from relet.adapters.pg8000.loaders import Loaders
from relet.adapters.pg8000.types import Jsonb

from . import Change, Kept, setting

PARTS = {
    "": lambda raw: raw,
    "adapters.": lambda raw: raw.adapters,
    "adapters.types.": lambda raw: raw.adapters.types,
    "session.": lambda raw: raw.session,
    "wire.": lambda raw: raw.wire,
    "wire.values.": lambda raw: raw.wire.values,
}
INSTANCES = ["", "session.", "wire.", "wire.values."]

INFO = SimpleNamespace(name="int4", oid=23, array_oid=1007)  # to be loaded as text
ZONE = datetime.timezone(datetime.timedelta(hours=3))
ZONED = Loaders(ZONE)


def loaded(raw: Any) -> object:
    return repr(raw.run("SELECT 7, '2020-01-01 00:00+00'::timestamptz"))


def is_own(raw: Any) -> list[int | None]:
    """Tell in whose hands messages are: the driver's keep 50 notices."""
    kept = raw.notices, raw.notifies, raw.wire.notices, raw.wire.notifies
    return [messages.maxlen for messages in kept]


def parameter(name: str) -> Any:
    return lambda raw: raw.info.parameter_status(name)


CHANGES = [
    setting("autocommit", False)._replace(kept=Kept.SET_BACK),
    setting("isolation_level", IsolationLevel.SERIALIZABLE),
    setting("read_only", True),
    setting("deferrable", False),
    setting("zone", ZONE),
    setting("zone", ZONE, "wire.values."),
    setting("has_hstore", True, "wire.values."),
    Change("wire.values.loaders", lambda raw: setattr(raw.wire.values, "loaders", ZONED), loaded),
    Change("wire.values.register", lambda raw: raw.wire.values.register("int4", 23, 1007), loaded),
    Change(
        "wire.values.register (hstore)",
        lambda raw: raw.wire.values.register("hstore", 999_999),
        lambda raw: raw.wire.values.has_hstore,
    ),
    setting("autocommit", False, "session.")._replace(kept=Kept.SET_BACK),
    setting("begin_sql", "BEGIN READ ONLY", "session."),
    Change("adapters.types.add", lambda raw: raw.adapters.types.add(INFO), loaded),
    Change("adapters.add", lambda raw: raw.adapters.add(INFO), loaded),
    Change("notices", lambda raw: setattr(raw, "notices", deque(maxlen=7)), is_own),
    Change("notifies", lambda raw: setattr(raw, "notifies", deque(maxlen=7)), is_own),
    Change(
        "notifies (put in)", lambda raw: raw.notifies.append("x"), lambda raw: list(raw.notifies)
    ),
    Change("wire.notices", lambda raw: setattr(raw.wire, "notices", deque(maxlen=7)), is_own),
    Change("wire.notifies", lambda raw: setattr(raw.wire, "notifies", deque(maxlen=7)), is_own),
    Change("timeout", lambda raw: raw.wire.pg._usock.settimeout(7), lambda raw: raw.timeout),
    Change(
        "run",
        lambda raw: raw.run("SET application_name = 'somebody'"),
        parameter("application_name"),
        kept=Kept.SESSION,
    ),
    Change(
        "wire.exchange",
        lambda raw: raw.wire.exchange("SET client_encoding = 'LATIN1'"),
        parameter("client_encoding"),
        kept=Kept.SESSION,
    ),
]

# Ordinary use, which changes nothing.


def send_values(raw: Any) -> None:
    cursor = raw.cursor()
    values = [1, 0.5, "x", None, True, b"x", [1, 2], Decimal("1.5"), uuid.uuid4(), Jsonb({})]
    cursor.execute(f"SELECT {', '.join(['%s'] * len(values))}", values)
    cursor.fetchall()
    cursor.execute("SELECT '1'::json, '1'::jsonb, now(), '{1}'::int[], '[1,2)'::int4range")
    cursor.fetchall()


def use_another_zone(raw: Any) -> None:
    cursor = raw.cursor()
    for cursor.zone in ZONE, None, "server":
        cursor.execute("SELECT now()")


def use_another_encoding(raw: Any) -> None:
    raw.run("SET client_encoding = 'LATIN1'")
    use_another_zone(raw)
    raw.run("RESET client_encoding")


def begin(raw: Any) -> None:
    raw.autocommit = False
    raw.cursor().execute("SELECT 1")
    raw.rollback()
    cursor = raw.cursor("named")
    cursor.execute("SELECT 1")
    cursor.fetchall()
    cursor.close()
    raw.commit()
    raw.autocommit = True


def fail(raw: Any) -> None:
    with suppress(DataError):
        raw.run("SELECT 1/0")


def listen(raw: Any) -> None:
    raw.run("LISTEN relet_ordinary; NOTIFY relet_ordinary")
    raw.poll()
    raw.notifies.clear()
    raw.run("UNLISTEN *")


def copy(raw: Any) -> None:
    raw.cursor().copy_expert("COPY (SELECT 1) TO STDOUT", io.StringIO())


def set_and_set_back(raw: Any) -> None:
    zone = raw.zone
    raw.isolation_level, raw.zone = 4, ZONE
    raw.isolation_level, raw.zone = None, zone
    raw.run("DO $$ BEGIN RAISE NOTICE 'x'; END $$")


ORDINARY = [
    *(send_values, use_another_zone, use_another_encoding, begin, fail, listen, copy),
    set_and_set_back,
]

_READ = "it is only read"
_SQL = "what it does is in the session, or in a transaction"
_NOTHING = "it does nothing"

EXCEPTIONS = {
    "adapters": "see adapters.",
    "adapters.register_dumper": _NOTHING,
    "adapters.register_loader": _NOTHING,
    "adapters.types": "itself",
    "adapters.types.register_dumper": _NOTHING,
    "adapters.types.register_loader": _NOTHING,
    "adapters.types.types": "itself",
    "begin": _SQL,
    "close": "the connection is closed, and so discarded",
    "closed": _READ,
    "commit": _SQL,
    "cursor": "a cursor has attributes of its own",
    "fileno": "what is done to the socket itself, nobody sees, but for its timeout",
    "info": _READ,
    "poll": "it takes what has come",
    "rollback": _SQL,
    "session": "see session.",
    "session.begin": _SQL,
    "session.begin_with": _SQL,
    "session.commit": _SQL,
    "session.lock": "see wire.lock",
    "session.rollback": _SQL,
    "session.run": _SQL,
    "session.send": _SQL,
    "session.values": "see wire.values.",
    "session.wire": "see wire.",
    "transaction_status": "each statement sets it",
    "wire": "see wire.",
    "wire.check": _READ,
    "wire.check_open": _READ,
    "wire.close": "the connection is closed, and so discarded",
    "wire.closed": _READ,
    "wire.decoded": _READ,
    "wire.fileno": "what is done to the socket itself, nobody sees, but for its timeout",
    "wire.lock": "relet's own: whoever takes it releases it",
    "wire.parameters": "what the server has told; it tells again when it changes",
    "wire.pg": "it has opened the connection, and sends nothing any more",
    "wire.poll": "it takes what has come",
    "wire.timeout": _READ,
    "wire.transaction_status": "each statement sets it",
    "wire.values": "see wire.values.",
    "wire.values.follow": "relet's own; the wire calls it when the session's encoding changes",
    "wire.values.loaders_for": "relet's own; types are made known by register()",
}

#: Why an instance attribute is not in settings().
VOLATILE = {
    "_decode": "it follows the session's encoding",
    "_encode": "it follows the session's encoding",
    "_rest": "what has come and has not been read",
    "autocommit": "it is set back",
    "loaders": "they follow the zone and the session's encoding, which is compared",
    "notices": "what is in there is dropped; the list itself is compared",
    "relet_plans": "what relet has prepared in the session, which is for all leases",
    "transaction_status": "each statement sets it",
}
