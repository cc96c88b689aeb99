"""I17: no value and no message of the server, and no statement, takes more than linear time.

As in tests/unit/test_linear.py: what Python does is counted, and what regular expressions do must
end. What is malformed is an error at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from relet.adapters.pg8000 import errors, loaders, settings
from relet.adapters.pg8000.composites import (
    array_loader,
    load_hstore,
    load_record,
    multirange_loader,
    range_loader,
)
from relet.adapters.pg8000.dbapi import Cursor, DataError
from relet.adapters.pg8000.results import Result
from relet.adapters.pg8000.templates import _parse

from ....support.interrupts import timers
from ....support.steps import Data, Items, Text, first_that_does_not_end, steps

#: What stands at the beginning, what is repeated, what stands at the end.
HOSTILE = {
    "array": {
        "elements": ("{", "1,", "1}"),
        "nested": ("", "{", ""),
        "closed": ("", "}", ""),
        "empty": ("{", "{},", "{}}"),
        "quoted": ("{", '"a",', "b}"),
        "escaped": ('{"', '\\"', '"}'),
        "escaped, not closed": ('{"', '\\"', ""),
        "backslashes": ('{"', "\\", ""),
        "quotes": ("{", '"', ""),
        "quotes and letters": ("", '"a', ""),
        "dimensions": ("", "[1:2]", "={1}"),
        "dimensions, not closed": ("", "[1", ""),
        "letters": ("{", "a", "}"),
    },
    "range": {
        "quotes": ("[", '"', ",1)"),
        "quoted": ("[", '"a"', ",1)"),
        "doubled": ('["', '""', '",1)'),
        "doubled, not closed": ('["', '""', ""),
        "escaped": ("[", "\\a", ",1)"),
        "escaped in quotes": ('["', '\\"', '",1)'),
        "escaped in quotes, not closed": ('["', '\\"', ""),
        "parts": ("[", 'a"b"', ",1)"),
        "letters": ("[", "a", ""),
        "bounds": ("", "[1,", ""),
        "ranges": ("{", "[1,2),", "[1,2)}"),
        "ranges, not closed": ("{", "[1,2),", ""),
    },
    "record": {
        "fields": ("(", "a,", "b)"),
        "quotes": ("(", '"', ")"),
        "doubled": ('("', '""', '")'),
        "doubled, not closed": ('("', '""', ""),
        "parts": ("(", 'a"b"', ""),
        "escaped": ("(", "\\a", ""),
        "records": ("", "(", ""),
    },
    "hstore": {
        "pairs": ("", '"a"=>"b", ', '"a"=>NULL'),
        "escaped": ('"', '\\"', '"=>NULL'),
        "escaped, not closed": ('"', '\\"', ""),
        "keys": ("", '"a"=>', ""),
        "quotes": ("", '"', ""),
    },
    "others": {
        "digits": ("", "1", ""),
        "digits and years": ("", "1", " years"),
        "signs": ("", "-", "00"),
        "fractions": ("2000-01-01 00:00:00.", "1", ""),
        "offsets": ("2000-01-01 00:00:00", "+00", ""),
        "octal": ("", "\\000", ""),
        "backslashes": ("", "\\", ""),
        "brackets": ("", "[", ""),
    },
    "statement": {
        "placeholders": ("SELECT ", "%s, ", "1"),
        "names": ("SELECT ", "%(a)s, ", "1"),
        "names, not closed": ("SELECT ", "%(a", ""),
        "doubled": ("SELECT ", "%%", "%s::text"),
        "casts": ("SELECT ", "%s::text, ", "1"),
        "constants": ("SELECT ", "timestamp ", "%s::text"),
        "parentheses": ("SELECT numeric(", "1, ", "%s::text"),
        "spaces": ("SELECT int", " ", "%s::text"),
        "spaces after it": ("SELECT %s", " ", "::text"),
        "comments after it": ("SELECT %s", "/* c */", "::text"),
        "stars after it": ("SELECT %s/", "*", "::text"),
        "lines after it": ("SELECT %s", "-- c\n", "::text"),
        "lines after it, not ended": ("SELECT %s", "--", "::text"),
    },
    "message": {
        "lines": ("", "a\n", ""),
        "carriage returns": ("", "\r", ""),
        "one line": ("", "é", ""),
        "digits": ("", "9", ""),
    },
    "password": {
        "escaped": ("", "\\:", ":b:c:d:e"),
        "colons": ("", ":", ""),
        "backslashes": ("", "\\", ""),
        "lines": ("", "a:b:c:d:e\n", ""),
    },
}
NAMES = [f"{what}: {name}" for what, names in HOSTILE.items() for name in names]


def text_of(name: str, length: int) -> str:
    what, _, name = name.partition(": ")
    before, block, after = HOSTILE[what][name]
    return before + block * (length // len(block)) + after


def _message(text: str) -> object:
    fields = {"M": text, "P": str(len(text)), "p": text, "q": text, "C": text}
    return errors.from_fields(fields, text), errors.from_fields({"P": text}, text)


def _composed(text: str) -> object:
    """Compose it with what may need parentheses."""
    parts = _parse(text)
    return parts.compose([-1] * (len(parts.parts) - 1))


def _password(text: str) -> object:
    return [settings._LINE.match(line) for line in text.split("\n")]


VALUES: dict[str, list[Callable[[Any], object]]] = {
    "array": [array_loader(bytes.decode)],
    "range": [
        range_loader("int4range", bytes.decode),
        multirange_loader("int4range", bytes.decode),
    ],
    "record": [load_record],
    "hstore": [load_hstore],
    "others": [load for _, _, load in loaders._BASE.values()],
}
TEXTS: dict[str, list[Callable[[Any], object]]] = {
    "statement": [_parse, _composed],
    "message": [_message, lambda text: Result(None, [], text).count],
    "password": [_password],
}


@pytest.mark.parametrize("name", NAMES)
def test_four_times_as_long_is_four_times_as_much(name: str) -> None:
    what = name.partition(":")[0]
    for call in VALUES.get(what, []):
        short, long = (Data(text_of(name, length).encode()) for length in (700, 2800))
        assert steps(call, long) < 4.6 * steps(call, short) + 500
    for call in TEXTS.get(what, []):
        short_text, long_text = (Text(text_of(name, length)) for length in (700, 2800))
        assert steps(call, long_text) < 4.6 * steps(call, short_text) + 500


def test_results_are_gone_through_once() -> None:
    def go_through(count: int) -> None:
        cursor = Cursor(SimpleNamespace(), None)  # type: ignore[arg-type]
        cursor._results = Items(Result(None, [], "") for _ in range(count))
        cursor._result = cursor._results[0]
        while cursor.nextset():
            pass

    assert steps(go_through, 400) < 4.6 * steps(go_through, 100)


def read_a_long_one(name: str) -> None:
    """Read it, whatever is wrong with it."""
    what, text = name.partition(":")[0], text_of(name, 300_000)
    for call, argument in [
        *((load, text.encode()) for load in VALUES.get(what, [])),
        *((read, text) for read in TEXTS.get(what, [])),
    ]:
        with suppress(errors.Error, ValueError, ArithmeticError, RecursionError):
            call(argument)


@pytest.mark.slow
@timers
def test_regular_expressions() -> None:
    assert first_that_does_not_end(read_a_long_one, NAMES) == ""


MALFORMED: dict[str, tuple[Callable[[bytes], object], list[str]]] = {
    "array": (
        array_loader(str),
        [
            *('{"a', "{a", "a", "", "}", "{}}", "{}{}", "{a}b", '{"a\\"}', "[1:1]"),
            "{" * 7 + "}" * 7,
        ],
    ),
    "range": (
        range_loader("int4range", int),
        [
            *("", "[", "[1", "[1,", "[1,2", "1,2)", "[1,2)x", '["1,2)', "[1,2,3)", "(1(,2)"),
            "[1,2\\",
        ],
    ),
    "multirange": (
        multirange_loader("int4range", int),
        ["", "{", "{[1,2)", "{[1,2),}", "[1,2)", "{[1,2)}x"],
    ),
    "record": (load_record, ["", "(", "(a", "a,b)", '("a)', "(a)b", "(a(b)", "(a\\"]),
    "hstore": (
        load_hstore,
        ["a", '"a', '"a"', '"a"=>', '"a"=>b', '"a"=>"b', '"a"=>"b",', '"a"=>NULLx'],
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_malformed_is_an_error(kind: str) -> None:
    load, texts = MALFORMED[kind]
    for text in texts:
        with pytest.raises(DataError, match="malformed text of"):
            load(text.encode())


def test_an_error_shows_the_beginning_of_what_is_malformed() -> None:
    with pytest.raises(DataError) as raised:
        load_record(b"(" * 10_000)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("number", ["9" * 5000, "\xb2", "\u0661", "-1", "0", "", "1.5"])
def test_numbers_that_are_none(number: str) -> None:
    """Python refuses numbers of many digits, and takes some that are none for digits."""
    assert "LINE" not in str(errors.from_fields({"M": "a", "P": number}, "SELECT 1"))
    assert "LINE" not in str(errors.from_fields({"M": "a", "p": number, "q": "SELECT 1"}))
    expected = {"0": 0}.get(number, -1)
    assert Result(None, [], f"INSERT 0 {number}").count == expected
