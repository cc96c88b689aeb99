"""A replacement of the parts of psycopg that Django's backend and django.contrib.postgres import.

The driver behind it is the adapter's, `relet.adapters.pg8000.dbapi`.
"""

from __future__ import annotations

import ipaddress
from types import SimpleNamespace
from typing import Any

from relet.core import registry

driver: Any = registry.load("pg8000").dbapi  # type: ignore[attr-defined]

_TIMESTAMPTZ = 1184


class _ClientCursorMixin:
    """psycopg's marker for cursors that bind parameters on the client, as all cursors here do."""


class _Dumper:
    """psycopg's base class for dumpers. django.contrib.postgres.search defines a subclass."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def dump(self, value: Any) -> bytes:
        return str(value).encode()

    def quote(self, value: Any) -> bytes:
        quoted: str = driver.literal(self.dump(value).decode())
        return quoted.encode()


class _TypeInfo:
    """The OIDs of a type from an extension."""

    def __init__(self, name: str, oid: int, array_oid: int) -> None:
        self.name, self.oid, self.array_oid = name, oid, array_oid

    def register(self, connection: Any) -> None:
        connection.adapters.types.add(self)


def _register_hstore(info: _TypeInfo, connection: Any) -> None:
    info.register(connection)


def _quote(value: Any, connection: Any = None) -> str:
    quoted: str = driver.literal(value)
    return quoted


def _mogrify(sql: str, params: Any, connection: Any) -> str:
    with connection.temporary_connection() as cursor:
        composed: str = cursor.mogrify(sql, params)
        return composed


#: Replaces ``psycopg``.
psycopg = SimpleNamespace(
    **{name: getattr(driver, name) for name in driver.__all__ if not name.startswith("_")},
    __version__="3.2.0",  # the version with this interface
    ClientCursor=driver.Cursor,
    ServerCursor=driver.NamedCursor,
    client_cursor=SimpleNamespace(ClientCursorMixin=_ClientCursorMixin),
    adapters=SimpleNamespace(types={"timestamptz": SimpleNamespace(oid=_TIMESTAMPTZ)}),
    sql=SimpleNamespace(quote=_quote, Identifier=driver.identifier),
)
errors = SimpleNamespace(
    **{name: getattr(driver, name) for name in driver.__all__ if name.endswith("Error")},
    DuplicateDatabase=driver.DuplicateDatabase,
)
#: Replaces ``django.db.backends.postgresql.psycopg_any``, which hides differences between drivers.
psycopg_any = SimpleNamespace(
    is_psycopg3=True,  # so Django uses no code for psycopg2
    errors=errors,
    sql=psycopg.sql,
    mogrify=_mogrify,
    Inet=ipaddress.ip_address,
    Jsonb=driver.Jsonb,
    IsolationLevel=driver.IsolationLevel,
    ClientCursor=driver.Cursor,
    register_tzloader=lambda zone, cursor: setattr(cursor, "zone", zone),
    # Connections get their time zone when they are configured, not from a template.
    get_adapters_template=lambda use_tz, zone: None,
    Range=driver.Range,
    RANGE_TYPES=(driver.Range,),
    **dict.fromkeys(
        ("DateRange", "DateTimeRange", "DateTimeTZRange", "NumericRange"), driver.Range
    ),
)
REPLACED: dict[str, Any] = {
    "psycopg": psycopg,
    "psycopg.adapt": SimpleNamespace(Dumper=_Dumper),
    "psycopg.pq": SimpleNamespace(Format=SimpleNamespace(TEXT=0, BINARY=1)),
    "psycopg.types": SimpleNamespace(
        TypeInfo=_TypeInfo,
        hstore=SimpleNamespace(register_hstore=_register_hstore),
        numeric=SimpleNamespace(Int2=driver.Int2, Int4=driver.Int4, Int8=driver.Int8),
    ),
    "django.db.backends.postgresql.psycopg_any": psycopg_any,
}
