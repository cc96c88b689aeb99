"""The tokenizer: what is code and what is none, as the server's lexer has it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relet.core.sql.statements import OTHER, PARAMETER, STRING, WORD, Token, statements, tokens


def short(sql):
    """Tokens, written so that their kinds can be told apart."""
    marks = {WORD: "{}", STRING: "<{}>", PARAMETER: "?{}", OTHER: "{}"}
    return " ".join(
        f'"{token.text}"' if token.quoted else marks[token.kind].format(token.text)
        for token in tokens(sql)
    )


def table(cases):
    return pytest.mark.parametrize(("sql", "expected"), cases, ids=[repr(sql) for sql, _ in cases])


@table(
    [
        ("", ""),
        (" \t\r\n\f\v", ""),
        ("SELECT a_1$ FROM T2", "select a_1$ from t2"),
        ("a,b.c(d);", "a , b . c ( d ) ;"),
        ("a::int := b => c <> -1 - -2", "a :: int := b => c < > - 1 - - 2"),
        ("a[1]*b/c%d^e|f", "a [ 1 ] * b / c % d ^ e | f"),
        # Letters, to PostgreSQL, are all that is not ASCII; it folds ASCII only.
        ("ÄB €x \xa0y", "Äb €x \xa0y"),
        ("a\xa0set", "a\xa0set"),
        # A letter that becomes an ASCII one in lower case.
        ("\u212aEY", "\u212aey"),
    ]
)
def test_words_and_symbols(sql, expected):
    assert short(sql) == expected


@table(
    [
        ("1 1.5 .5 1e5 1.5e-10 1.", "1 1.5 .5 1e5 1.5e-10 1."),
        ("a.b t .5e1", "a . b t .5e1"),
        # Since PostgreSQL 16.
        ("1_000.000_1 0x1F 0b10 0o1_7", "1_000.000_1 0x1F 0b10 0o1_7"),
        ("0xINTO 0b2 1_a", "0 xinto 0 b2 1 _a"),
        # Of loops in PL/pgSQL.
        ("1..2", "1 . .2"),
        # Older servers take a word that follows at once for a word.
        ("SELECT 1into t", "select 1 into t"),
        ("1else 1e", "1 else 1 e"),
    ]
)
def test_numbers(sql, expected):
    assert short(sql) == expected


@table(
    [
        ("'a'", "<a>"),
        ("''", "<>"),
        ("'it''s'", "<it's>"),
        (r"'a\' b", r"<a\> b"),
        ("n'a' N'b'", "<a> <b>"),
        ("b'10' X'1F'", "b'10' X'1F'"),
        ("'-- no comment' a", "<-- no comment> a"),
        ("'/*' a '*/'", "</*> a <*/>"),
        ("'$$' a '$$'", "<$$> a <$$>"),
        ("name'text'", "name <text>"),
        # Next to a word that ends like a prefix.
        ("abe'x'", "abe <x>"),
    ]
)
def test_strings(sql, expected):
    assert short(sql) == expected


@table(
    [
        (r"E'it\'s' a", "<it's> a"),
        (r"e'\\' a", "<\\> a"),
        ("E'it''s' a", "<it's> a"),
        (r"E'\x53ET \123 \u0053 \U00000053 \n\q'", "<SET S S S \nq>"),
        (r"E'\U00110000'", "<\ufffd>"),
        (r"U&'\0053\+000053\\'", "<SS\\>"),
        (r"U&'\+110000'", "<\ufffd>"),
        (r"u&'\' a", "<\\> a"),
        (r"U&'!0053\0053' UESCAPE '!' a", r"<S\0053> a"),
        ("U&'\\0053' -- why not\n uescape '!'", r"<\0053>"),
        ("uescape '!'", "uescape <!>"),
    ]
)
def test_strings_with_escapes(sql, expected):
    assert short(sql) == expected


@table(
    [
        ("'a'\n'b'", "<ab>"),
        ("'a' \t\r\n  'b'\n'c' d", "<abc> d"),
        ("'a' -- it's\n 'b'", "<ab>"),
        ("'a'\n -- it's\n -- $$\n 'b'", "<ab>"),
        ("E'a'\n'\\'b' c", "<a'b> c"),
        ("'a' 'b'", "<a> <b>"),
        ("'a' /* no */\n 'b'", "<a> <b>"),
        ("'a'\n$$b$$", "<a> <b>"),
        ("'a'\n\n\n c", "<a> c"),
    ]
)
def test_strings_that_go_on_in_the_next_line(sql, expected):
    assert short(sql) == expected


@table(
    [
        ("$$a$$", "<a>"),
        ("$$$$", "<>"),
        ("$a$ $$ $b$ $a$ b", "< $$ $b$ > b"),
        ("$Ä_1$it's -- /* \n$Ä_1$ b", "<it's -- /* \n> b"),
        ("$A$ $a$ $A$ b", "< $a$ > b"),
        # A word may have a dollar; so this is none, nor is this a tag.
        ("a$$ b $$ c $$", "a$$ b < c >"),
        ("€$$; SET x $$ ", "€$$ ; set x < >"),
        ("$1$$a$$", "?$1 <a>"),
        ("$1a$ $1a$", "?$1 a$ ?$1 a$"),
    ]
)
def test_dollar_quotes(sql, expected):
    assert short(sql) == expected


@table(
    [
        ('"Set" a', '"Set" a'),
        ('"a""b"', '"a"b"'),
        ('"a"."b"', '"a" . "b"'),
        ('"-- /* $$" a', '"-- /* $$" a'),
        (r'U&"\0073et_config"', '"set_config"'),
        (r'u&"d\0061t\+000061"', '"data"'),
        ("U&\"!0073et\" UESCAPE '!' a", '"set" a'),
        (r'U&"\0073""x"', '"s"x"'),
        ('u & "a"', 'u & "a"'),
    ]
)
def test_quoted_identifiers(sql, expected):
    assert short(sql) == expected


@table(
    [
        ("a -- b\nc", "a c"),
        ("a -- b\rc", "a c"),
        ("a --", "a"),
        ("a /* b */ c", "a c"),
        ("a/**/b", "a b"),
        ("a /* b /* c */ d */ e", "a e"),
        ("a /* -- */ b", "a b"),
        ("a -- /*\nb", "a b"),
        ("a /* ' */ b /* \" */ c", "a b c"),
        ("a /*/ b */ c", "a c"),
        ("+--a\nb", "+ b"),
        ("*/*a*/b", "* b"),
        ("a - - b", "a - - b"),
        ("a / * b", "a / * b"),
    ]
)
def test_comments(sql, expected):
    assert short(sql) == expected


@table(
    [
        ("%s %b %t", "?%s ?%b ?%t"),
        ("%(name)s %(a b)s", "?%(name)s ?%(a b)s"),
        ("$1 $20", "?$1 ?$20"),
        ("%s::int", "?%s :: int"),
        ("(%s)", "( ?%s )"),
        # The operator, in a text without parameters.
        ("7%set_config(a)", "7 % set_config ( a )"),
        ("7 %(nextval('s')between 1 and 2)", "7 % ( nextval ( <s> ) between 1 and 2 )"),
        ("7 %%s", "7 %% s"),
        ("7 % s", "7 % s"),
        ("'%s' \"%s\" -- %s", '<%s> "%s"'),
    ]
)
def test_placeholders(sql, expected):
    assert short(sql) == expected


@table(
    [
        ("a 'b c", "a <b c>"),
        ("a 'b''c", "a <b'c>"),
        ('a "b c', 'a "b c"'),
        ('a "b""', 'a "b""'),
        ("a $$b", "a <b>"),
        ("a $t$b", "a <b>"),
        ("a /* b /* c */", "a"),
        ("a E'b\\'", "a <b'>"),
        ("a E'b\\", "a <b\\>"),
        ("a B'1", "a B'1"),
        ('a U&"b', 'a "b"'),
        ("a 'b'\n'c", "a <bc>"),
        ("a %(b", "a % ( b"),
        ("$", "$"),
    ]
)
def test_what_is_not_closed(sql, expected):
    """It goes on to the end, and the server refuses it all."""
    assert short(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "'" + "a" * 50_000,
        "'" + "''" * 50_000 + "a",
        "'a''" * 50_001,
        "E'" + "\\'" * 50_000,
        '"' + 'a""' * 50_000,
        "$a" * 50_000,
        " ".join(f"$t{number}$" for number in range(5_000)),
        "/*" * 50_000,
        "--" * 50_000,
        "'a'" + "\n" * 50_000,
        "'a'\n" + "--\n" * 50_000,
        "a" + " " * 50_000,
        "(" * 50_000,
        "%(" * 20_000,
        "U&'\\" * 5_000,
    ],
    ids=lambda sql: sql[:8] + sql[-8:],
)
def test_no_text_takes_long(sql):
    begun = time.process_time()
    tokens(sql)
    # Nested repetition would take years; this is no measurement.
    assert time.process_time() - begun < 5


def texts(sql):
    return [" ".join(token.text for token in statement) for statement in statements(sql)]


@table(
    [
        ("", []),
        (";;", []),
        ("a; b;; c ;", ["a", "b", "c"]),
        ("a ';' \";\" $$;$$ /*;*/ b -- ;", ["a ; ; ; b"]),
        ("CREATE RULE r DO (a; b); c", ["create rule r do ( a ; b )", "c"]),
        ("a); b", ["a )", "b"]),
        (
            "CREATE FUNCTION f() BEGIN ATOMIC a; b; END; c",
            ["create function f ( ) begin atomic a ; b ; end", "c"],
        ),
        (
            "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE a WHEN b THEN c END; d; END; e",
            ["create function f ( ) begin atomic select case a when b then c end ; d ; end", "e"],
        ),
        (
            "CREATE PROCEDURE f() BEGIN ATOMIC SELECT a AS end; SELECT b AS case; END; c",
            ["create procedure f ( ) begin atomic select a as end ; select b as case ; end", "c"],
        ),
        (
            'CREATE FUNCTION f() BEGIN ATOMIC SELECT "end", t.end; END; c',
            ["create function f ( ) begin atomic select end , t . end ; end", "c"],
        ),
        ("BEGIN; CREATE TABLE atomic (a int); b", ["begin", "create table atomic ( a int )", "b"]),
        ("atomic; end; case", ["atomic", "end", "case"]),
    ]
)
def test_statements(sql, expected):
    assert texts(sql) == expected


PIECES = st.lists(
    st.sampled_from(
        [
            "'",
            '"',
            "$$",
            "$a$",
            "/*",
            "*/",
            "--",
            "\n",
            ";",
            "%s",
            "%(",
            "E'",
            'U&"',
            "\\",
            "a",
            " ",
        ]
    )
    | st.text(max_size=3)
).map("".join)


@given(PIECES)
def test_any_text_is_read_to_its_end(sql):
    for token in tokens(sql):
        assert isinstance(token, Token)
        assert token.quoted <= (token.kind is WORD)
    assert all(statements(sql))


@given(st.text(), st.sampled_from(["'{}'", '"{}"', "$q${}$q$", "E'{}'", "-- {}\n", "/*{}*/"]))
def test_what_is_quoted_is_one_token_at_most(text, quotes):
    """Whatever it is: what stands before and after is seen."""
    text = text.replace("*", "").replace("/", "").replace("$", "")
    if quotes[0] in "'\"E":
        text = text.replace("\\", "\\\\").replace("'", "''").replace('"', '""')
    if quotes.startswith("--"):
        text = text.replace("\n", "").replace("\r", "")
    found = tokens(f"before {quotes.format(text)} after")
    assert found[0] == Token(WORD, "before") and found[-1] == Token(WORD, "after")
    assert len(found) == (2 if quotes[0] in "-/" else 3)
