"""Parameters in statements: how they look there, and what is refused."""

from __future__ import annotations

from collections import OrderedDict, UserDict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relet.adapters.pg8000.dbapi import (
    DataError,
    Int8,
    Json,
    Jsonb,
    ProgrammingError,
    Range,
    identifier,
    literal,
)
from relet.adapters.pg8000.literals import hstore_text
from relet.adapters.pg8000.templates import template

Point = namedtuple("Point", "x y")
_naive, _aware = datetime(2000, 1, 1), datetime(2000, 1, 1, tzinfo=timezone.utc)  # noqa: DTZ001
NUL = "PostgreSQL text fields cannot contain NUL (0x00) bytes"


@pytest.fixture
def ask(connection: Any) -> Any:
    """Return what sends a statement, and returns the value that comes back."""

    def ask(sql: str, parameters: Any = None) -> Any:
        ((value,),) = connection.cursor().execute(sql, parameters).fetchall()
        return value

    return ask


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "NULL"),
        (True, "true"),
        (5, "5"),
        (-5, " -5"),
        (1.5, "1.5"),
        (-0.0, " -0.0"),
        (1e300, "1e+300"),
        (float("nan"), "'NaN'::float8"),
        (float("-inf"), "'-Infinity'::float8"),
        (Decimal("-1.50"), " -1.50"),
        (Decimal("1E+3"), "1E+3"),
        (Decimal("sNaN"), "'NaN'::numeric"),
        (Decimal("Infinity"), "'Infinity'::numeric"),
        ("", "''"),
        ("it's", "'it''s'"),
        ("a\\'", " E'a\\\\'''"),
        ("%s", "'%s'"),
        (b"\x00'\\", r" E'\\x00275c'::bytea"),
        (date(1, 2, 3), "'0001-02-03'::date"),
        (time(1, 2), "'01:02:00'::time"),
        (datetime(1, 2, 3), "'0001-02-03 00:00:00'::timestamp"),  # noqa: DTZ001
        (timedelta(-1, 2, 3), "'-1 day +2 second +3 microsecond'::interval"),
        ([], "'{}'"),
        ([[]], "'{{}}'"),
        ([1, None, 40000], "'{1,NULL,40000}'::int4[]"),
        ([1, Int8(1)], "'{1,1}'::int8[]"),
        ([-32768], "'{-32768}'::int2[]"),
        ([1 << 63], "'{9223372036854775808}'::numeric[]"),
        (
            ["NULL", "null", None, "", "a b", "{", '"', "\xa0"],
            ' E\'{"NULL","null",NULL,"","a b","{","\\\\"","\xa0"}\'',
        ),
        ([Range(empty=True), Range(Decimal(1))], "'{empty,\"[1,)\"}'::numrange[]"),
        ((), "'()'"),
        ((None, ""), "'(,\"\")'"),
        (Point(1, "a,b"), "'(1,\"a,b\")'"),
        ({"a": 1}, "'{\"a\": 1}'::jsonb"),
        (OrderedDict(a=1), "'{\"a\": 1}'::jsonb"),
        (Range(1, None, "[]"), "'[1,)'"),
        (Range(None, date(2000, 1, 2), "(]"), "'(,2000-01-02]'::daterange"),
        (Range(empty=True), "'empty'"),
    ],
    ids=repr,
)
def test_literals(value: Any, expected: str) -> None:
    assert literal(value) == expected


class Text(str):
    """A text that says that nothing is in it."""

    def __contains__(self, part: object) -> bool:
        return False


@pytest.mark.parametrize(
    "value",
    [
        "a\0",
        Text("\0"),
        Enum("Name", {"a\0b": 1})["a\0b"],
        ["a", "\0"],
        ("\0",),
        Range("\0", "b"),
        Json(1, lambda value: "\0"),
        [["\\'\0"]],
    ],
    ids=repr,
)
def test_nul_is_refused(value: Any, connection: Any) -> None:
    with pytest.raises(DataError) as caught:
        connection.cursor().execute("SELECT %s", [value])
    assert str(caught.value) == NUL
    assert connection.run("SELECT 1") == [(1,)]


def test_nul_in_an_identifier() -> None:
    with pytest.raises(ProgrammingError, match="NUL"):
        identifier("a\0")


def test_nul_in_hstore(with_hstore: Any) -> None:
    with pytest.raises(DataError) as caught:
        with_hstore.cursor().execute("SELECT %s", [{"a": "\0"}])
    assert str(caught.value) == NUL


def test_nul_in_bytes_and_json(ask: Any) -> None:
    assert ask("SELECT %s", [b"\0"]) == b"\0"
    assert ask("SELECT %s", [Json("\0")]) == "\0"
    with pytest.raises(DataError, match="unsupported Unicode escape sequence"):
        ask("SELECT %s", [Jsonb("\0")])


@pytest.mark.parametrize("value", ["\ud800", "a\udcffb", ["\udfff"], {"a": Text("\ud800")}])
def test_surrogates_are_refused(value: Any, fresh: Any) -> None:
    def dumps(value: Any) -> str:
        return str(value["a"])

    value = Json(value, dumps) if isinstance(value, dict) else value
    for autocommit in True, False:
        fresh.autocommit = autocommit
        with pytest.raises(UnicodeEncodeError):
            fresh.cursor().execute("SELECT %s", [value])
        assert fresh.cursor().execute("SELECT %s", ["é"]).fetchall() == [("é",)]
        fresh.rollback()


@pytest.mark.parametrize(
    ("sql", "value", "expected"),
    [
        ("SELECT 1-%s", -1, 2),
        ("SELECT 1 -%s", -1, 2),
        ("SELECT 1-%s", -1.5, Decimal("2.5")),
        ("SELECT 1 -%s", Decimal("-1.5"), Decimal("2.5")),
        ("SELECT -%s", -1, 1),
        ("SELECT - - -%s", -1, 1),
        ("SELECT -%s", float("-inf"), float("inf")),
        ("SELECT 2^%s", -1, 0.5),
        ("SELECT %s^2", -2, 4),
        ("SELECT @%s", -5, 5),
        ("SELECT 5%%%s", -3, 2),
        ("SELECT 6/%s", -3, -2),
        ("SELECT 6*%s", -3, -18),
        ("SELECT 1+%s+1", -3, -1),
        ("SELECT %s::text", -1, "-1"),
        ("SELECT %s::text", -1.5, "-1.5"),
        ("SELECT %s :: text", -1, "-1"),
        ("SELECT %s\n::text", -1, "-1"),
        ("SELECT %s -- it's 50%%\n /* * / ** */ ::text", -1, "-1"),
        ("SELECT '%s::text'", -1, " -1::text"),
        ("SELECT $$%s::text$$ || $a$%%s[1]$a$", -1, " -1::text%s[1]"),
        ("SELECT 1 /* %s::text */", -1, 1),
        ("SELECT x%s::int", "ff", 255),
        ("SELECT B%s::bit(3)::int", "101", 5),
        ("SELECT timestamptz(0) %s::text", "2000-01-01 00:00:00.9+00", "2000-01-01 00:00:01+00"),
        ("SELECT interval -- c\n %s::text", "1 day", "1 day"),
        ("SELECT %s::int2", -32768, -32768),
        ("SELECT %s::int4", -(1 << 31), -(1 << 31)),
        ("SELECT %s::int8", -(1 << 63), -(1 << 63)),
        ("SELECT 1-%s::int2", -1, 2),
        ("""SELECT '{"a":[1,2]}'::jsonb->'a'->%s""", -1, 2),
        ("""SELECT '[1,[2]]'::jsonb->%s->>0""", -1, "2"),
        ("SELECT ('[-1:1]={3,4,5}'::int[])[%s]", -1, 3),
        ("SELECT ('{3,4,5}'::int[])[%s:]", 3, [5]),
        ("SELECT %s[2]", [3, 4], 4),
        ("SELECT %s [2]", [3, 4], 4),
        ("SELECT ARRAY[%s]", -1, [-1]),
        ("SELECT abs(%s)", -1, 1),
        ("SELECT 1 WHERE 1 BETWEEN %s AND 2", -1, 1),
        ("SELECT 1 LIMIT %s", 1, 1),
        ("SELECT 1 ORDER BY 1 OFFSET 0 FETCH FIRST %s ROWS ONLY", 1, 1),
        ("SELECT CAST(%s AS text)", -1, "-1"),
        ("SELECT interval %s", "1 day", timedelta(1)),
        ("SELECT interval %s::text", "1 day", "1 day"),
        ("SELECT INTERVAL(0) %s::text", "1.4 second", "00:00:01"),
        ("SELECT timestamp %s::date", "2000-01-02 03:04", date(2000, 1, 2)),
        ("SELECT timestamp(0) with time zone %s::timestamptz", _aware.isoformat(), _aware),
        ("SELECT date %s::timestamp", "2000-01-02", datetime(2000, 1, 2)),  # noqa: DTZ001
        ("SELECT int4 %s::text", "7", "7"),
        ("SELECT integer %s::text", "7", "7"),
        ("SELECT timestamptz '2000-01-01 00:00+00' AT TIME ZONE %s::text", "UTC", _naive),
    ],
)
def test_next_to_others(sql: str, value: Any, expected: Any, ask: Any) -> None:
    assert ask(sql, [value]) == expected


def test_in_statements_that_take_constants_only(fresh: Any) -> None:
    cursor = fresh.cursor()
    cursor.execute("SET extra_float_digits = %s", [-1])
    cursor.execute("SET application_name = %s", ["it's \\"])
    cursor.execute("SET statement_timeout TO %s", ["5s"])
    cursor.execute("SHOW extra_float_digits")
    assert cursor.fetchall() == [("-1",)]
    cursor.execute("SHOW application_name")
    assert cursor.fetchall() == [("it's \\",)]
    cursor.execute("CREATE TEMP SEQUENCE relet_literals MINVALUE %s START %s", [-9, -5])
    cursor.execute("ALTER SEQUENCE relet_literals INCREMENT BY %s RESTART %s", [-2, -3])
    cursor.execute("SELECT nextval('relet_literals'), nextval('relet_literals')")
    assert cursor.fetchall() == [(-3, -5)]
    cursor.execute("CREATE TEMP TABLE relet_literals_t (a int DEFAULT %s, b text)", [-4])
    cursor.execute("COMMENT ON TABLE relet_literals_t IS %s", ["\\'"])
    cursor.execute("INSERT INTO relet_literals_t (b) VALUES (%s), (%s) RETURNING *", ["a", "b"])
    assert cursor.fetchall() == [(-4, "a"), (-4, "b")]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "builtins.object"),
        (1j, "builtins.complex"),
        ({1}, "builtins.set"),
        (UserDict(), "collections.UserDict"),
        ([None, 1j], "builtins.complex"),
        ((1j,), "builtins.complex"),
        (Range(1j), "builtins.complex"),
    ],
)
def test_types_that_are_not_known(value: Any, name: str, connection: Any) -> None:
    with pytest.raises(ProgrammingError, match=f"'{name}'"):
        connection.cursor().execute("SELECT %s", [value])
    assert connection.run("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ([1, "a"], "int (int2), str (unknown)"),
        ([1, 1.5], "float (float8), int (int2)"),
        ([1, [True]], "bool (bool), int (int2)"),
        ([1, Decimal(1)], "Decimal (numeric), int (int2)"),
        ([b"", ""], "bytes (bytea), str (unknown)"),
        ([{}, Json(1)], "Json (json), dict (jsonb)"),
        ([_naive, _aware], "datetime (timestamp), datetime (timestamptz)"),
        ([_naive.date(), _naive], "date (date), datetime (timestamp)"),
    ],
)
def test_lists_of_several_types(value: Any, names: str, connection: Any) -> None:
    with pytest.raises(DataError) as caught:
        connection.cursor().execute("SELECT %s", [value])
    assert str(caught.value) == f"cannot make an array of values of several types: {names}"
    assert connection.run("SELECT 1") == [(1,)]


@pytest.mark.parametrize("value", [[1, [2]], [[1], [2, 3]], [[], [1]]])
def test_lists_that_are_no_arrays(value: Any, connection: Any) -> None:
    with pytest.raises(DataError, match="malformed array literal"):
        connection.cursor().execute("SELECT %s::int[]", [value])


@pytest.mark.parametrize("items", [{1: "a"}, {"a": 1}, {None: "a"}, {"a": ["b"]}])
def test_hstore_has_texts(items: Any) -> None:
    with pytest.raises(DataError, match="hstore keys must be strings"):
        hstore_text(items)


def test_a_time_whose_offset_depends_on_the_date() -> None:
    with pytest.raises(DataError, match="Europe/Berlin depends on the date"):
        literal(time(1, 2, tzinfo=ZoneInfo("Europe/Berlin")))


def test_offsets_that_postgresql_has_not(connection: Any) -> None:
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(microseconds=1)))
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(seconds=1.5)))
    for value in first, last:
        with pytest.raises(DataError, match="PostgreSQL cannot store the UTC offset"):
            literal(value)
    for value in _aware, _aware.timetz():
        value = value.replace(tzinfo=timezone(timedelta(hours=17)))
        with pytest.raises(DataError, match="out of range"):
            connection.cursor().execute("SELECT %s", [value])


def test_numbers_too_long_for_python(connection: Any) -> None:
    # Python's own limit, against those who make it take its time: sys.set_int_max_str_digits().
    with pytest.raises(ValueError, match=r"Exceeds the limit \(4300"):
        connection.cursor().execute("SELECT %s", [10**5000])
    assert connection.run("SELECT 1") == [(1,)]


# Placeholders.


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("SELECT '%'", None, "%"),
        ("SELECT '%%'", None, "%%"),
        ("SELECT '%s'", None, "%s"),
        ("SELECT '%%'", (), "%"),
        ("SELECT '%%'", {}, "%"),
        ("SELECT '%%s'", [], "%s"),
        ("SELECT '%%%%s'", [], "%%s"),
        ("SELECT 5 %% %s", [3], 2),
        ("SELECT 5 %%%s", (3,), 2),
        ("SELECT %s || '%%'", ("%",), "%%"),
        ("SELECT %(a)s || %(b)s || %(a)s", {"a": "x", "b": "%(a)s", "c": 1j}, "x%(a)sx"),
        ("SELECT %(a b)s", OrderedDict({"a b": 1}), 1),
        ("SELECT %(\"'a)s", UserDict({"\"'a": 1}), 1),
        ("SELECT %()s", {"": 1}, 1),
        ("SELECT %t", [1], 1),
        ("SELECT %b", [1], 1),
        ("SELECT %(a)b", {"a": 1}, 1),
        ("SELECT %s", deque([1]), 1),
        ("SELECT %s", range(1, 2), 1),
        ("SELECT %s", Point(1, 2)[:1], 1),
        ("SELECT %(a)s::text", {"a": -1}, "-1"),
        ("SELECT %s -- 50%%", ["x"], "x"),
    ],
)
def test_placeholders(sql: str, parameters: Any, expected: Any, ask: Any) -> None:
    assert ask(sql, parameters) == expected


@pytest.mark.parametrize(
    ("sql", "parameters", "message"),
    [
        ("SELECT %s", [], "1 placeholders, but 0 parameters"),
        ("SELECT %s", [1, 2], "1 placeholders, but 2 parameters"),
        ("SELECT 1", [1], "0 placeholders, but 1 parameters"),
        ("SELECT '%%s'", [1], "0 placeholders, but 1 parameters"),
        ("SELECT %(a)s, %(b)s", {"c": 1}, "parameters missing: 'a', 'b'"),
        ("SELECT %(a)s, %s", {"a": 1}, "cannot be mixed"),
        ("SELECT %s, %(a)s", [1], "cannot be mixed"),
        ("SELECT 'a%'", [], '"%\'" is not a placeholder'),
        ("SELECT '%d'", [], "'%d' is not a placeholder"),
        ("SELECT %", [], "'%' is not a placeholder"),
        ("SELECT %(a)", {"a": 1}, "'%\\(a\\)' is not a placeholder"),
        ("SELECT %(a)d", {"a": 1}, "'%\\(a\\)d' is not a placeholder"),
        ("SELECT %(a", {"a": 1}, "'%\\(' is not a placeholder"),
        ("SELECT 5 % 3", (), "'% ' is not a placeholder"),
    ],
)
def test_placeholders_that_do_not_fit(
    sql: str, parameters: Any, message: str, connection: Any
) -> None:
    with pytest.raises(ProgrammingError, match=message):
        connection.cursor().execute(sql, parameters)
    assert connection.run("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT %s", {"a": 1}),
        ("SELECT %(a)s", [1]),
        ("SELECT %s", "a"),
        ("SELECT %s", b"a"),
        ("SELECT %s", 1),
        ("SELECT %s", {1}),
        ("SELECT %s", iter([1])),
    ],
)
def test_parameters_of_the_wrong_shape(sql: str, parameters: Any, connection: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a (sequence|mapping)"):
        connection.cursor().execute(sql, parameters)


@given(st.lists(st.sampled_from(["%%", "%s", "a", "(", ")", "'", "s", ":", " "])))
def test_templates_keep_what_is_no_placeholder(pieces: list[str]) -> None:
    sql = "".join(pieces)
    parts, names, _ = template(sql)
    assert names is None
    assert len(parts) == pieces.count("%s") + 1
    assert "%s".join(parts) == "".join("%" if piece == "%%" else piece for piece in pieces)


def test_long_statements_are_not_remembered(ask: Any) -> None:
    sql = "SELECT " + " || ".join(["%s"] * 2000)
    assert ask(sql, ["a"] * 2000) == "a" * 2000
