"""What the server sends as text, as values of Python."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relet.adapters.pg8000 import loaders
from relet.adapters.pg8000.composites import load_hstore, load_record
from relet.adapters.pg8000.dbapi import DataError
from relet.adapters.pg8000.types import multirange_class, range_class

from .values import offsets, plain


def naive(*fields: int) -> datetime:
    return datetime(*fields)  # type: ignore[arg-type]  # noqa: DTZ001


def ask(connection: Any, sql: str) -> Any:
    ((value,),) = connection.cursor().execute(sql).fetchall()
    return value


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("'[0:1]={1,2}'::int[]", [1, 2]),
        ("'[-1:0][3:4]={{1,2},{3,NULL}}'::int[]", [[1, 2], [3, None]]),
        ("'[2:2]={\"{a,b}\"}'::text[]", ["{a,b}"]),
        ('\'[0:0][0:0][0:1]={{{"a\\"b",NULL}}}\'::text[]', [[['a"b', None]]]),
        ("'{{{1},{2}},{{3},{4}}}'::int[]", [[[1], [2]], [[3], [4]]]),
        ("'{}'::text[]", []),
        ("'{{},{}}'::text[]", []),
        ("ARRAY[NULL]::text[]", [None]),
        ("ARRAY['NULL', 'null', NULL]", ["NULL", "null", None]),
        (
            "ARRAY['', ' ', 'a b', ',', '{', '}', '\"', E'\\\\', E'\\n']",
            ["", " ", "a b", ",", "{", "}", '"', "\\", "\n"],
        ),
        ("ARRAY[true, false, NULL]", [True, False, None]),
        ("ARRAY[1.50, 1e5]", [Decimal("1.50"), Decimal(100000)]),
        ("ARRAY['2000-01-02'::date]", [date(2000, 1, 2)]),
        ("ARRAY['2000-01-02 03:04'::timestamp]", [naive(2000, 1, 2, 3, 4)]),
        ("ARRAY['1 day -00:00:01'::interval]", [timedelta(1, -1)]),
        ('ARRAY[\'{"a": [1, "}"]}\'::jsonb]', [{"a": [1, "}"]}]),
        ("ARRAY['\\x00ff'::bytea, '\\x']", [b"\0\xff", b""]),
        ("ARRAY[ROW(1, 'a,\"b'), ROW(NULL, '')]", [("1", 'a,"b'), (None, "")]),
        (
            "ROW(1, NULL, '', 'a b', '(', E'\\\\', '\"', ',', '\"\"', E'\\\\\"')",
            ("1", None, "", "a b", "(", "\\", '"', ",", '""', '\\"'),
        ),
        ("ROW()", ()),
        ("ROW(ROW(1, 'a,b'), ARRAY['x y'])", ('(1,"a,b")', '{"x y"}')),
        ("ROW('\u20ac', E'\\n')", ("\u20ac", "\n")),
        ("'a'::\"char\"", "a"),
        ("'ab'::char(3)", "ab "),
        ("'ab'::name", "ab"),
        ("7::oid", 7),
        ("1.5::float4", 1.5),
        ("'-Infinity'::float8", float("-inf")),
        ("'null'::jsonb", None),
        ("'192.168.0.1'::inet", IPv4Address("192.168.0.1")),
        ("'192.168.0.1/24'::inet", IPv4Interface("192.168.0.1/24")),
        ("'192.168.0.0/24'::cidr", IPv4Network("192.168.0.0/24")),
        ("'00000000-0000-0000-0000-000000000005'::uuid", UUID(int=5)),
        ("'(1,2)'::point", "(1,2)"),
        ("'12.34'::money::numeric", Decimal("12.34")),
        ("B'101'", "101"),
        ("'{(1,1),(0,0);(2,2),(1,1)}'::box[]", "{(1,1),(0,0);(2,2),(1,1)}"),
    ],
)
def test_values(sql: str, expected: Any, connection: Any) -> None:
    assert ask(connection, f"SELECT {sql}") == expected


def _range(name: str, *bounds: Any, **empty: Any) -> Any:
    return range_class(name)(*bounds, **empty)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("'empty'::int4range", _range("int4range", empty=True)),
        ("'(,)'::int8range", _range("int8range", None, None, "()")),
        ("'[1,5]'::int4range", _range("int4range", 1, 6, "[)")),
        ("'(1.5,]'::numrange", _range("numrange", Decimal("1.5"), None, "()")),
        ("'[2000-01-02,)'::daterange", _range("daterange", date(2000, 1, 2), None, "[)")),
        (
            "'[2000-01-02 03:04,2000-01-02 03:05]'::tsrange",
            _range("tsrange", naive(2000, 1, 2, 3, 4), naive(2000, 1, 2, 3, 5), "[]"),
        ),
        (
            "'(2000-01-02 03:04+05:30,]'::tstzrange",
            _range("tstzrange", datetime(2000, 1, 1, 21, 34, tzinfo=timezone.utc), None, "()"),
        ),
        (
            "ARRAY['[1,3)'::int4range, 'empty']",
            [_range("int4range", 1, 3, "[)"), _range("int4range", empty=True)],
        ),
    ],
)
def test_ranges(sql: str, expected: Any, connection: Any) -> None:
    assert plain(ask(connection, f"SELECT {sql}")) == plain(expected)


def test_multiranges(connection: Any) -> None:
    if connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 has multiranges, and no server before")
    one = _range("nummultirange", Decimal(1), Decimal(3), "[)")
    two = _range("nummultirange", Decimal(5), None, "()")
    made = multirange_class([one, two])
    assert ask(connection, "SELECT '{[1,3),(5,)}'::nummultirange") == made
    assert ask(connection, "SELECT '{}'::nummultirange") == multirange_class([])
    assert ask(connection, "SELECT ARRAY['{[1,3),(5,)}'::nummultirange]") == [made]
    day = _range("tsmultirange", naive(2000, 1, 2), naive(2000, 1, 3), "[]")
    found = ask(connection, "SELECT '{[2000-01-02 00:00,2000-01-03 00:00]}'::tsmultirange")
    assert found == multirange_class([day])


def test_escaped_bytes(fresh: Any) -> None:
    fresh.run("SET bytea_output = escape")
    data = bytes(range(256)) + rb"\\\001\x00'"
    assert ask(fresh, f"SELECT '\\x{data.hex()}'::bytea") == data
    assert ask(fresh, f"SELECT ARRAY['\\x{data.hex()}'::bytea, '\\x']") == [data, b""]
    # What begins as if it were in hex cannot be told from it; the server writes it otherwise.
    assert ask(fresh, "SELECT '\\x5c7841'::bytea") == rb"\xA"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"00:00:00", timedelta()),
        (b"-00:00:00.000001", timedelta(microseconds=-1)),
        (b"1 day", timedelta(1)),
        (b"-1 days", timedelta(-1)),
        (b"-1 days +00:00:01", timedelta(-1, 1)),
        (b"1 day -00:00:01", timedelta(1, -1)),
        (b"-1 days -00:00:01.5", timedelta(-1, -1.5)),
        (b"1 year 2 mons 3 days 04:05:06.7", timedelta(365 + 60 + 3, 4 * 3600 + 5 * 60 + 6.7)),
        (b"-1 years -2 mons +3 days -04:05:06", timedelta(-365 - 60 + 3, -14706)),
        (b"2 years", timedelta(730)),
        (b"1000000:00:00", timedelta(hours=1000000)),
    ],
)
def test_intervals(text: bytes, expected: timedelta, connection: Any) -> None:
    assert loaders._interval(text) == expected
    assert ask(connection, f"SELECT interval '{text.decode()}'") == expected
    assert ask(connection, f"SELECT (interval '{text.decode()}')::text").encode() == text


@given(*[st.integers(-9, 9)] * 3, st.integers(-(10**11), 10**11))
def test_intervals_of_every_sign(years: int, months: int, days: int, microseconds: int) -> None:
    # As EncodeInterval() writes them, where the sign of a part depends on that before.
    parts, before = [], False
    for number, name in (years, "year"), (months, "mon"), (days, "day"):
        if number:
            sign = "+" if before and number > 0 else ""
            parts.append(f"{sign}{number} {name}{'' if number == 1 else 's'}")
            before = number < 0
    if microseconds or not parts:
        seconds, rest = divmod(abs(microseconds), 10**6)
        sign = "-" if microseconds < 0 else "+" if before else ""
        fraction = f".{rest:06}".rstrip("0") if rest else ""
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        parts.append(f"{sign}{clock}{fraction}")
    expected = timedelta(years * 365 + months * 30 + days, microseconds=microseconds)
    assert loaders._interval(" ".join(parts).encode()) == expected


@pytest.mark.parametrize("style", ["sql_standard", "postgres_verbose", "iso_8601"])
def test_another_style_of_intervals(style: str, fresh: Any) -> None:
    fresh.run(f"SET IntervalStyle = {style}")
    with pytest.raises(DataError, match="IntervalStyle must be postgres"):
        ask(fresh, "SELECT interval '1 year 2 mons -3 days'")
    assert ask(fresh, "SELECT 1") == 1


@pytest.mark.parametrize("style", ["SQL, DMY", "SQL, MDY", "German, DMY", "Postgres, DMY"])
def test_another_style_of_dates(style: str, fresh: Any) -> None:
    fresh.run(f"SET DateStyle = '{style}'")
    for name in "date", "timestamp", "timestamptz":
        with pytest.raises(DataError, match=f"cannot load the {name[:9]}.* DateStyle is not ISO"):
            ask(fresh, f"SELECT '2001-02-03'::{name}")
    assert ask(fresh, "SELECT 1") == 1


OUTSIDE = {
    "date": ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "20000-02-03"),
    "timestamp": ("infinity", "-infinity", "0044-03-15 BC", "20000-02-03 04:05", "10000-01-01"),
    "timestamptz": ("infinity", "-infinity", "0044-03-15 BC", "20000-02-03 04:05", "10000-01-03"),
    "time": ("24:00",),
    "timetz": ("24:00+00",),
    "interval": ("1000000000 days", "-178000000 years"),
}


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("zone", ["server", None, timezone.utc, ZoneInfo("Asia/Tokyo")], ids=str)
@pytest.mark.parametrize(("name", "text"), [(n, text) for n, ts in OUTSIDE.items() for text in ts])
def test_what_python_has_not(
    name: str, text: str, zone: Any, autocommit: bool, connection: Any
) -> None:
    connection.autocommit = autocommit
    cursor = connection.cursor()
    cursor.zone = zone
    value = f"'{text}'::{name}"
    twice = f"SELECT 1, {value} FROM (VALUES (1), (2)) AS x"
    for sql in f"SELECT {value}", f"SELECT ARRAY[{value}]", twice:
        if sys.version_info >= (3, 14) and "24:00" in sql:
            continue  # it takes that for midnight
        with pytest.raises(DataError, match=r"cannot load the (date|time|interval)"):
            cursor.execute(sql)
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    assert cursor.execute(f"SELECT ({value})::text, 2").fetchall()[0][1] == 2
    connection.rollback()
    connection.autocommit = True


@pytest.mark.parametrize("year", [1800, 2000])  # then, offsets had seconds
@pytest.mark.parametrize("session", ["UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin"])
def test_the_zone_of_the_session(session: str, year: int, fresh: Any) -> None:
    instant = datetime(year, 7, 1, 12, tzinfo=timezone.utc)
    there = instant.astimezone(ZoneInfo(session))
    fresh.run(f"SET TimeZone = '{session}'")
    cursor = fresh.cursor()
    for zone in "server", None, ZoneInfo("Asia/Tokyo"), timezone(timedelta(hours=5, minutes=30)):
        cursor.zone = zone
        cursor.execute("SELECT %s, ARRAY[%s], tstzrange(%s, NULL)", [instant] * 3)
        ((value, (element,), bounds),) = cursor.fetchall()
        assert value == element == bounds.lower
        if zone is None:
            assert value == there.replace(tzinfo=None)
        else:
            expected = there if zone == "server" else instant.astimezone(zone)
            assert (value, value.utcoffset()) == (instant, expected.utcoffset())


def test_what_is_next_to_the_end_of_time(fresh: Any) -> None:
    fresh.run("SET TimeZone = 'UTC'")
    cursor = fresh.cursor()
    cursor.zone = ZoneInfo("Asia/Tokyo")
    with pytest.raises(DataError, match="cannot load the timestamptz"):
        cursor.execute("SELECT '9999-12-31 23:00+00'::timestamptz")
    cursor.zone = timezone.utc
    cursor.execute("SELECT '9999-12-31 23:00+00'::timestamptz")
    assert cursor.fetchall() == [(datetime(9999, 12, 31, 23, tzinfo=timezone.utc),)]


@pytest.mark.parametrize("encoding", ["LATIN1", "SJIS", "EUC_JP", "GB18030"])
def test_another_encoding(encoding: str, fresh: Any) -> None:
    # In SJIS, the second bytes of these letters are a backslash and braces.
    fresh.run(f"SET client_encoding TO '{encoding}'")
    text = "\xe9" if encoding == "LATIN1" else "a\u8868}\u30dc,\u30de"
    cursor = fresh.cursor()
    sql = 'SELECT %s AS "{0}", ARRAY[%s], ARRAY[%s, %s], ROW(%s, 1), %s, to_jsonb(%s::text)'
    for plain_text in text, f"{text} '\\ \"":
        cursor.execute(sql.format(text), [*[plain_text] * 5, {"a": plain_text}, plain_text])
        one = plain_text
        expected = (one, [one], [one, one], (one, "1"), {"a": one}, one)
        assert cursor.fetchall() == [expected]
        assert cursor.description[0].name == text


def test_hstore_in_another_encoding(with_hstore: Any) -> None:
    with_hstore.run("SET LOCAL client_encoding TO 'LATIN1'")
    cursor = with_hstore.cursor()
    cursor.execute("SELECT %s, ARRAY[%s]", [{"\xe9": "\xe8"}] * 2)
    assert cursor.fetchall() == [({"\xe9": "\xe8"}, [{"\xe9": "\xe8"}])]
    with_hstore.run("SET LOCAL client_encoding TO 'UTF8'")


def test_what_is_nested_is_taken_apart() -> None:
    assert load_record(b"()") == ()
    assert load_record(b"(,)") == (None, None)
    assert load_record(b'("",a)') == ("", "a")
    # The server takes quotes and backslashes in the middle; it writes none there.
    assert load_record(rb'(a"b,"\c,d)') == ("ab,c", "d")
    assert loaders.array_loader(bytes.decode)(b'{"a\\\nb"}') == ["a\nb"]
    assert load_hstore(b"") == {}
    assert load_hstore(rb'"a\"\\"=>"", "NULL"=>NULL, "b"=>"NULL"') == {
        'a"\\': "",
        "NULL": None,
        "b": "NULL",
    }
    for text in b'{"1",{2}', b"[0:1]=", b'{"1"}}', b'{"1"}{2}':
        with pytest.raises(DataError, match="malformed text of an array"):
            loaders.array_loader(bytes.decode)(text)
    with pytest.raises(DataError, match="malformed text of a range"):
        loaders.range_loader("int4range", int)(b"[1")


def _as_in_python_3_10(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return *parse* for three digits or six of a second, and offsets with minutes, alone."""
    known = re.compile(r"(\S{10} )?\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?([-+]\d\d(:\d\d){1,2})?")

    def strict(text: str) -> Any:
        if not known.fullmatch(text):
            raise ValueError(text)
        return parse(text)

    return strict


@given(
    st.datetimes(timezones=st.none() | offsets.map(timezone)),
    st.integers(0, 6),
    st.booleans(),
)
def test_python_3_10_is_given_what_it_takes(value: datetime, digits: int, short: bool) -> None:
    value = value.replace(microsecond=value.microsecond // 10**digits * 10**digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders, "sys", SimpleNamespace(version_info=(3, 10)))
        load = loaders._iso(_as_in_python_3_10(datetime.fromisoformat))
        load_time = loaders._iso(_as_in_python_3_10(time.fromisoformat))
    # The server writes no zeros at the end of a fraction, nor minutes of an offset that are none.
    whole, dot, fraction = value.replace(tzinfo=None).isoformat(" ").partition(".")
    text = whole + (dot + fraction).rstrip("0")
    if value.tzinfo:
        offset = value.isoformat()[len(whole) + len(dot + fraction) :]
        text += offset.removesuffix(":00") if short else offset
    assert load(text) == value
    assert plain(load_time(text[11:])) == plain(value.timetz())


def test_descriptions(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT 1::numeric(7,3), 1::numeric, 'a'::varchar(5), 'a'::char(2), now()::time(3), "
        "'1 day'::interval(2), '1'::interval day to second, B'101'::bit(3), 1 AS a, 'a' AS \"\xe9\""
    )
    assert [column[2:6] for column in cursor.description] == [
        (None, None, 7, 3),
        (None, None, None, None),
        (5, None, None, None),
        (2, None, None, None),
        (None, 8, 3, None),
        (None, 16, 2, None),
        (None, 16, None, None),
        (3, None, None, None),
        (None, 4, None, None),
        (None, None, None, None),
    ]
    assert [column.name for column in cursor.description][-2:] == ["a", "\xe9"]
    assert [column.type_display for column in cursor.description][:3] == [
        *("numeric", "numeric", "varchar"),
    ]
