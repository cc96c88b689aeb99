"""The tokenizer against PostgreSQL's own: libpg_query is the server's parser, as a library.

Where that refuses a text, so does the server, and nothing is compared. It differs from the server
in one point: it does not let a string go on after a comment. The server itself judges that, see
tests/backends/test_classifier_oracle.py, and so does `test_a_string_goes_on_after_a_comment`.

https://github.com/pganalyze/libpg_query
"""

from __future__ import annotations

import ctypes
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from random import Random

import postgast
import pytest
from generated_sql import Text, Writer
from hypothesis import assume, given
from hypothesis import strategies as st
from postgast import pg_query_pb2
from postgast.native import PgQueryParseResult, lib

from relet.core.sql.functions import calls_of
from relet.core.sql.statements import (
    OTHER,
    PARAMETER,
    STRING,
    WORD,
    Token,
    readings,
    statements,
    tokens,
)

pytestmark = pytest.mark.slow

#: https://github.com/pganalyze/libpg_query/blob/17-latest/pg_query.h
NO_STANDARD_CONFORMING_STRINGS = 32
lib.pg_query_parse_opts.argtypes = [ctypes.c_char_p, ctypes.c_int]
lib.pg_query_parse_opts.restype = PgQueryParseResult

_NAMES = {
    number: kind.name for number, kind in pg_query_pb2.Token.DESCRIPTOR.values_by_number.items()
}
_COMMENTS = ("SQL_COMMENT", "C_COMMENT")
_WITH_UESCAPE = [[kind, "UESCAPE", "SCONST"] for kind in ("USCONST", "UIDENT")]

#: How many texts are generated.
GENERATED = 4000
#: Texts that are hard to read.
HOSTILE = [
    "SELECT 'it''s', '', '''', n'x', N'y''', 'a' 'b'",
    "SELECT 'a'\n'b'\r\n\t'c', 'd' \n e",
    r"SELECT E'it\'s', e'\\', E'\x53\123\u0053\U00000053\q', 'C:\temp\'",
    r"SELECT U&'\0053\+000053\\', U&'!0053' UESCAPE '!', U&'a''b', U&'\0053' uescape",
    r'SELECT U&"\0073et", u&"d!0061ta" UESCAPE ' + "'!', U & \"a\", u&'x'",
    "SELECT B'10', x'1F', X'a'\n'b', b'1' '0', b ' '",
    "SELECT $$a$$, $q$ $$ 'x $q$, $Ä_1$;$Ä_1$, a$$b$$, $1, $2::int, $$$$",
    'SELECT "a""b", "A"."b".c, "--", "/*", "$$", abe\'x\'',
    "SELECT a -- ' \" $$ /*\n, b /* ' /* nested */ \" -- */ , c --",
    "SELECT 1.5e-10, .5, 1., 1_000, 0x1F, 0o17, 0b101, 1e5, 1 e5, -1, - 1, a.b",
    "SELECT a<>b, a!=b, a||b, a->>'c', a#>b, a@>b, a?b, a::int, f(x => 1, y := 2), a*-1, 2*/*x*/3",
    "SELECT +--a\n1, */**/ FROM t",
    "SELECT 1 %2, 7%set_config('a.b', 'x', false)::int, 100 %(SELECT nextval('s'))s",
    "SELECT Ä, €x, \xa0y, \u212aEY, ÀB FROM tÄ",
    "a; b;; ; c /* ; */ ';' $$;$$ \";\" -- ;\n;",
    "SELECT nextval('s'); SELECT pg_catalog . currval /* x */ ( 's' ), \"setval\"('s', 1)",
    "SELECT set_config FROM t WHERE nextval = 1 AND lastval() = f(setseed(1, nextval('s')))",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); DELETE FROM b); SELECT 1",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT nextval('s'); END; SELECT 2",
    "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 3; END; SELECT 2",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 end; SELECT a case; END; SELECT 2",
    "CREATE OR REPLACE PROCEDURE f() BEGIN ATOMIC END; BEGIN; SELECT 1; END",
    "CREATE TABLE t (begin atomic); SELECT 1; END; SELECT 2",
    "CREATE TABLE t AS SELECT a.begin atomic FROM a; SELECT 1; END; SELECT 2",
    "CREATE VIEW v AS SELECT function.begin atomic FROM function; SELECT 1; END; SELECT 2",
    "BEGIN; SELECT 1 AS atomic; END; SELECT case FROM t",
    "DO $$ BEGIN PERFORM 1; END $$; SELECT 1",
    "PREPARE p AS SELECT setval('s', $1); DECLARE c CURSOR FOR SELECT nextval('s')",
]
BLOCKS = [
    *(
        "'",
        "''",
        '"',
        '""',
        "$$",
        "$a$",
        "$1",
        "$",
        "/*",
        "*/",
        "--",
        "\n",
        "\r",
        " ",
        ";",
        "(",
        ")",
    ),
    *("E'", "e'", "U&'", 'U&"', "u&", "N'", "B'", "x'", "\\", "\\'", "%s", "%(", ")s", "%", "%%"),
    *("a", "1", ".", "..", "0x", "_", "::", ":=", "=>", "<", ">", "+", "-", "/", "*", "Ä", "\xa0"),
    *("uescape", "begin", "atomic", "end", "case", "create", "function", "'!'", "\f", "\v", "€"),
]
TEXTS = st.lists(st.sampled_from(BLOCKS) | st.text(max_size=2), max_size=14).map("".join)


def theirs(sql: str) -> list[tuple[str, str]]:
    """The tokens of libpg_query. What is between operators and numbers is none of ours."""
    data = sql.encode()
    found: list[tuple[str, str]] = []
    before: list[str] = []
    for token in postgast.scan(sql).tokens:
        name = _NAMES.get(token.token, "")
        text = data[token.start : token.end].decode()
        if name in _COMMENTS or (name == "NCHAR" and text in "nN"):
            continue
        before.append(name)
        if name in ("SCONST", "USCONST"):
            if before[-3:] in _WITH_UESCAPE and len(text) == 3:
                found.pop()
            else:
                found.append((STRING, ""))
        elif name == "UIDENT":
            found.append((WORD, "U&"))
        elif name == "IDENT" or token.keyword_kind:
            quoted = text[0] == '"'
            found.append((WORD, text[1:-1].replace('""', '"') if quoted else folded(text)))
        elif name == "PARAM":
            found.append((PARAMETER, text))
        else:
            found += [(OTHER, character) for character in text]
    return found


def ours(found: list[Token]) -> list[tuple[str, str]]:
    """Our tokens, likewise."""
    pairs: list[tuple[str, str]] = []
    for kind, text, _ in found:
        if kind is STRING:
            pairs.append((STRING, ""))
        elif kind is PARAMETER and text[0] == "%":
            pairs += [(OTHER, "%"), *ours(tokens(text[1:]))]
        elif kind is OTHER:
            pairs += [(OTHER, character) for character in text]
        else:
            pairs.append((kind, text))
    return pairs


def folded(word: str) -> str:
    return re.sub("[A-Z]", lambda letter: letter.group().lower(), word)


def assert_agree(sql: str, found: list[Token]) -> None:
    """Assert that *found* are the tokens of *sql*, but for what U&"" means."""
    expected, read = theirs(sql), ours(found)
    assert len(expected) == len(read), sql
    for one, other in zip(expected, read, strict=True):
        assert one == other or one == (WORD, "U&") == (other[0], "U&"), sql


def is_comparable(sql: str) -> bool:
    """Whether libpg_query reads *sql*, and as the server would."""
    if "\0" in sql or re.search(r"'[ \t\f\v]*--[^\r\n]*[\r\n]|'\s*[\r\n]\s*--", sql):
        return False
    try:
        postgast.scan(sql)
    except (postgast.PgQueryError, UnicodeEncodeError):
        return False
    return True


def parsed(sql: str, options: int = 0) -> dict | None:
    """The parse tree; None if *sql* is refused."""
    result = lib.pg_query_parse_opts(sql.encode(), options)
    try:
        return None if result.error else json.loads(result.parse_tree)
    finally:
        lib.pg_query_free_parse_result(result)


lib.pg_query_free_parse_result.argtypes = [PgQueryParseResult]


def nodes(tree: object, name: str) -> list[dict]:
    """All nodes called *name*, in the order of the text."""
    found: list[dict] = []

    def look(node: object) -> None:
        if isinstance(node, dict):
            found.extend(value for key, value in node.items() if key == name)
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for item in node:
                look(item)

    look(tree)
    return sorted(found, key=lambda node: node.get("location", 0))


def generated() -> Iterator[Text]:
    """SQL of the oracle's."""
    writer = Writer(Random(12))
    while True:
        yield from writer.script()


def sent(sql: str) -> str:
    """What a driver makes of *sql* where there are parameters."""
    return re.sub(r"%(?:(%)|s|\(\w+\)s)", lambda match: "%" if match[1] else "$1", sql)


@pytest.mark.parametrize("sql", HOSTILE)
def test_tokens_of_hostile_texts(sql):
    assert is_comparable(sql)
    assert_agree(sql, tokens(sql))


@given(TEXTS)
def test_tokens_of_any_text(sql):
    assume(is_comparable(sql))
    assert_agree(sql, tokens(sql))


def test_tokens_of_generated_texts():
    compared = 0
    for text in islice(generated(), GENERATED):
        if text.params is None and is_comparable(text.sql):
            assert_agree(text.sql, tokens(text.sql))
            compared += 1
    assert compared > GENERATED / 3


def test_tokens_of_generated_texts_with_parameters():
    compared = 0
    for text in islice(generated(), GENERATED):
        if text.params is not None and is_comparable(sql := sent(text.sql)):
            assert_agree(sql, [as_sent(token) for token in tokens(text.sql, bound=True)])
            compared += 1
    assert compared > GENERATED / 20


def as_sent(token: Token) -> Token:
    if token.kind is PARAMETER:
        return Token(PARAMETER, "$1")
    return Token(OTHER, "%") if token == Token(OTHER, "%%") else token


@pytest.fixture(scope="module")
def accepted() -> list[str]:
    """Texts that are SQL, hostile ones and generated ones."""
    texts = [text.sql for text in islice(generated(), GENERATED) if text.params is None]
    accepted = [sql for sql in HOSTILE + texts if is_comparable(sql) and parsed(sql) is not None]
    assert len(accepted) > GENERATED / 4
    return accepted


def test_statements(accepted):
    for sql in accepted:
        expected = [tokens(statement) for statement in postgast.split(sql)]
        assert statements(sql) == [statement for statement in expected if statement], sql


class _Everything(set):
    def __contains__(self, name: object) -> bool:
        return True


FUNCTIONS = {
    *("nextval", "setval", "currval", "lastval", "set_config", "setseed"),
    *("pg_advisory_lock", "pg_advisory_unlock", "pg_advisory_unlock_all"),
    *("pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_advisory_unlock_shared"),
}


def test_calls(accepted):
    for sql in accepted:
        calls = nodes(parsed(sql), "FuncCall")
        names = [call["funcname"][-1]["String"]["sval"] for call in calls]
        assert called(sql, FUNCTIONS) == [name for name in names if name in FUNCTIONS], sql
        # We take whatever is before a parenthesis for one, such as a table's name.
        missing = Counter(names) - Counter(called(sql, _Everything()))
        assert missing.keys() <= {"timezone"}, sql  # AT TIME ZONE


def called(sql: str, functions: set[str]) -> list[str]:
    return [name for found in statements(sql) for _, name in calls_of(found, functions)]


STRINGS = st.lists(
    st.sampled_from(
        ["a", "'", "''", "\\", "\\'", "\n", "\\n", "\\101", "\\x41", "\\u0041", "%s", "--"]
    ),
    max_size=8,
).map("".join)


@given(STRINGS, st.sampled_from(["'{}'", "E'{}'", "N'{}'", "U&'{}'", "$q${}$q$"]))
def test_values_of_strings(text, quotes):
    """With standard_conforming_strings on, and off."""
    sql = f"SELECT {quotes.format(text)}, 'x'"
    for escapes, options in (False, 0), (True, NO_STANDARD_CONFORMING_STRINGS):
        tree = parsed(sql, options)
        if tree is not None and not re.search(r"'\s*--", sql):
            expected = [
                node["sval"].get("sval", "") for node in nodes(tree, "A_Const") if "sval" in node
            ]
            read = tokens(sql, escapes=escapes)
            assert [token.text for token in read if token.kind is STRING] == expected


@given(TEXTS)
def test_all_ways_to_read_a_text(sql):
    ways = readings(sql)
    assert ways[0] == tokens(sql)
    for bound in False, True:
        for escapes in False, True:
            assert tokens(sql, bound=bound, escapes=escapes) in ways


def test_a_string_goes_on_after_a_comment():
    """As in the server, and not in libpg_query."""
    sql = "SELECT 'a' -- it's\n 'b'"
    assert not is_comparable(sql)
    assert parsed(sql) is None
    assert [token.text for token in tokens(sql)] == ["select", "ab"]
