"""Values of every type that a parameter can have, and how they are told to be the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface
from json import dumps
from typing import Any

from hypothesis import strategies as st

from relet.adapters.pg8000.dbapi import Int2, Int4, Int8, Json, Jsonb, Range

#: What ends literals, begins comments, or parts what is nested.
HOSTILE = "'\"\\{}()[],;:%$-/*=>\n\r\t\x0b\x0c\x1f\x7f \xa0\u2028\u2019\u02bc\uff07ENULnulxX0é中😀"
FRAGMENTS = (
    *("'", "''", "\\'", "\\", "\\\\", "' OR 1=1 --", "'; SELECT 1; --", "E'", "E'\\'", "U&'"),
    *("$$", "$a$", "--", "/*", "*/", ";", "%s", "%(a)s", "%%", "%", ":", "::int", "?", "$1"),
    *("NULL", "null", "{", "}", "{}", "(", ")", "[", "]", ",", '"', '""', '\\"', "=>", " "),
    *("\u2018", "\u2019", "\u02bc", "\uff07", "\n", "\r\n", "'\n'", "x'41'"),
    *("\x01", "\x7f", "\xa0", "\ufeff", "\ufffd"),
)

_any_character = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
#: Whatever a text can be to PostgreSQL.
texts = st.one_of(
    st.text(_any_character),
    st.text(HOSTILE),
    st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join),
    st.sampled_from(["", *FRAGMENTS]),
)
_short_texts = st.text(HOSTILE, max_size=6) | st.sampled_from(["", *FRAGMENTS])

#: PostgreSQL's are of less than 16 hours.
offsets = st.one_of(
    st.integers(-15 * 60, 15 * 60).map(lambda minutes: timedelta(minutes=minutes)),
    st.integers(-16 * 3600 + 1, 16 * 3600 - 1).map(lambda seconds: timedelta(seconds=seconds)),
)
_partial_offsets = st.timedeltas(timedelta(hours=-15), timedelta(hours=15))
#: A day at least from what Python can tell, whatever the zone.
zoned = st.datetimes(
    datetime(1, 1, 3),  # noqa: DTZ001
    datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.one_of(
        st.just(timezone.utc), st.timezones(), (offsets | _partial_offsets).map(timezone)
    ),
)
decimals = st.one_of(
    st.decimals(),
    st.decimals(allow_nan=False, allow_infinity=False, places=3),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
        st.integers(0, 1),
        st.lists(st.integers(0, 9), min_size=1, max_size=40).map(tuple),
        st.integers(-60, 60) | st.integers(-16000, 16000),
    ),
    st.sampled_from([Decimal(text) for text in ("NaN", "sNaN", "-NaN", "NaN7", "Infinity", "-0")]),
    st.just(Decimal("-Infinity")),
)
integers = st.one_of(
    st.integers(),
    st.integers(-(1 << 70), 1 << 70),
    st.builds(
        lambda sign, power, by: sign * (1 << power) + by,
        st.integers(-1, 1),
        st.integers(0, 80),
        st.integers(-1, 1),
    ),
    st.builds(lambda bits, by: (1 << bits) + by, st.sampled_from([15, 31, 63]), st.integers(-1, 1)),
    st.builds(lambda bits, by: by - (1 << bits), st.sampled_from([15, 31, 63]), st.integers(-1, 1)),
    st.integers(1, 4000).map(lambda power: 10**power),
)


def whole(bits: int) -> st.SearchStrategy[int]:
    """Return integers of *bits*, and those at their ends."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    return st.integers(low, high) | st.sampled_from([low, low + 1, -1, 0, 1, high])


def _json(texts: st.SearchStrategy[str], numbers: st.SearchStrategy[Any]) -> Any:
    leaves = st.none() | st.booleans() | st.integers() | numbers | texts
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(_short_texts, inner, max_size=3)
        ),
        max_leaves=5,
    )


#: As ``json`` it is sent back as it is; ``jsonb`` writes numbers in its own way.
json_values = _json(texts, st.floats(allow_nan=False, allow_infinity=False))
jsonb_values = _json(texts, st.floats(-1e9, 1e9))
dicts = st.dictionaries(_short_texts, jsonb_values, max_size=3)
hstores = st.dictionaries(texts, st.none() | texts, max_size=4)
encoders = st.sampled_from(
    [
        None,
        partial(dumps, ensure_ascii=False),
        partial(dumps, indent=1, separators=(" ,\t", " :\n")),
        lambda value: dumps(value, ensure_ascii=False).encode(),
    ]
)


def _ranges(bounds: st.SearchStrategy[Any], smallest: Any = None) -> st.SearchStrategy[Any]:
    """Return ranges; of discrete values, if there is a *smallest* step."""

    def make(pair: list[Any], kinds: str, unbounded: tuple[bool, bool]) -> Any:
        lower, upper = sorted(pair)
        low, high = (None if none else x for x, none in zip((lower, upper), unbounded, strict=True))
        return Range(low, high, kinds)

    made = st.builds(
        make,
        st.lists(bounds, min_size=2, max_size=2) | bounds.map(lambda bound: [bound, bound]),
        st.sampled_from(["[)", "[]", "()", "(]"]),
        st.tuples(*2 * [st.sampled_from([False, False, True])]),
    )
    return made | st.just(Range(empty=True))


def canonical(step: Any = None) -> Callable[[Any], Any]:
    """Return what makes of a range what the server makes of it."""

    def convert(value: Any) -> Any:
        lower, upper, kinds = value.lower, value.upper, value.bounds
        if step is not None and kinds:
            lower = lower + step if lower is not None and kinds[0] == "(" else lower
            upper = upper + step if upper is not None and kinds[1] == "]" else upper
            kinds = ("(" if lower is None else "[") + ")"
        bounded = lower is not None and upper is not None
        if bounded and (lower > upper or (lower == upper and kinds != "[]")):
            return Range(empty=True)
        return Range(lower, upper, kinds or "[)", empty=value.isempty)

    return convert


def _interface(value: Any) -> Any:
    # inet does not tell an address from an interface that is alone in its network.
    alone = value.network.prefixlen == value.max_prefixlen
    return value.ip if alone else value


def _enum_name(name: str) -> bool:
    return bool(name) and not name.startswith("_") and name not in ("mro", "name", "value")


def _named(name: str) -> Any:
    return Enum("Named", {name: 1})[name]


def _str_enum(text: str) -> Any:
    return Enum("Text", {"only": text}, type=str)["only"]


class Name(str):
    """A text of a subclass."""


class Color(IntEnum):
    """Numbers with names."""

    RED = 1
    LOW = -32769
    HUGE = 10**20


@dataclass(frozen=True)
class Kind:
    """Values of a kind.

    :param type: the SQL type that they are cast to.
    :param back: what makes of a value what comes back for it.
    :param shown: the SQL type that they are cast to after that, if any.
    """

    type: str
    values: st.SearchStrategy[Any]
    back: Callable[[Any], Any] = lambda value: value
    shown: str = ""

    def sql(self, dimensions: str = "") -> str:
        shown = f"::{self.shown}{dimensions}" if self.shown else ""
        return f"SELECT %s::{self.type}{dimensions}{shown}"


KINDS: dict[str, Kind] = {
    "str": Kind("text", texts),
    "str subclass": Kind("text", texts.map(Name), str),
    "str as varchar": Kind("varchar", texts),
    "bytes": Kind("bytea", st.binary() | texts.map(str.encode)),
    "bytearray": Kind("bytea", st.binary().map(bytearray), bytes),
    "memoryview": Kind("bytea", st.binary().map(lambda data: memoryview(data)[::2]), bytes),
    "int": Kind("numeric", integers, Decimal),
    "int2": Kind("int2", whole(16)),
    "int4": Kind("int4", whole(32)),
    "int8": Kind("int8", whole(64)),
    "Int2": Kind("int2", whole(16).map(Int2), int),
    "Int4": Kind("int4", whole(32).map(Int4), int),
    "Int8": Kind("int8", whole(64).map(Int8), int),
    "float": Kind("float8", st.floats()),
    "float of 32 bits": Kind("float4", st.floats(width=32), shown="float8"),
    "Decimal": Kind("numeric", decimals),
    "bool": Kind("bool", st.booleans()),
    "None": Kind("text", st.none()),
    "date": Kind("date", st.dates()),
    "datetime": Kind("timestamp", st.datetimes()),
    "datetime with a zone": Kind("timestamptz", zoned),
    "time": Kind("time", st.times()),
    "time with a zone": Kind("timetz", st.times(timezones=offsets.map(timezone))),
    "timedelta": Kind("interval", st.timedeltas()),
    "UUID": Kind("uuid", st.uuids()),
    "IPv4Address": Kind("inet", st.ip_addresses(v=4)),
    "IPv6Address": Kind("inet", st.ip_addresses(v=6)),
    "IPv4Interface": Kind(
        "inet",
        st.builds(IPv4Interface, st.tuples(st.ip_addresses(v=4), st.integers(0, 32))),
        _interface,
    ),
    "IPv6Interface": Kind(
        "inet",
        st.builds(IPv6Interface, st.tuples(st.ip_addresses(v=6), st.integers(0, 128))),
        _interface,
    ),
    "IPv4Network": Kind(
        "cidr",
        st.builds(IPv4Interface, st.tuples(st.ip_addresses(v=4), st.integers(0, 32))).map(
            lambda interface: interface.network
        ),
    ),
    "IPv6Network": Kind(
        "cidr",
        st.builds(IPv6Interface, st.tuples(st.ip_addresses(v=6), st.integers(0, 128))).map(
            lambda interface: interface.network
        ),
    ),
    "Enum": Kind(
        "text",
        texts.filter(_enum_name).map(_named),
        lambda member: member.name,
    ),
    "str Enum": Kind("text", texts.map(_str_enum), lambda member: member.value),
    "IntEnum": Kind("numeric", st.sampled_from(list(Color)), Decimal),
    "dict": Kind("jsonb", dicts),
    "Json": Kind("json", st.builds(Json, json_values, encoders), lambda json: json.obj),
    "Jsonb": Kind("jsonb", st.builds(Jsonb, jsonb_values, encoders), lambda json: json.obj),
    "int4range": Kind("int4range", _ranges(st.integers(-(2**31), 2**31 - 2)), canonical(1)),
    "int8range": Kind("int8range", _ranges(st.integers(-(2**63), 2**63 - 2)), canonical(1)),
    "numrange": Kind("numrange", _ranges(decimals.filter(Decimal.is_finite)), canonical()),
    "daterange": Kind(
        "daterange",
        _ranges(st.dates(max_value=date(9999, 12, 30))),
        canonical(timedelta(days=1)),
    ),
    "tsrange": Kind("tsrange", _ranges(st.datetimes()), canonical()),
    "tstzrange": Kind(
        "tstzrange",
        _ranges(zoned.map(lambda value: value.astimezone(timezone.utc))),
        canonical(),
    ),
}


def arrays(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return lists of *elements* and None, of one, two and three dimensions."""
    items = st.none() | elements
    rows = st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(items, min_size=width, max_size=width), min_size=1, max_size=3
        )
    )
    boxes = rows.map(lambda row: [row, row])
    return st.lists(items, max_size=4) | rows | boxes


def convert(convert_one: Callable[[Any], Any], value: Any) -> Any:
    """Return *value* with what is in its lists, or itself, converted."""
    if isinstance(value, list):
        return [convert(convert_one, item) for item in value]
    return None if value is None else convert_one(value)


def plain(value: Any) -> Any:
    """Return *value* as something that is equal to that of a value that is the same."""
    if isinstance(value, (list, tuple)):
        return type(value), [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if hasattr(value, "lower_inc"):
        return "range", value.isempty, plain(value.lower), plain(value.upper), value.bounds
    if isinstance(value, Decimal) and value.is_nan():
        return "NaN"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, datetime) and value.tzinfo:
        # Those of two zones are never equal in the hour that is there twice.
        return "instant", value.astimezone(timezone.utc)
    if isinstance(value, time):
        return value.replace(tzinfo=None), value.utcoffset()
    return type(value), value
