"""No value is more than a literal: whatever it says, whatever its class does, in any session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, ip_address
from json import dumps
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relet.adapters.pg8000.dbapi import (
    DataError,
    Json,
    Jsonb,
    ProgrammingError,
    Range,
    identifier,
    register,
)

from .values import FRAGMENTS, plain, texts

EXAMPLES = int(os.environ.get("RELET_EXAMPLES", "10"))
INJECTED = "', 'injected'); SELECT 'injected' --"

hostile = texts | st.lists(
    st.sampled_from([*FRAGMENTS, INJECTED, "\\'); SELECT 1; --", "1); SELECT 1; --", "}'", ")'"]),
    max_size=5,
).map("".join)

SESSIONS = {
    "as it is": "",
    "standard_conforming_strings": "SET standard_conforming_strings = off",
    "backslash_quote": "SET standard_conforming_strings = off; SET backslash_quote = on",
    "no backslash_quote": "SET standard_conforming_strings = off; SET backslash_quote = off",
    "bytea_output": "SET standard_conforming_strings = off; SET bytea_output = escape",
    "styles": "SET DateStyle = 'SQL, DMY'; SET IntervalStyle = sql_standard",
    "german": "SET DateStyle = 'German, DMY'; SET IntervalStyle = iso_8601",
}


@pytest.fixture(scope="module", params=SESSIONS)
def session(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> Iterator[Any]:
    connection = connect()
    connection.run("CREATE TYPE pg_temp.pair AS (a text, b text)")
    connection.run('CREATE TYPE pg_temp.texts AS RANGE (subtype = text, collation = "C")')
    connection.run(SESSIONS[request.param])
    yield connection
    connection.close()


def _bad(*args: Any, **named: Any) -> Any:
    return INJECTED


_KEPT = (
    *("__new__", "__init__", "__class__", "__getattribute__", "__setattr__", "__delattr__"),
    *("__init_subclass__", "__subclasshook__", "__dir__", "__hash__", "__reduce__"),
    *("__reduce_ex__", "__class_getitem__"),
)


def _worst(base: type, **own: Any) -> Any:
    """Return a subclass of *base* that overrides all that it can, to return SQL."""
    methods = {
        name: _bad
        for name in dir(base)
        if name not in _KEPT
        and (name.startswith("__") or not name.startswith("_"))
        and callable(getattr(base, name))
    }
    return type(f"Worst{base.__name__}", (base,), {"__hash__": base.__hash__, **methods, **own})


WorstStr = _worst(str, __contains__=lambda self, what: False, __len__=lambda self: 0)


@dataclass
class Lazy:
    """What is made a text of when it is passed."""

    text: str


register(Lazy, lambda lazy: lazy.text)


def _enum(text: str, kind: type = str) -> Any:
    return Enum("Named", {"member": 1, "name": property(lambda self: kind(text))}).member


def _members(text: str) -> Any:
    return Enum("Text", {"member": text}, type=str)["member"]


@dataclass(frozen=True)
class Carrier:
    """A parameter with a text in it.

    :param sql: an expression; the text is what it comes to.
    """

    make: Callable[[str], Any]
    sql: str = "%s"
    back: Callable[[str], Any] = lambda text: text


CARRIERS = {
    "str": Carrier(lambda text: text),
    "str, cast": Carrier(lambda text: text, "%s::text"),
    "worst str": Carrier(WorstStr),
    "lazy": Carrier(Lazy),
    "lazy of worst str": Carrier(lambda text: Lazy(WorstStr(text))),
    "Enum": Carrier(_enum),
    "worst Enum": Carrier(lambda text: _enum(text, WorstStr)),
    "str Enum": Carrier(_members),
    "bytes": Carrier(lambda text: text.encode(), back=str.encode),
    "bytearray": Carrier(lambda text: bytearray(text.encode()), back=str.encode),
    "dict": Carrier(lambda text: {text: [text]}, back=lambda text: {text: [text]}),
    "worst key": Carrier(lambda text: {WorstStr(text): 1}, back=lambda text: {text: 1}),
    "Json": Carrier(lambda text: Json(text), "%s"),
    "Jsonb": Carrier(lambda text: Jsonb([text]), "%s->>0"),
    "JSON of worst str": Carrier(lambda text: Json(text, lambda value: WorstStr(dumps(value)))),
    "JSON of bytes": Carrier(lambda text: Json(text, lambda value: dumps(value).encode())),
    "JSON, not ASCII": Carrier(
        lambda text: Jsonb(text, lambda value: dumps(value, ensure_ascii=False))
    ),
    "list": Carrier(lambda text: [text, None, text], "%s::text[]", lambda text: [text, None, text]),
    "nested list": Carrier(lambda text: [[text], [text]], "(%s::text[])[2][1]"),
    "list of worst str": Carrier(lambda text: [WorstStr(text)] * 2, "%s::text[]", lambda t: [t, t]),
    "list of lazy": Carrier(lambda text: [Lazy(text)], "%s::text[]", lambda text: [text]),
    "list of Enum": Carrier(lambda text: [_enum(text, WorstStr)], "%s::text[]", lambda t: [t]),
    "list of bytes": Carrier(lambda text: [text.encode()], "%s", lambda text: [text.encode()]),
    "list of dict": Carrier(lambda text: [{text: text}], "%s", lambda text: [{text: text}]),
    "tuple": Carrier(lambda text: (text, "x"), "(%s::pg_temp.pair).a"),
    "tuple of worst str": Carrier(lambda text: ("x", WorstStr(text)), "(%s::pg_temp.pair).b"),
    "list of tuple": Carrier(lambda text: [(text, None)], "(%s::pg_temp.pair[])[1].a"),
    "range": Carrier(lambda text: Range(text), "lower(%s::pg_temp.texts)"),
    "range of Enum": Carrier(lambda text: Range(_enum(text, WorstStr)), "lower(%s::pg_temp.texts)"),
    "range of worst str": Carrier(
        lambda text: Range(None, WorstStr(text)), "upper(%s::pg_temp.texts)"
    ),
}


def each(values: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    given(values)(
        settings(
            max_examples=EXAMPLES,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(check)
    )()


def only_row(connection: Any, sql: str, parameters: Any) -> Any:
    """Return the row of the only statement that *sql* has become, if it is that."""
    cursor = connection.cursor()
    (row,) = cursor.execute(sql, parameters).fetchall()
    assert cursor.nextset() is None
    return row


@pytest.mark.slow
@pytest.mark.parametrize("name", CARRIERS)
def test_text_is_no_sql(name: str, session: Any) -> None:
    carrier = CARRIERS[name]

    def check(text: str) -> None:
        row = only_row(session, f"SELECT {carrier.sql}, 'marker'", [carrier.make(text)])
        assert row == (carrier.back(text), "marker")

    each(hostile, check)


def test_text_between_others(session: Any) -> None:
    def check(values: list[str]) -> None:
        one, two, three = values
        sql = "SELECT %(one)s, 'it''s', %(two)s||%(three)s||%(one)s, '%%s', 'marker'"
        row = only_row(session, sql, {"one": one, "two": two, "three": three})
        assert row == (one, "it's", two + three + one, "%s", "marker")

    each(st.lists(hostile, min_size=3, max_size=3), check)


@pytest.mark.parametrize("standard", ["on", "off"])
def test_hstore_is_no_sql(standard: str, with_hstore: Any) -> None:
    with_hstore.run(f"SET LOCAL standard_conforming_strings = {standard}")

    def check(value: Any) -> None:
        (key, text) = value
        for sent in {key: text}, {WorstStr(key): WorstStr(text)}:
            row = only_row(with_hstore, "SELECT %s, %s, 'marker'", [sent, [sent]])
            assert row == ({key: text}, [{key: text}], "marker")

    each(st.tuples(hostile, hostile), check)


def test_identifiers_are_no_sql(connection: Any) -> None:
    def check(name: str) -> None:
        cursor = connection.cursor()
        assert cursor.execute(f"SELECT 1 AS {identifier(WorstStr(name))}").fetchall() == [(1,)]
        assert [column.name for column in cursor.description] == [name]

    each(hostile.filter(lambda name: 0 < len(name.encode()) < 64), check)


_address = IPv4Address("192.168.0.1")
_uuid = UUID(int=5)
_moment = datetime(2001, 2, 3, 4, 5, 6, 7, timezone.utc)

#: What its class says of itself is not asked for.
WORST = {
    "int": (_worst(int)(-5), -5),
    "float": (_worst(float)(-1.5), Decimal("-1.5")),
    "nan": (_worst(float)("inf"), float("inf")),
    "Decimal": (_worst(Decimal)("-2.50"), Decimal("-2.50")),
    "Infinity": (_worst(Decimal)("Infinity"), Decimal("Infinity")),
    "bytes": (_worst(bytes, __bytes__=lambda self: b"x")(b"y"), b"x"),
    "UUID": (_worst(UUID)(int=5), _uuid),
    "date": (_worst(date)(2001, 2, 3), date(2001, 2, 3)),
    "time": (_worst(time, utcoffset=time.utcoffset)(4, 5), time(4, 5)),
    "datetime": (
        _worst(datetime, utcoffset=datetime.utcoffset)(2001, 2, 3, 4, 5, 6, 7, timezone.utc),
        _moment,
    ),
    "timedelta": (_worst(timedelta)(1, -1), timedelta(1, -1)),
    "IPv4Address": (_worst(IPv4Address)("192.168.0.1"), _address),
    "list": ([_worst(int)(7), _worst(int)(1 << 40)], [7, 1 << 40]),
    "list of float": ([_worst(float)(7)], [7.0]),
    "list of UUID": ([_worst(UUID)(int=5)], [_uuid]),
}


@pytest.mark.parametrize("standard", ["on", "off"])
@pytest.mark.parametrize("name", WORST)
def test_no_method_of_a_subclass_is_asked(name: str, standard: str, fresh: Any) -> None:
    fresh.run(f"SET standard_conforming_strings = {standard}")
    value, expected = WORST[name]
    found, marker = only_row(fresh, "SELECT %s, 'marker'", [value])
    assert plain(found) == plain(expected)
    assert marker == "marker"


def test_the_scope_of_an_address_is_no_sql(connection: Any) -> None:
    address = ip_address(f"fe80::1%{INJECTED.replace('/', '')}")
    with pytest.raises(DataError, match="invalid input syntax for type inet"):
        connection.cursor().execute("SELECT %s", [address])


@pytest.mark.parametrize("kind", [object, set, frozenset, range, complex, type, slice])
def test_no_other_type_is_taken(kind: Any, connection: Any) -> None:
    worst = type("Worst", (), {"__str__": _bad, "__repr__": _bad, "__class__": str})()
    for value in worst, kind, [worst], (worst,):
        with pytest.raises(ProgrammingError, match="cannot make a literal of a value of type"):
            connection.cursor().execute("SELECT %s", [value])


EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
TIMES = {
    "timestamptz": (
        st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones()),  # noqa: DTZ001
        lambda value: (value - EPOCH) // timedelta(microseconds=1),
    ),
    "timestamp": (
        st.datetimes(),
        lambda value: (value.replace(tzinfo=timezone.utc) - EPOCH) // timedelta(microseconds=1),
    ),
    "date": (st.dates(), lambda value: (value - EPOCH.date()) // timedelta(microseconds=1)),
    "interval": (st.timedeltas(), lambda value: value // timedelta(microseconds=1)),
}


@pytest.mark.parametrize("name", TIMES)
def test_no_style_changes_a_time(name: str, session: Any) -> None:
    values, microseconds = TIMES[name]

    def check(value: Any) -> None:
        row = only_row(session, f"SELECT extract(epoch FROM %s::{name})*1000000", [value])
        assert row == (microseconds(value),)

    each(values, check)


@pytest.mark.parametrize("encoding", ["EUC_JP", "SJIS"])
def test_no_encoding_makes_a_backslash(encoding: str, fresh: Any) -> None:
    # In Python's encodings, these two are the backslash and the tilde of Japan.
    fresh.run(f"SET client_encoding TO '{encoding}'; SET backslash_quote = on")
    for text in "\\\u00a5', 1 --", "\u203e":
        with pytest.raises(UnicodeEncodeError):
            fresh.cursor().execute("SELECT %s, 'marker'", [text])
    assert only_row(fresh, "SELECT %s, 'marker'", ["\u8868\\"]) == ("\u8868\\", "marker")
