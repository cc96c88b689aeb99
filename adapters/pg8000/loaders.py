"""Loaders: they convert the text that the server sends to Python's values.

A value that Python cannot represent, such as ``infinity`` or a year beyond 9999, is a `DataError`,
as in psycopg. So are dates and intervals in another style than PostgreSQL's default.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from json import loads
from typing import Any, Literal, TypeVar
from uuid import UUID

from .composites import Loader, array_loader, load_record, multirange_loader, range_loader
from .errors import DataError
from .results import Column, columns_of

V = TypeVar("V")

#: How a ``timestamptz`` is loaded: in a time zone; naive, in the session's time zone (None); or
#: with the offset that the server sends ("server").
Zone = tzinfo | Literal["server"] | None

_decode = bytes.decode


def _bytea(data: bytes) -> bytes:
    if data[:2] == b"\\x":
        return bytes.fromhex(_decode(data[2:]))
    # bytea_output = 'escape'
    return _OCTAL.sub(_unescaped, data)


_OCTAL = re.compile(rb"\\(?:(\\)|([0-7]{3}))")


def _unescaped(match: re.Match[bytes]) -> bytes:
    return match.group(1) or bytes([int(match.group(2), 8)])


def _bool(data: bytes) -> bool:
    return data == b"t"


def _json(data: bytes) -> Any:
    return loads(_decode(data))


def _decimal(data: bytes) -> Decimal:
    return Decimal(_decode(data))


def _uuid(data: bytes) -> UUID:
    return UUID(_decode(data))


def _inet(data: bytes) -> Any:
    text = _decode(data)
    return ip_interface(text) if "/" in text else ip_address(text)


def _cidr(data: bytes) -> Any:
    return ip_network(_decode(data))


# Dates and times.

_FRACTION = re.compile(r"\.(\d+)")
_SHORT_OFFSET = re.compile(r"[-+]\d\d$")


def _iso(parse: Callable[[str], V]) -> Callable[[str], V]:
    """Return *parse*, a ``fromisoformat()``, made to accept PostgreSQL's output."""
    if sys.version_info >= (3, 11):
        return parse

    def older(text: str) -> V:
        # Python 3.10 needs three or six digits, and minutes in the offset.
        text = _FRACTION.sub(lambda match: f".{match.group(1):0<6}", text)
        return parse(text + ":00" if _SHORT_OFFSET.search(text) else text)

    return older


_datetime_of = _iso(datetime.fromisoformat)
_time_of = _iso(time.fromisoformat)


def _no_such(kind: str, data: bytes) -> DataError:
    return DataError(
        f"cannot load the {kind} {_decode(data)!r}: Python cannot represent it, "
        "or DateStyle is not ISO"
    )


def _date(data: bytes) -> date:
    try:
        return date.fromisoformat(_decode(data))
    except ValueError:
        raise _no_such("date", data) from None


def _time(data: bytes) -> time:
    try:
        return _time_of(_decode(data))
    except ValueError:
        raise _no_such("time", data) from None


def _timestamp(data: bytes) -> datetime:
    try:
        return _datetime_of(_decode(data))
    except ValueError:
        raise _no_such("timestamp", data) from None


def timestamptz_loader(zone: Zone) -> Loader:
    """Return the loader of ``timestamptz`` for *zone*."""
    if zone == "server":
        return _timestamp
    if zone is None:
        return lambda data: _timestamp(data).replace(tzinfo=None)

    def load(data: bytes) -> datetime:
        try:
            # The offset determines the instant, whatever the session's TimeZone is.
            return _datetime_of(_decode(data)).astimezone(zone)
        except (ValueError, OverflowError):
            raise _no_such("timestamptz", data) from None

    return load


_INTERVAL = re.compile(
    rb"(?:([-+]?\d{1,18}) years? ?)?(?:([-+]?\d{1,18}) mons? ?)?(?:([-+]?\d{1,18}) days? ?)?"
    rb"(?:([-+])?(\d{1,18}):(\d\d):(\d\d)(?:\.(\d{1,18}))?)?"
)


def _interval(data: bytes) -> timedelta:
    match = _INTERVAL.fullmatch(data)
    if match is None or not data:
        raise DataError(
            f"cannot load the interval {_decode(data)!r}: IntervalStyle must be postgres"
        )
    years, months, days, sign, *clock, fraction = match.groups()
    hours, minutes, seconds = (int(part or 0) for part in clock)
    try:
        # As in psycopg, a year has 365 days and a month 30.
        whole = timedelta(int(years or 0) * 365 + int(months or 0) * 30 + int(days or 0))
        part = timedelta(
            hours=hours,
            minutes=minutes,
            seconds=seconds,
            microseconds=int((fraction or b"").ljust(6, b"0")),
        )
        return whole - part if sign == b"-" else whole + part
    except OverflowError:
        raise DataError(
            f"cannot load the interval {_decode(data)!r}: it is too long for a timedelta"
        ) from None


#: For each type: its OID, the OID of its array type, and its loader.
#: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
_BASE: dict[str, tuple[int, int, Loader]] = {
    "bool": (16, 1000, _bool),
    "bytea": (17, 1001, _bytea),
    "char": (18, 1002, _decode),
    "name": (19, 1003, _decode),
    "int8": (20, 1016, int),
    "int2": (21, 1005, int),
    "int4": (23, 1007, int),
    "text": (25, 1009, _decode),
    "oid": (26, 1028, int),
    "json": (114, 199, _json),
    "float4": (700, 1021, float),
    "float8": (701, 1022, float),
    "inet": (869, 1041, _inet),
    "cidr": (650, 651, _cidr),
    "bpchar": (1042, 1014, _decode),
    "varchar": (1043, 1015, _decode),
    "date": (1082, 1182, _date),
    "time": (1083, 1183, _time),
    "timetz": (1266, 1270, _time),
    "timestamp": (1114, 1115, _timestamp),
    "timestamptz": (1184, 1185, _timestamp),
    "interval": (1186, 1187, _interval),
    "numeric": (1700, 1231, _decimal),
    "record": (2249, 2287, load_record),
    "uuid": (2950, 2951, _uuid),
    "jsonb": (3802, 3807, _json),
}
#: Other types of the server, which are loaded as text: their OIDs, and those of their array types.
#: box is missing, because its arrays are separated by semicolons.
_TEXTS = [
    (name, int(oid), int(array_oid))
    for name, oid, array_oid in re.findall(
        r"(\w+) (\d+) (\d+)",
        """
        aclitem 1033 1034, bit 1560 1561, cid 29 1012, circle 718 719, gtsvector 3642 3644
        int2vector 22 1006, jsonpath 4072 4073, line 628 629, lseg 601 1018, macaddr 829 1040
        macaddr8 774 775, money 790 791, oidvector 30 1013, path 602 1019, pg_lsn 3220 3221
        point 600 1017, polygon 604 1027, refcursor 1790 2201, regclass 2205 2210
        regcollation 4191 4192, regconfig 3734 3735, regdictionary 3769 3770, regnamespace 4089 4090
        regoper 2203 2208, regoperator 2204 2209, regproc 24 1008, regprocedure 2202 2207
        regrole 4096 4097, regtype 2206 2211, tid 27 1010, tsquery 3615 3645, tsvector 3614 3643
        txid_snapshot 2970 2949, varbit 1562 1563, xid 28 1011, xid8 5069 271, xml 142 143
        """,
    )
]
#: For each range type: its OIDs, those of its multirange type, and the type of its bounds.
_RANGES: dict[str, tuple[int, int, int, int, str]] = {
    "int4range": (3904, 3905, 4451, 6150, "int4"),
    "numrange": (3906, 3907, 4532, 6151, "numeric"),
    "tsrange": (3908, 3909, 4533, 6152, "timestamp"),
    "tstzrange": (3910, 3911, 4534, 6153, "timestamptz"),
    "daterange": (3912, 3913, 4535, 6155, "date"),
    "int8range": (3926, 3927, 4536, 6157, "int8"),
}


#: How many descriptions of results are cached.
_DESCRIPTIONS = 1000


class Loaders:
    """The loaders of a connection, by the OID of the type.

    :param texts: names of types that are loaded as text, as the server sends them.
    :param decode: decodes text in the session's encoding.
    """

    def __init__(
        self,
        zone: Zone = "server",
        texts: frozenset[str] = frozenset(),
        decode: Callable[[bytes], str] = bytes.decode,
    ) -> None:
        self.zone = zone
        self._session_decode = decode
        self._by_oid: dict[int, Loader] = {}
        self._names: dict[int, str] = {}
        self._described: dict[bytes, tuple[tuple[Column, ...], tuple[Loader, ...]]] = {}
        base = {name: loader for name, (_, _, loader) in _BASE.items()}
        base["timestamptz"] = timestamptz_loader(zone)
        base.update(dict.fromkeys(texts, _decode))
        for name, (oid, array_oid, _) in _BASE.items():
            self.register(name, oid, array_oid, base[name])
        for name, oid, array_oid in _TEXTS:
            self.register(name, oid, array_oid)
        for name, (oid, array_oid, multirange, multirange_array, of) in _RANGES.items():
            self.register(name, oid, array_oid, range_loader(name, base[of]))
            self.register(
                name.replace("range", "multirange"),
                *(multirange, multirange_array, multirange_loader(name, base[of])),
            )

    def register(self, name: str, oid: int, array_oid: int = 0, load: Loader | None = None) -> None:
        """Load the type *name*, and arrays of it, by *load*; by default as text."""
        load = load or _decode
        self._described.clear()
        if oid:
            self._by_oid[oid], self._names[oid] = load, name
        if array_oid:
            self._by_oid[array_oid], self._names[array_oid] = array_loader(load), f"{name}[]"

    def describe(self, data: bytes) -> tuple[tuple[Column, ...], tuple[Loader, ...]]:
        """Return the columns of a RowDescription, and the loader of each.

        Unknown types are loaded as text.
        """
        known = self._described.get(data)
        if known is None:
            columns = columns_of(data, self._names, self._session_decode)
            find = self._by_oid.get
            known = (
                columns,
                tuple(self._for_session(find(column.type_code, _decode)) for column in columns),
            )
            if len(self._described) >= _DESCRIPTIONS:
                self._described.clear()
            self._described[data] = known
        return known

    def _for_session(self, load: Loader) -> Loader:
        """Return *load*, which expects UTF-8, adapted to the session's encoding.

        A value is converted before it is parsed, because in SJIS, for example, the byte of a
        backslash can be part of a letter.
        """
        decode = self._session_decode
        if decode is bytes.decode:
            return load
        return decode if load is _decode else lambda data: load(decode(data).encode())
