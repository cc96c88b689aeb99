"""What a statement is like, without its values."""

import pytest

from relet.core.sql.fingerprint import fingerprint, normalized


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
    ],
)
def test_what_a_set_sets_is_a_value(sql, shown):
    assert fingerprint(sql) == shown


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


@pytest.mark.parametrize("count", [2, 3, 100, 5_000, 60_000])
def test_rows_of_any_number_are_one(count):
    sql = f"INSERT INTO t (a, b) VALUES {', '.join(['(%s, DEFAULT)'] * count)} RETURNING id"
    assert normalized(sql) == "INSERT INTO t (a, b) VALUES (%s, DEFAULT), ... RETURNING id"


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
    ],
)
def test_names_that_programs_make_make_no_difference(sql, shown):
    assert normalized(sql) == shown


def test_long_texts_are_cut():
    assert len(normalized("SELECT " + ", ".join(f"a{number}" for number in range(10**5)))) <= 2_000
    assert normalized("SELECT '" + "secret" * 10**5) == "SELECT ?"
