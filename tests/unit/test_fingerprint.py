"""What a statement is like, without its values."""

import pytest

from relet.core.sql.fingerprint import fingerprint, normalized
from relet.core.sql.lexer import STRING, Token, tokens


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 1", "SELECT ?"),
        ("  SELECT\n\t1 ", "SELECT ?"),
        ("SELECT 'it''s', E'a\\'b', $$x'$$, $a$ $$ $a$", "SELECT ?, ?, ?, ?"),
        ("SELECT B'01', U&'x', 1.5e-3", "SELECT ?, ?, ?"),
        ('SELECT "a 1" FROM t1 WHERE x2 = 10', 'SELECT "a 1" FROM t1 WHERE x2 = ?'),
        ("SELECT a -- 'why'\n, b /* 'x' */ FROM t", "SELECT a , b FROM t"),
        ("SELECT %s, %(name)s, '%%'", "SELECT %s, %(name)s, ?"),
        ("SELECT 1 WHERE id IN (%s, %s, %s)", "SELECT ? WHERE id IN (%s, ...)"),
        ("INSERT INTO t VALUES (1, 'a', 2)", "INSERT INTO t VALUES (?, ...)"),
        ("", ""),
        ("SELECT 'without an end", "SELECT ?"),
        ("SELECT 1 /* without an end", "SELECT ?"),
        ("SELECT /* a /* b */ secret */ c --- d", "SELECT c"),
        ("a  /* b */ -- c\n  d", "a d"),
        ("E'\\", "?"),
        # With standard_conforming_strings off, the string goes on.
        (r"SELECT a, 'it\'s a secret', 'b'", "SELECT a, ?..."),
        (r"SELECT 'C:\temp', a", "SELECT ?, a"),
    ],
)
def test_shown(sql, shown):
    assert fingerprint(sql) == shown


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "a",
        "_",
        "t1",
        "é",
        "€",
        "\u05d0\u05b7",
        "e\u0301",
        "\U0001f600",
        "\u00a0",
        "a\u00b7b",
        "पिन",
    ],
)
def test_a_dollar_quote_with_any_tag(tag):
    """Each letter beyond ASCII may be in it, whatever Python takes it for."""
    sql = f"SELECT ${tag}$a secret ' $x$ it's${tag}$, b{tag}c$d$"
    assert fingerprint(sql) == f"SELECT ?, b{tag}c$d$".replace("\u00a0", " ")
    assert tokens(sql)[1] == Token(STRING, "a secret ' $x$ it's")


def test_names_of_any_letters():
    assert fingerprint("SELECT a€$b$secret$b$") == "SELECT a€$b$secret$b$"
    assert fingerprint("SELECT ٣, 1٣") == "SELECT ٣, ?"


@pytest.mark.parametrize("letter", ["\n", "\r", "\x1b", "\x85", "\u2028", "\u202e"])
def test_names_forge_no_line(letter):
    for shown in fingerprint, normalized:
        assert shown(f'SELECT a AS "b{letter}c"') == 'SELECT a AS "b c"'


def test_it_is_cut():
    assert fingerprint("SELECT " + "a, " * 100, length=20) == "SELECT a, a, a, a..."
    assert fingerprint("x" * 10**7).endswith("...")


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SET app.token = abc", "SET app.token = ?"),
        ("set local search_path to red, public", "set local search_path to ?"),
        ('SET SESSION "app"."user" = bob', 'SET SESSION "app"."user" = ?'),
        ("SET TIME ZONE utc", "SET TIME ZONE ?"),
        ("BEGIN; SET a = b; SELECT c", "BEGIN; SET a = ?; SELECT c"),
        ("SET ROLE bob", "SET ROLE bob"),
        ("UPDATE t SET a = b", "UPDATE t SET a = b"),
        ("SET a =", "SET a ="),
        ("SET app /**/ . token=abc", "SET app . token=?"),
        ("SET search_path = a, \"b;c\"; SET b TO 'c', d", "SET search_path = ?; SET b TO ?"),
        ('SET "a=b" = c', 'SET "a=b" = ?'),
        ('SET"a"=b', 'SET"a"=?'),
        ('ALTER ROLE"a"SET"b"TO"c"', 'ALTER ROLE"a"SET"b"TO?'),
        ("SET a = b\u00a0c", "SET a = ?"),
        ('SET app.token = "a;b', "SET app.token = ?"),
        ("SET U&\"!0061\" UESCAPE '!' . b = c", 'SET U&"!0061" UESCAPE ? . b = ?'),
        ("SET LOCAL TIME ZONE INTERVAL '1' HOUR TO MINUTE", "SET LOCAL TIME ZONE ?"),
        ("ALTER SYSTEM SET a = b", "ALTER SYSTEM SET a = ?"),
        ("ALTER DATABASE a SET b.c TO d", "ALTER DATABASE a SET b.c TO ?"),
        ("ALTER ROLE a SET TIME ZONE b", "ALTER ROLE a SET TIME ZONE ?"),
        ("ALTER ROLE ALL IN DATABASE a SET b=c", "ALTER ROLE ALL IN DATABASE a SET b=?"),
        ('ALTER USER "SET a = b" SET c = d', 'ALTER USER "SET a = b" SET c = ?'),
        (
            "CREATE FUNCTION a(b int = 5) RETURNS int LANGUAGE sql SET c.d = e AS $$SELECT 1$$",
            "CREATE FUNCTION a(b int = ?) RETURNS int LANGUAGE sql SET c.d = ?",
        ),
        (
            "create or replace procedure a() set b to c",
            "create or replace procedure a() set b to ?",
        ),
        (
            "ALTER FUNCTION a SET b FROM CURRENT SET c = d",
            "ALTER FUNCTION a SET b FROM CURRENT SET c = ?",
        ),
        ("ALTER PROCEDURE a(int) SET b TO c, d", "ALTER PROCEDURE a(int) SET b TO ?"),
        ("ALTER ROUTINE a SET b = c SET d = e", "ALTER ROUTINE a SET b = ?"),
    ],
)
def test_what_a_set_sets_is_a_value(sql, shown):
    assert fingerprint(sql) == shown


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (UPDATE b SET c = d RETURNING c) SELECT c FROM a",
        "INSERT INTO a (b) VALUES (c) ON CONFLICT (b) DO UPDATE SET b = excluded.b",
        "MERGE INTO a USING b ON a.c = b.c WHEN MATCHED THEN UPDATE SET d = b.d",
        "CREATE TABLE a (b int REFERENCES c ON DELETE SET NULL, d int DEFAULT e)",
        "CREATE RULE a AS ON UPDATE TO b DO INSTEAD UPDATE c SET d = new.d",
        "ALTER TABLE a SET (fillfactor = b)",
        "ALTER TABLE a ALTER b SET DEFAULT c",
        "ALTER FUNCTION a(int) OWNER TO b",
        "ALTER DATABASE a SET TABLESPACE b",
        "SET TRANSACTION READ ONLY",
        'SELECT "SET a = b;SET a = c"',
    ],
)
def test_what_no_parameter_is_set_to_is_no_value(sql):
    assert fingerprint(sql, 200) == sql


def test_a_name_that_is_not_closed():
    assert fingerprint('SELECT a, "b; SET app.token = secret') == "SELECT a, ..."


COLUMNS = ", ".join(f'"shop_order"."column_{number}"' for number in range(20))
WHERE = 'WHERE ("shop_order"."id" = %s AND "shop_order"."state" = %s)'
JOIN = 'INNER JOIN "shop_customer" ON ("shop_order"."customer_id" = "shop_customer"."id")'


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        (
            f'SELECT {COLUMNS} FROM "shop_order" WHERE "shop_order"."id" = 7 FOR UPDATE',
            'SELECT ... FROM "shop_order" WHERE "shop_order"."id" = ? FOR UPDATE',
        ),
        (
            f'SELECT {COLUMNS} FROM "shop_order" {JOIN} {WHERE} FOR NO KEY UPDATE OF "shop_order"',
            'SELECT ... FROM "shop_order" ... WHERE ... FOR NO KEY UPDATE OF "shop_order"',
        ),
        (
            f'SELECT {COLUMNS} FROM "shop_order" {WHERE} ORDER BY "a" LIMIT 7 FOR SHARE NOWAIT',
            'SELECT ... FROM "shop_order" WHERE ... ORDER ... LIMIT ? FOR SHARE NOWAIT',
        ),
        (
            f'INSERT INTO "shop_order" ({COLUMNS}) VALUES ({"%s, " * 19}%s) RETURNING "id"',
            'INSERT INTO "shop_order" ... VALUES ... RETURNING "id"',
        ),
        (
            f'UPDATE "shop_order" SET {COLUMNS.replace(",", " = %s,")} = %s WHERE "id" = 7',
            'UPDATE "shop_order" SET ... WHERE "id" = ?',
        ),
        (
            f'DELETE FROM "shop_order" WHERE "id" IN (SELECT {COLUMNS} FROM "shop_order")',
            'DELETE FROM "shop_order" WHERE ...',
        ),
        (
            f'WITH "old" AS (SELECT {COLUMNS} FROM "a") SELECT {COLUMNS} FROM "old" WHERE "id" = 7',
            'WITH ... SELECT ... FROM "old" WHERE "id" = ?',
        ),
        (
            f'SELECT (SELECT "x" FROM "y" FOR UPDATE), {COLUMNS} FROM "shop_order"',
            'SELECT ... FROM "shop_order"',
        ),
        (
            f'SELECT "FOR UPDATE", {COLUMNS} FROM "shop_order" AS "for", "t" {WHERE}',
            'SELECT ... FROM "shop_order" AS "for", "t" WHERE ...',
        ),
    ],
)
def test_verb_table_and_lock_stay(sql, shown):
    found = fingerprint(sql)
    assert len(found) <= 100
    assert found == shown


def test_a_table_that_is_too_long_itself():
    name = "t" * 200
    assert fingerprint(f"SELECT a, b FROM {name} FOR UPDATE").endswith("tt... FOR UPDATE")
    assert fingerprint(f"SELECT a FROM b FOR UPDATE OF {name}").startswith("SELECT ")
    for sql in f"SELECT a FROM {name} FOR UPDATE", f"SELECT a FROM b FOR UPDATE OF {name}":
        assert len(fingerprint(sql)) <= 100


def test_a_list_of_values_that_goes_on_for_long():
    values = ", ".join(map(str, range(3000)))
    assert fingerprint(f'SELECT "a" FROM "b" WHERE "id" IN ({values}) FOR UPDATE') == (
        'SELECT "a" FROM "b" WHERE "id" IN (?, ...) FOR UPDATE'
    )


# The text under which calls are counted.


@pytest.mark.parametrize("count", [1, 2, 3, 100, 5_000, 60_000])
def test_lists_of_any_length_are_one(count):
    for value in ("%s", "1", "'a'"):
        sql = f"SELECT a FROM t WHERE b IN ({', '.join([value] * count)}) ORDER BY c"
        if count < 100 or value == "%s":
            one = value if value == "%s" else "?"
            assert normalized(sql) == f"SELECT a FROM t WHERE b IN ({one}, ...) ORDER BY c"


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_lists_of_any_length_are_one_however_they_are_written(count):
    sql = f"select a from t where b in ({', '.join(['%s'] * count)})"
    assert normalized(sql) == "select a from t where b in (%s, ...)"
    rows = ", ".join(["(%s, %s)"] * count)
    sql = f"SELECT a FROM t WHERE (b, c) IN ({rows})"
    assert normalized(sql) == "SELECT a FROM t WHERE (b, c) IN ((%s, ...), ...)"


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("%(a{})s", "%s"),
        ("-{}", "?"),
        (" -{}", "?"),
        (".{}", "?"),
        ("'{}'::date", "?::date"),
        ("'{}'::\"a b\".c[]", '?::"a b".c[]'),
        ("DATE '{}'", "DATE ?"),
        ("${}", "$?"),
        ("%s::int", "%s::int"),
    ],
)
def test_lists_of_any_length_are_one_whatever_is_in_them(count, item, shown):
    items = ", ".join(item.format(number) for number in range(1, count + 1))
    assert normalized(f"SELECT a WHERE b IN ({items})") == f"SELECT a WHERE b IN ({shown}, ...)"
    sql = f"SELECT a WHERE b = ANY(ARRAY[{items}])"
    assert normalized(sql) == f"SELECT a WHERE b = ANY(ARRAY[{shown}, ...])"


def test_a_sign_is_part_of_its_value():
    for value in "1", "-1", "- 1", "+.5":
        for sql, shown in [
            (f"SELECT {value}, a FROM b", "SELECT ?, a FROM b"),
            (f"SELECT a WHERE b = {value} AND c <{value}", "SELECT a WHERE b = ? AND c <?"),
            (f"SELECT a * {value} WHERE b ->{value}", "SELECT a * ? WHERE b ->?"),
            (f"SELECT a BETWEEN {value} AND {value}", "SELECT a BETWEEN ? AND ?"),
        ]:
            assert normalized(sql) == shown
    for sql in "SELECT a - ?", "SELECT a -?", "SELECT f(a) - ?", "SELECT a[?]-?", "SELECT a @-?":
        assert normalized(sql.replace("?", "1")) == sql


@pytest.mark.parametrize("count", [2, 3, 100, 20_000])
def test_updates_of_any_number_of_rows_are_one(count):
    cases = " ".join(['WHEN ("t"."id" = %s) THEN %s'] * count)
    pairs = ", ".join(["%s"] * count)
    sql = (
        f'UPDATE "t" SET "a" = CASE {cases} ELSE NULL END, "b" = (CASE {cases} ELSE NULL END)::int '
        f'WHERE "t"."id" IN ({pairs})'
    )
    case = 'CASE WHEN ("t"."id" = %s) THEN %s ... ELSE NULL END'
    shown = f'UPDATE "t" SET "a" = {case}, "b" = ({case})::int WHERE "t"."id" IN (%s, ...)'
    assert normalized(sql) == shown


def test_cases_that_differ_are_not_one():
    sql = "SELECT CASE WHEN a THEN ? WHEN b THEN ? WHEN a THEN ? ELSE c END"
    assert normalized(sql) == sql


def test_cases_that_hide_where_a_string_ends():
    text = f"SELECT ' WHEN ' WHEN ' WHEN ' WHEN 'secret{'x' * 5_000}'"
    assert "secret" in text and "secret" not in normalized(text)


@pytest.mark.parametrize("count", [2, 3, 100, 5_000, 60_000])
def test_rows_of_any_number_are_one(count):
    sql = f"INSERT INTO t (a, b) VALUES {', '.join(['(%s, DEFAULT)'] * count)} RETURNING id"
    assert normalized(sql) == "INSERT INTO t (a, b) VALUES (%s, DEFAULT), ... RETURNING id"


@pytest.mark.parametrize("count", [2, 3, 100, 5_000])
def test_rows_with_named_placeholders_of_any_number_are_one(count):
    rows = ", ".join(f"(%(a_{number})s, %(b_{number})s)" for number in range(count))
    sql = f"INSERT INTO t (a, b) VALUES {rows} RETURNING id"
    assert normalized(sql) == "INSERT INTO t (a, b) VALUES (%s, ...), ... RETURNING id"


@pytest.mark.parametrize("count", [2, 3, 100, 60_000])
def test_rows_with_calls_of_any_number_are_one(count):
    row = "(%s, ST_Point(%s, %s), lower(%s))"
    sql = f"INSERT INTO t (a, b, c) VALUES {', '.join([row] * count)} RETURNING id"
    # A list of placeholders alone is one of any length.
    shown = "(%s, ST_Point(%s, ...), lower(%s))"
    assert normalized(sql) == f"INSERT INTO t (a, b, c) VALUES {shown}, ... RETURNING id"


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ('SAVEPOINT "s140_x1"', "SAVEPOINT ?"),
        ('RELEASE SAVEPOINT "s140_x1"', "RELEASE SAVEPOINT ?"),
        ("RELEASE s1", "RELEASE ?"),
        ('ROLLBACK TO SAVEPOINT "a""b"', "ROLLBACK TO SAVEPOINT ?"),
        ("rollback to a; savepoint b", "rollback to ?; savepoint ?"),
        ("PREPARE p (int) AS SELECT $1", "PREPARE ? (int) AS SELECT $?"),
        ("EXECUTE p(1)", "EXECUTE ?(?)"),
        ("DEALLOCATE PREPARE p", "DEALLOCATE PREPARE ?"),
        ('DECLARE "c1" CURSOR WITH HOLD FOR SELECT 1', "DECLARE ? CURSOR WITH HOLD FOR SELECT ?"),
        ('FETCH FORWARD 100 FROM "c1"', "FETCH FORWARD ? FROM ?"),
        ("MOVE 5 IN c1", "MOVE ? IN ?"),
        ("CLOSE c1", "CLOSE ?"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION ?"),
        ("UPDATE t SET savepoint = 1", "UPDATE t SET savepoint = ?"),
        ("DO $$ BEGIN RAISE 'secret'; END $$", "DO ?"),
        ("ABORT TRANSACTION TO a", "ABORT TRANSACTION TO ?"),
        ('SAVEPOINT U&"a"', "SAVEPOINT ?"),
        ("SAVEPOINT U&\"a\" UESCAPE '!'", "SAVEPOINT ?"),
        ('SELECT "a;SAVEPOINT b"; SAVEPOINT c', 'SELECT "a;SAVEPOINT b"; SAVEPOINT ?'),
        ("FETCH a", "FETCH ?"),
        ("FETCH NEXT a", "FETCH NEXT ?"),
        ("FETCH BACKWARD ALL IN a", "FETCH BACKWARD ALL IN ?"),
        ('MOVE FORWARD 5 "a FROM b"', "MOVE FORWARD ? ?"),
        ('FETCH"a"', "FETCH?"),
        ('SAVEPOINT"a"', "SAVEPOINT?"),
        ("SAVEPOINT a\u00a0b", "SAVEPOINT ?"),
        ('EXPLAIN(ANALYZE)EXECUTE"a"(1)', "EXPLAIN(ANALYZE)EXECUTE?(?)"),
        ('CREATE TABLE"a"AS EXECUTE"b"', 'CREATE TABLE"a"AS EXECUTE?'),
        ('DELETE FROM a WHERE CURRENT OF"b"', "DELETE FROM a WHERE CURRENT OF?"),
        ("FETCH ABSOLUTE -5 FROM a", "FETCH ABSOLUTE -? FROM ?"),
        ("FETCH %s FROM a", "FETCH %s FROM ?"),
        ("EXPLAIN EXECUTE a(1)", "EXPLAIN EXECUTE ?(?)"),
        ("EXPLAIN (ANALYZE, TIMING off) EXECUTE a", "EXPLAIN (ANALYZE, TIMING off) EXECUTE ?"),
        ("EXPLAIN VERBOSE DECLARE a CURSOR FOR b", "EXPLAIN VERBOSE DECLARE ? CURSOR FOR b"),
        ("CREATE TEMP TABLE a (b) AS EXECUTE c(1)", "CREATE TEMP TABLE a (b) AS EXECUTE ?(?)"),
        (
            'EXPLAIN ANALYZE VERBOSE CREATE TABLE "a AS b" AS EXECUTE c',
            'EXPLAIN ANALYZE VERBOSE CREATE TABLE "a AS b" AS EXECUTE ?',
        ),
        (
            "CREATE VIEW a AS SELECT b AS execute FROM c",
            "CREATE VIEW a AS SELECT b AS execute FROM c",
        ),
        ("DELETE FROM a WHERE CURRENT OF b", "DELETE FROM a WHERE CURRENT OF ?"),
        ('UPDATE a SET b = c WHERE CURRENT OF "d"', "UPDATE a SET b = c WHERE CURRENT OF ?"),
    ],
)
def test_names_that_programs_make_make_no_difference(sql, shown):
    assert normalized(sql) == shown


def test_long_texts_are_cut():
    assert len(normalized("SELECT " + ", ".join(f"a{number}" for number in range(10**5)))) <= 2_000
    assert normalized("SELECT '" + "secret" * 10**5) == "SELECT ?"


WIDE = ", ".join(f'"shop_order"."column_{number}"' for number in range(900))
LONG = f'SELECT {WIDE} FROM "shop_order" WHERE "shop_order"."id" = %s ORDER BY "a"'


@pytest.mark.parametrize(
    "other",
    [
        LONG.replace('"id"', '"state"'),
        LONG.replace("column_7", "column_x"),
        LONG.replace("column_899", "column_x"),
        LONG + ", b",
    ],
    ids=["condition", "column", "last column", "order"],
)
def test_long_statements_that_differ_are_not_one(other):
    assert len(LONG) > 20_000
    assert normalized(LONG) != normalized(other)


def test_a_long_statement_shows_its_tables_and_conditions():
    shown = 'SELECT ... FROM "shop_order" WHERE "shop_order"."id" = %s ORDER BY "a" #x'
    assert normalized(LONG).startswith(shown)
    assert normalized(normalized(LONG)) == normalized(LONG)
    # The server's text of it.
    assert normalized(LONG.replace("%s", "?")) == normalized(LONG).replace("%s", "?")


def test_long_statements_that_differ_in_their_values_are_one():
    assert normalized(LONG.replace("%s", "1")) == normalized(LONG.replace("%s", "'abc'"))
    lists = (", ".join(str(number) for number in range(start, 9_000)) for start in (7, 4_711))
    first, second = (normalized(f"SELECT a FROM b WHERE c IN ({values})") for values in lists)
    assert first == second == "SELECT a FROM b WHERE c IN (?, ...)"


def test_rows_that_hide_where_a_string_ends():
    text = "SELECT ($$), ($$), ($$), ($$), $$secret" + "x" * 5_000 + "$$"
    assert "secret" not in normalized(text)
