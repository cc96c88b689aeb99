"""I17: no text takes more than linear time.

What Python does is counted, not timed, for texts of growing length: four times as long, four times
as many steps. What a regular expression does has no counter. So each text is read once more, much
longer, in a process that must end.
"""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from relet.core import TransactionStatus
from relet.core.session.baseline import Baseline
from relet.core.session.ledger import SessionLedger
from relet.core.session.snapshot import names_in
from relet.core.sql import classifier, local, procedural, redefinitions
from relet.core.sql import readonly as reads
from relet.core.sql.classifier import classify
from relet.core.sql.fingerprint import fingerprint, normalized
from relet.core.sql.lexer import readings, tokens
from relet.core.sql.local import local_changes
from relet.core.sql.statements import split

from ..support.interrupts import timers
from ..support.steps import Items, Text, first_that_does_not_end, steps

pytestmark = pytest.mark.slow


#: What stands at the beginning, what is repeated, what stands at the end: for the tokenizer.
TO_READ = {
    # What opens, and is not closed.
    "quotes": ("SELECT '", "''", ""),
    "quotes and letters": ("", "'a''", "b"),
    "escaped quotes": ("SELECT E'", "\\'", ""),
    "E before each": ("", "E'\\'", ""),
    "backslashes": ("SELECT '", "\\", ""),
    "backslashes and quotes": ("SELECT 'a'\n", "'\\'E'", ""),
    "identifiers": ('SELECT "', '""', "a"),
    "identifiers and letters": ("", 'a"', ""),
    "dollars": ("", "$a", ""),
    "tags": ("", "$", "$"),
    "a tag for each": ("SELECT ", "$t{n}$ ", ""),
    "comments": ("", "/*", ""),
    "comments that are closed": ("", "/**/", ""),
    "comments in comments": ("", "/* ", "*/"),
    "placeholders": ("", "%(", ""),
    "placeholders that are closed": ("", "%(", ")s"),
    "placeholders before a letter": ("SELECT setval(", "%sa", ""),
    "names of placeholders": ("SELECT setval(", "%(a'", ""),
    "parentheses": ("", "(", ""),
    "brackets": ("SELECT setval(", "[", ""),
    "unicode": ("", "U&'\\", ""),
    # Strings that go on, or not.
    "a comment after a string": ("CREATE TABLE t (a text DEFAULT 'a' ", "-", "\n, b int)"),
    "comments after a string": ("SELECT 'a' ", "-- ", ""),
    "comments of one line after a string": ("SELECT 'a'\n", "--\n", ""),
    "white space after a string": ("SELECT 'a'\n", " \n", "x"),
    "strings in parts": ("SELECT 'a'", "\n'b'", ""),
    "strings in parts with comments": ("SELECT 'a'", " -- b\n'b'", "'"),
    "bits in parts": ("SELECT b'1'", "\n'0'", ""),
    "escape characters": ("SELECT ", "U&'a' UESCAPE '!',", ""),
    "escape characters of identifiers": ("SELECT ", "U&\"!0061\" UESCAPE '!',", ""),
    # Numbers and operators.
    "digits": ("SELECT nextval(", "1", ")"),
    "parts of digits": ("SELECT nextval(", "1_", ")"),
    "a number of a parameter": ("SELECT pg_advisory_lock($", "1", ")"),
    "dots": ("SELECT nextval(1", ".", ")"),
    "exponents": ("SELECT nextval(", "1e", ")"),
    "minus": ("SELECT nextval(", "- ", ")"),
    "spaces": ("SELECT nextval(", " ", ")"),
    "letters": ("SELECT nextval(", "é", ")"),
    # Names of settings.
    "a name in parts": ("SELECT '", "a.", ""),
    "names in parts": ("SELECT ", "'a.", ""),
    "a long name": ("SET ", "a", "."),
    "spaces before a name": ("SET", " ", "a.b"),
    "words before a name": ("", "set session ", "a.b"),
    # What is no value, or a name that programs make.
    "SET of a role": ("ALTER ROLE a ", "SET ", ""),
    "SET of a role, with names": ("ALTER ROLE a ", "SET a ", "="),
    "SET of roles": ("", ";ALTER ROLE SET a", ""),
    "semicolons in identifiers": ("", ';ALTER ROLE ";"', ""),
    "identifiers with commas": ("", '"a", ', '"'),
    "directions": ("FETCH ", "NEXT ", ""),
    "numbers of rows": ("FETCH ", "- 1 ", ""),
    "EXPLAIN and options": ("EXPLAIN ", "(a) ", ""),
    "AS": ("CREATE ", "AS ", ""),
    "identifiers after CREATE": ("CREATE ", '"AS EXECUTE"', ""),
    "CURRENT OF": ("", "WHERE CURRENT OF ", ""),
    "parts of a name": ("SAVEPOINT ", '"a"', ""),
    "lists that are not closed": ("", "(1, 1", ""),
    "types of an item": ("SELECT f(1, 1", "::a[]", "]"),
    "names in a type of an item": ("SELECT f(1, 1::", 'a."b"', "]"),
    "types of items": ("SELECT f(", "DATE '1'::a[], ", ""),
    "arrays": ("SELECT ", "ARRAY[ 1", ""),
    "signs": ("SELECT ", "(-1 ", ""),
    "cases": ("SELECT CASE", " WHEN a = 1 THEN 2", " ELSE 3 END"),
    "cases that grow": ("SELECT CASE", " WHEN a WHEN a b", ""),
    "names of placeholders that are closed": ("SELECT ", "%(a b)s%(a ", ""),
}
#: For what looks at the tokens.
TO_CLASSIFY = {
    # What is nested, or there many times.
    "calls": ("SELECT ", "f(", ""),
    "locks": ("SELECT ", "pg_advisory_lock(", ")"),
    "settings": ("SELECT ", "set_config('search_path',", ""),
    "settings with values": ("SELECT ", "set_config('search_path','a'||", "'', true)"),
    "settings one after the other": ("SELECT ", "set_config('a', 'b', false),", "1"),
    "sequences": ("SELECT ", "nextval(pg_get_serial_sequence(", ""),
    "columns": ("SELECT ", "pg_advisory_unlock(1),", "1"),
    "names": ("SELECT 1 INTO TEMP a", ".a", ""),
    "schemas": ("SELECT ", "a.", "nextval('s')"),
    "INTO": ("SELECT 1 ", "INTO ", "temp"),
    "insert INTO": ("SELECT 1 ", "insert INTO a.b.c ", "temp"),
    "INTO in a name": ("SELECT 1 ", "INTO.", "temp"),
    "TEMP": ("SELECT 1 INTO ", "temp ", ""),
    "EXPLAIN": ("", "EXPLAIN ANALYZE ", "SELECT nextval('s')"),
    "ON COMMIT": ("CREATE TEMP TABLE a ", "on commit ", ""),
    "DROP": ("DROP TABLE ", "a, ", "b"),
    "DECLARE": ("DECLARE c ", "NO SCROLL ", "CURSOR WITH HOLD FOR SELECT 1"),
    "SET": ("", "SET a{n}.b = 1;", ""),
    "SET and RESET": ("", "SET a{n}.b = 1;", "RESET ALL;"),
    "bodies": ("", "CREATE FUNCTION f() BEGIN ATOMIC ", "END"),
    "ends": ("CREATE FUNCTION f() BEGIN ATOMIC ", "; END", ""),
    "semicolons": ("SET a.b = 1", ";", ""),
    "savepoints": ("BEGIN;", "SAVEPOINT a{n};SET a{n}.b = 1;", "COMMIT"),
    "savepoints that are released": ("BEGIN;", "SAVEPOINT a{n};SET a{n}.b = 1;", "RELEASE x;"),
    "savepoints gone back to": ("BEGIN;", "SAVEPOINT a;LISTEN a{n};ROLLBACK TO a;", "COMMIT"),
    "renamed": ("", "CREATE TEMP TABLE a{n} (a int);ALTER TABLE a RENAME TO b;", ""),
    "given back": ("", "LISTEN a{n};UNLISTEN *;SET a{n}.b = 1;", ""),
    # Code.
    "THEN": ("DO $$", "THEN ", "$$"),
    "THEN SET": ("DO $$", "THEN SET LOCAL a = 1 ", "$$"),
    "THEN CREATE": ("DO $$", "THEN CREATE TABLE a ", "$$"),
    "THEN DROP": ("DO $$", "THEN DROP TABLE a, ", "$$"),
    "declarations": ("DO $$ DECLARE ", "a{n} int; DECLARE load int; ", "BEGIN END $$"),
    "columns like commands": ("DO $$", "THEN load ELSE declare ", "$$"),
    "columns like declarations": ("DO $$", "CASE WHEN a THEN declare - 1 END ", "$$"),
    "targets of queries": ("DO $$", "SELECT 1 INTO temp ", "$$"),
    "strings of code": ("DO $$ EXECUTE ", "'SET a{n}.b = 1' || ", "''$$"),
    "words of code": ("DO LANGUAGE c $$ ", '"set a{n}" ', "$$"),
    "a block in a block": ("", "DO $b{n}$ EXECUTE ", ""),
    "a block in a block, closed": ("DO $a$ ", "EXECUTE 'DO ''SET a.b = 1''';", "$a$"),
    "strings in strings": ("DO 'EXECUTE ", "''''", "'"),
    "definitions": ("", "CREATE OR REPLACE ", "FUNCTION"),
    "definitions in a block": ("DO $$ ", "create ", "$$"),
    "roles in a block": ("DO $$ ", "SET LOCAL ", "ROLE$$"),
    "roles in blocks": ("DO $$ EXECUTE ", "'UPDATE a SET role = {n}' || ", "''$$"),
    "code with backslashes": ("DO $$ EXECUTE ", "E'\\'SET a{n}.b = 1'", "$$"),
    # Dynamic SQL.
    "texts": ("DO $$ DECLARE v text := 'SET a'; BEGIN ", "EXECUTE v || ' = {n}';", "$$"),
    "ranges": ("DO $$ ", "FOR v IN a . ", "EXECUTE v; $$"),
    "queries": ("DO $$ EXECUTE v; SELECT ", "'a' || ", "'b' INTO v $$"),
    "queries of a loop": ("DO $$ EXECUTE v; ", "FOR v IN SELECT ", "$$"),
    "queries in one statement": ("DO $$ EXECUTE v; ", "SELECT 1 INTO v{n} ", "$$"),
    "replacements": ("DO $$ EXECUTE ", "replace('SET a', 'a', ", "'b' $$"),
    "separators": ("DO $$ EXECUTE concat_ws('||', ", "'SET a', ", "'b') $$"),
    "triggers": ("DO $$ ", "create a EXECUTE function ", "$$"),
    "values": ("DO $$ DECLARE v text; BEGIN ", "v := 'SET a.b = {n}';", "EXECUTE v; $$"),
    "assignments": ("DO $$ DECLARE v text; BEGIN ", "THEN v := 1 ", "; EXECUTE v; $$"),
    "what is appended": (
        "DO $$ DECLARE v text := 'SET a '; ",
        "v := v || '= 1 ';",
        "EXECUTE v; $$",
    ),
    "variables": ("DO $$ EXECUTE v0; ", "v{n} := 'SET a' || v;", "$$"),
    "targets": ("DO $$ EXECUTE a; FOR b", ", a", " IN x LOOP $$"),
    "lists of a variable": ("DO $$ EXECUTE a; PERFORM f(b", ", a", "); $$"),
    "formats": ("DO $$ EXECUTE format(", "'%s %s', ", "x) $$"),
    "formats in formats": ("DO $$ EXECUTE ", "format('SET %s', ", "v) $$"),
    "branches": ("DO $$ EXECUTE CASE ", "WHEN a THEN 'SET a = {n}' ", "END; $$"),
    "branches in branches": ("DO $$ EXECUTE ", "CASE WHEN a THEN ", "1; $$"),
    "arguments of format": ("DO $$ EXECUTE format('", "%1$s %s", "', 'SET', 'a') $$"),
    "blocks in blocks": ("DO $$ ", "DO 'EXECUTE ''SET a.b = {n}'' ';", "$$"),
    "coalesce": ("DO $$ EXECUTE coalesce(", "'SET a.b = {n}', ", "'') $$"),
}
BLOCKS = [
    *("'", "''", '"', "$$", "$a$", "/*", "*/", "--", "\n", " ", ";", "(", ")", "[", ",", "."),
    *("E'", "U&'", 'U&"', "N'", "b'", "\\", "\\'", "%s", "%(", ")s", "%", "a", "1", "é", "set "),
    *("into temp ", "insert into ", "merge into ", "using ", "nextval(", "set_config(", "as "),
    *("pg_advisory_lock(", "pg_advisory_unlock(1)", "select ", "create temp table ", "then "),
    *("do ", "execute ", "declare c cursor ", "with hold ", "begin atomic ", "end ", "pg_temp."),
    *("alter table a rename to b;", "savepoint a;", "drop table a, ", "explain analyze "),
]


def generated(count: int) -> dict[str, tuple[str, str, str]]:
    random, found = Random(7), {}
    for number in range(count):
        head = random.choice(("", "SELECT setval(", "DO $body$ EXECUTE ", "SET a.b = 1;"))
        block = "".join(random.choices(BLOCKS, k=random.randint(1, 4)))
        found[f"generated {number}"] = head, block, random.choice(("", *BLOCKS))
    return found


TEXTS = {**TO_READ, **TO_CLASSIFY, **generated(40)}
texts = pytest.mark.parametrize("name", TEXTS)

#: Of a text whose steps are counted, and of one four times as long. Half a step in ten is for
#: what is done once, and for tables that grow.
SHORT, TIMES, MOST_TIMES = 700, 4, 4.6


def text_of(name: str, length: int) -> str:
    """A text as long as that, or a little longer."""
    before, block, after = TEXTS[name]
    number, size, found = 0, len(before) + len(after), [before]
    if "{n}" not in block:
        return before + block * ((length - size) // len(block) + 1) + after
    while size < length:
        found.append(block.replace("{n}", str(number)))
        number, size = number + 1, size + len(found[-1])
    return "".join((*found, after))


def read(sql: str) -> None:
    for way in readings(sql):
        split(way)


def account(sql: str) -> None:
    effects = classify(sql)
    if effects is not None:
        SessionLedger().record(
            (*effects.repeated.resolve(None, None), *effects.resolve(None, None)),
            before=TransactionStatus.IDLE,
            after=TransactionStatus.IN_TRANSACTION,
            ok=True,
            single=effects.single,
            keep=lambda kind: True,
            baseline=Baseline({}, "none", "", frozenset()),
        )
        assert effects.deferred.single is False


def redefined(sql: str) -> None:
    redefinitions.redefines(sql, sql.lower(), known=True)
    redefinitions.changes_path(sql, sql.lower())
    redefinitions.creates(sql)
    for way in readings(sql):
        redefinitions.body_defines(split(way))
        redefinitions.body_creates(split(way))


#: What relet does with a text. (`only_reads` would remember it.)
CALLS = {
    "read": read,
    "account": account,
    "redefined": redefined,
    "only_reads": reads._only_reads,
    "fingerprint": fingerprint,
    # So that the short text is shortened, too.
    "normalized": partial(normalized, length=100),
    "names_in": names_in,
    "local_changes": local_changes,
}


@pytest.fixture
def counted_lists(monkeypatch):
    """Statements are lists whose slices are counted."""

    def items(every):
        return [Items(statement) for statement in split(Items(every))]

    for module in classifier, local, procedural, reads, redefinitions:
        monkeypatch.setattr(module, "split", items)


@texts
@pytest.mark.parametrize("call", CALLS)
def test_four_times_as_long_is_four_times_as_much(name, call, counted_lists):
    short, long = (Text(text_of(name, length)) for length in (SHORT, TIMES * SHORT))
    first, second = steps(CALLS[call], short), steps(CALLS[call], long)
    assert second < MOST_TIMES * first * len(long) / len(short) / TIMES + 2000


def test_what_is_not_linear_is_seen(counted_lists):
    """Else the test above would show nothing."""
    short, long = Text("(" * SHORT), Text("(" * (TIMES * SHORT))

    def find_to_the_end(sql: str) -> None:
        for position in range(0, len(sql), 100):
            sql.find(")", position)

    def slices(sql: str) -> None:
        found = Items(sql)
        for position in range(0, len(found), 100):
            found[position:]

    for function in find_to_the_end, slices:
        assert steps(function, long) > 12 * steps(function, short)


#: To go on to the end from each place where something opens takes a regular expression much longer
#: than `steps.SECONDS`, and to try all ways to match, for ever.
LONG = 150_000


def read_a_long_one(name: str) -> None:
    sql = text_of(name, LONG)
    tokens(sql)
    fingerprint(sql)
    normalized(sql)
    names_in(sql)


@pytest.mark.slow
@timers
def test_regular_expressions():
    assert first_that_does_not_end(read_a_long_one, list(TO_READ)) == ""
