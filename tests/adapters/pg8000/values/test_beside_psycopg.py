"""What a value is to the server, and what comes back, beside psycopg's ``ClientCursor``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from uuid import UUID

import pytest

from relet.adapters.pg8000.errors import error_class
from relet.adapters.pg8000.literals import literal
from relet.adapters.pg8000.loaders import Loaders

from .values import plain

psycopg = pytest.importorskip("psycopg")

from psycopg import errors  # noqa: E402
from psycopg.types.json import Json, Jsonb  # noqa: E402
from psycopg.types.multirange import Multirange  # noqa: E402
from psycopg.types.numeric import Int2, Int4, Int8  # noqa: E402
from psycopg.types.range import Range  # noqa: E402

Color = Enum("Color", ["RED"])
Level = IntEnum("Level", {"LOW": -1, "HIGH": 70000})
_naive, _aware = datetime(2000, 1, 2, 3, 4, 5, 6), datetime(2000, 1, 2, tzinfo=timezone.utc)  # noqa: DTZ001

VALUES = [
    *(None, True, False, "", "it's \\", "\u20ac", b"", b"\0\\'\xff", bytearray(b"a"), Color.RED),
    *(0, 1, -1, 32767, -32768, 32768, -32769, 2**31, -(2**31), 2**63, -(2**63), 10**30, Level.LOW),
    *(0.0, -0.0, 1.5, -1.5, 1e300, 1e-300, 1e16, float("inf"), float("-inf"), float("nan")),
    *(Decimal(0), Decimal("-1.50"), Decimal("1E+3"), Decimal("NaN"), Decimal("sNaN")),
    *(Decimal("Infinity"), Decimal("-Infinity"), Int2(1), Int4(-1), Int8(1)),
    *(date(1, 1, 1), date(9999, 12, 31), _naive, _aware),
    datetime(2000, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    *(time(1, 2, 3, 4), time(1, 2, tzinfo=timezone(-timedelta(hours=3, minutes=30)))),
    *(timedelta(0), timedelta.min, timedelta.max, timedelta(-1, 2, 3), timedelta(1, -1)),
    UUID(int=5),
    *(ip_address("192.168.0.1"), ip_address("::1"), ip_interface("192.168.0.1/24")),
    *(ip_interface("::1/64"), ip_network("192.168.0.0/24"), ip_network("::/0")),
    *(Json({"a": [1, None, "\u20ac"]}), Jsonb([1.5, {}]), Jsonb("x"), Json(None)),
    *(Json(1, dumps=lambda value: "[2]"), Jsonb(1, dumps=lambda value: b"[2]")),
    *([], [None], ["a", None, "NULL", "", "{", 'b"\\'], [[1, 2], [3, None]], [1, 40000]),
    *([-32768, 1], [2**40], [2**64], [1.5, -1e300], [Decimal("1.5")], [True, None], [b"a", None]),
    *([_naive], [_aware], [_naive.date()], [_naive.time()], [timedelta(1)], [UUID(int=5)]),
    *([ip_address("::1"), ip_address("127.0.0.1")], [Jsonb({"a": '"'})], [Json(1)], [Color.RED]),
    *([Int2(1)], [Int8(1), None], [Level.LOW], [(1, "a"), (2, None)]),
    *((), (1, None, "a,b", ""), ([1, 2], "x")),
    *(
        Range(empty=True),
        Range(1, 5),
        Range(None, None, "()"),
        Range(2**40, None),
        Range(1, 2, "[]"),
    ),
    *(Range(Decimal("1.5"), None), Range(_naive.date(), None), Range(None, _aware, "(]")),
    *(
        [Range(Decimal(1), Decimal(2))],
        [Range(empty=True), Range(Decimal(1))],
        [Range(_aware, None)],
        Range("a b", "c,d"),
    ),
    *(Multirange([]), Multirange([Range(1, 2), Range(5, None)])),
]
#: What is meant to be otherwise: what our type is, psycopg's, and why.
OTHERWISE = [
    ({"a": 1}, "jsonb", None, "Django passes dicts for JSON in places; psycopg has no dumper"),
    (
        *(Range(_naive, None), "unknown", "tsrange"),
        "Django passes naive ones for tstzrange: their place decides",
    ),
    ([1, Int8(1)], "bigint[]", None, "psycopg has no lists of integers of several types"),
    ([1, Level.HIGH], "integer[]", None, "as before"),
    ([Level.HIGH, Level.LOW], "integer[]", None, "psycopg looks at the last one alone"),
]


@pytest.fixture(scope="module")
def theirs(server_uri: str) -> Iterator[Any]:
    with psycopg.connect(
        server_uri, autocommit=True, cursor_factory=psycopg.ClientCursor
    ) as connection:
        yield connection


def answer(connection: Any, value: Any) -> tuple[str, Any]:
    """Return the type that *value* has to the server, and what comes back for it."""
    cursor = connection.cursor()
    cursor.execute("SELECT pg_typeof(%s)::text, %s", [value, value])
    return cursor.fetchone()


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values(value: Any, connection: Any, theirs: Any) -> None:
    (our_type, ours), (their_type, their) = answer(connection, value), answer(theirs, value)
    assert our_type == their_type
    assert plain(ours) == plain(their)


@pytest.mark.parametrize(("value", "ours", "their", "why"), OTHERWISE, ids=repr)
def test_what_is_meant_to_be_otherwise(
    value: Any, ours: str, their: str | None, why: str, connection: Any, theirs: Any
) -> None:
    assert answer(connection, value)[0] == ours
    if their is None:
        with pytest.raises(psycopg.Error):
            answer(theirs, value)
    else:
        assert answer(theirs, value)[0] == their


@pytest.mark.parametrize(
    "sql",
    [
        "1::numeric(7,3)",
        "1::numeric(5,-2)",
        "1::numeric",
        "'a'::varchar(5)",
        "'a'::varchar",
        "'a'::char(2)",
        "'a'::text",
        "now()::time(3)",
        "now()::timestamptz(0)",
        "'1 day'::interval(2)",
        "'1'::interval day to second",
        "B'101'::bit(3)",
        "B'101'::varbit(5)",
        "B'101'",
        "1",
        "1::int8",
        "true",
        "'{1}'::int[]",
        "'(1,2)'::point",
        "NULL",
    ],
)
def test_descriptions(sql: str, connection: Any, theirs: Any) -> None:
    if "-2" in sql and connection.info.server_version < 150000:
        pytest.skip("PostgreSQL 15 has negative scales, and no server before")
    cursors = connection.cursor(), theirs.cursor()
    ((ours,), (their,)) = (
        cursor.execute(f'SELECT {sql} AS "a B"').description for cursor in cursors
    )
    assert tuple(ours) == tuple(their)


#: Types of which psycopg and we have a loader; of the others both leave the text.
LOADED = [
    *("'t'::bool", "'a'::\"char\"", "'a'::name", "'1 2'::int2vector", "'1 2'::oidvector"),
    *("1::oid", "'pg_class'::regclass", "1.5::float4", "'1.5'::money", "'1'::xid"),
    *("'08:00:2b:01:02:03'::macaddr", "B'101'", "'1/2'::pg_lsn", "'$.a'::jsonpath", "'a'::tsquery"),
    *("'a b'::tsvector", "'(1,2)'::point", "'(0,0),(1,1)'::box", "'int'::regtype", "'a'::unknown"),
    *("ROW(1, 'a', NULL)", "ARRAY[ROW(1, '\"')]", "'[0:1]={1,2}'::int[]", "ARRAY['a'::\"char\"]"),
    *("ARRAY['a'::name]", "ARRAY[B'101']", "ARRAY['(1,2)'::point]", "ARRAY['pg_class'::regclass]"),
    *("ARRAY['{[1,2)}'::int4multirange]", "'{[1,2)}'::int8multirange", "ARRAY['1 day'::interval]"),
    *("'1 year 2 mons -3 days'::interval", "ARRAY['1.5'::money]", "ARRAY['a b'::tsvector]"),
    *("'2000-01-02 03:04:05.6+07:30'::timestamptz", "'03:04:05.6+07:30'::timetz"),
    *("ARRAY['empty'::daterange, '[2000-01-02,2000-01-03]']", "'{}'::text[]", "NULL::int[]"),
]


@pytest.mark.parametrize("sql", LOADED)
def test_loaded(sql: str, connection: Any, theirs: Any) -> None:
    if "multirange" in sql and connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 has multiranges, and no server before")
    ((ours,),) = connection.run(f"SELECT {sql}")
    ((their,),) = theirs.execute(f"SELECT {sql}").fetchall()
    assert plain(ours) == plain(their)


def test_types_have_the_oids_that_psycopg_knows() -> None:
    names = Loaders()._names
    for oid, name in names.items():
        if not name.endswith("[]"):
            info = psycopg.adapters.types.get(oid)
            assert info.name.strip('"') == name
            assert names[info.array_oid] == f"{name}[]"
    missing = {info.name for info in psycopg.adapters.types if info.oid not in names}
    assert missing == {"box"}


def test_errors_have_the_classes_of_psycopg() -> None:
    states = {
        kind.sqlstate
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, psycopg.Error) and kind.sqlstate
    }
    assert len(states) > 200
    for state in states:
        assert _pep_249(error_class(state)) == _pep_249(errors.lookup(state)), state
    assert error_class("") is error_class("ZZ999")
    assert error_class("").__name__ == "DatabaseError"


def _pep_249(kind: type) -> str:
    names = {
        *("OperationalError", "ProgrammingError", "InternalError", "DataError"),
        *("IntegrityError", "NotSupportedError", "DatabaseError"),
    }
    return next(base.__name__ for base in kind.__mro__ if base.__name__ in names)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_literals_that_are_not_strings_are_the_same(value: Any, theirs: Any) -> None:
    ours = literal(value)
    if "'" not in ours:
        assert theirs.cursor().mogrify("%s", [value]) == ours


#: What may stand before a placeholder, and make a constant of it together; and after it.
PREFIXES = [
    *("x", "B", "E", "e", "N", "U&", "r", "x ", "E\n", "x/**/", "U& "),
    *(
        "date ",
        "time",
        "timestamptz(0) ",
        "timestamp(0) with time zone",
        "text",
        "DATE\t",
        "DOUBLE ",
    ),
    *("interval ", "interval(3) ", "interval -- c\n ", "interval/* /* 1 */ */(3)--%%\n", "bit(3)"),
    *("time with time zone ", "double precision ", "int ", "json ", "bit varying(2) ", "dec(2)"),
    *("character varying(2) ", "national character varying ", '"char" ', "pg_catalog.date "),
    *("'a'\n", "'a' ", "E'a'\n", "B'1'\n", "1-", "- ", "x'1' ", "5", "a", "$", "array["),
    *("$$", "$$%%s$$", "'", "'it''s ", '"', "E'\\", "/*", "-- "),
    "'2000-01-02 03:04Z'::timestamptz at time zone ",
]
SUFFIXES = [
    *("", "::text", "\n::int", "::bit(3)", "/* c */::text", "-- c\n ::text", "::date", "[1]"),
    *(" UESCAPE '!'", "::text'", "::text$$", "::text */ 1"),
]
NEIGHBOURS = [
    *("ff", "101", "it's", "a\\b", "!0041", "1 day", "2000-01-02 03:04:05.6"),
    *(5, -1, -1.5, None, date(2000, 1, 2), [1, 2], Level.LOW),
]
#: Where a negative number, or an array, is one thing here: -1::text is the text of -1.
TOGETHER = re.compile(r"\s*(?:/\* c \*/|-- c\n )?(?:::|\[)")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_next_to_others(suffix: str, connection: Any, theirs: Any) -> None:
    for prefix, value in itertools.product(PREFIXES, NEIGHBOURS):
        sql = f"SELECT {prefix}%s{suffix}"
        ours, their = (outcome(each, sql, value) for each in (connection, theirs))
        if ours != their:
            context = (sql, value, ours, their)
            assert TOGETHER.match(suffix), context
            # What is an error with psycopg may be taken for what it is meant to be; and what
            # makes no sense, such as 5%s::int, may be an error here.
            assert isinstance(value, (int, float)) or "[" in suffix, context
            assert isinstance(their, str) or isinstance(ours, str), context


def outcome(connection: Any, sql: str, value: Any) -> Any:
    """Return what comes back, or the name of the error that it is."""
    try:
        rows = connection.cursor().execute(sql, [value]).fetchall()
    except Exception as error:
        return _pep_249(type(error))
    return [[plain(found) for found in row] for row in rows]
