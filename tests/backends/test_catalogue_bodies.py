"""I3 in what functions run: dynamic SQL, blocks in blocks, names that are put together."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.db.backends.signals import connection_created

from ..support.fingerprint import difference, fingerprint
from ..support.pools import at_rest

SCHEMA = "relet_bodies"
PATH = {"OPTIONS": {"options": f"-c search_path={SCHEMA},public"}}
CLEAN = f"""
DROP EVENT TRIGGER IF EXISTS relet_bodies_event;
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
DROP EXTENSION IF EXISTS tablefunc;
"""
SETUP = f"""
{CLEAN}
CREATE SCHEMA {SCHEMA};
SET search_path = {SCHEMA};
CREATE FUNCTION trap() RETURNS int LANGUAGE plpgsql AS $$
  BEGIN PERFORM set_config('app.trapped', 'yes', false); RETURN 1; END $$;
CREATE FUNCTION locking() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM pg_advisory_lock_shared(4712); RETURN NULL; END $$;
CREATE FUNCTION locking_event() RETURNS event_trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM pg_advisory_lock_shared(4713); END $$;
CREATE TABLE plain (id int);
CREATE TABLE audited (id int);
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON audited EXECUTE FUNCTION locking();
"""
#: So many names with effects that a text is searched for its words.
MANY = "".join(
    f"CREATE FUNCTION many_{n}() RETURNS int LANGUAGE sql AS $$ SELECT trap() $$;"
    for n in range(12)
)


def table(name):
    """A table with a trigger that takes a lock."""
    return (
        f"CREATE TABLE {name} (a text); CREATE TRIGGER audit AFTER INSERT ON {name} "
        "EXECUTE FUNCTION locking();"
    )


def f(body, declare="", args=""):
    return (
        f"CREATE FUNCTION f({args}) RETURNS void LANGUAGE plpgsql AS "
        f"$f$ {declare} BEGIN {body} END $f$;"
    )


DOMAIN = "CREATE DOMAIN d AS text CHECK (trap() = 1);"
COPIED = "CREATE TABLE jobs (n int, command text); INSERT INTO jobs VALUES (1, 'SELECT trap()');"
MADE = {
    # How a text is written.
    "a name beside dollars": (f("EXECUTE $$DELETE FROM audited$$;"), "SELECT f()"),
    "a name after a backslash": (f(r"EXECUTE E'DELETE FROM\naudited';"), "SELECT f()"),
    "a name in two pieces": (f("EXECUTE 'DELETE FROM aud' || 'ited';"), "SELECT f()"),
    "a block in two pieces": ("", "DO 'BEGIN PERFORM tr'\n'ap(); END'"),
    "a block in two pieces with a comment": ("", "DO 'BEGIN PERFORM tr' -- x\n'ap(); END'"),
    "a block with escapes": ("", "DO U&'BEGIN PERFORM !0074rap(); END' UESCAPE '!'"),
    "a block in two pieces in a function": (
        f("DO 'BEGIN PERFORM tr'\n'ap(); END';"),
        "SELECT f()",
    ),
    "a block with escapes in a function": (
        f("DO U&'BEGIN PERFORM !0074rap(); END' UESCAPE '!';"),
        "SELECT f()",
    ),
    "a text of a function in two pieces": (
        "",
        "SELECT * FROM ts_stat('SELECT to_tsvector(tr'\n'ap()::text)')",
    ),
    "a text of a function with escapes": (
        "",
        "SELECT * FROM ts_stat(U&'SELECT to_tsvector(!0074rap()::text)' UESCAPE '!')",
    ),
    "a text in two pieces that a function runs": (
        f("PERFORM * FROM ts_stat('SELECT to_tsvector(tr'\n'ap()::text)');"),
        "SELECT f()",
    ),
    # Variables to which is appended.
    "command and name": (
        f("q := q || ' audited'; EXECUTE q;", "DECLARE q text := 'DELETE FROM';"),
        "SELECT f()",
    ),
    "command and quoted name": (
        f(
            "q := q || quote_ident('audited') || ' VALUES (1)'; EXECUTE q;",
            "DECLARE q text := 'INSERT INTO ';",
        ),
        "SELECT f()",
    ),
    "name and call": (
        f(
            "q := q || ' (''app.trapped'', ''x'', false)'; EXECUTE q;",
            "DECLARE q text := 'SELECT set_config';",
        ),
        "SELECT f()",
    ),
    "two pieces of a name": (
        f("q := q || 'ited'; EXECUTE q;", "DECLARE q text := 'DELETE FROM aud';"),
        "SELECT f()",
    ),
    # Values that are run.
    "a block that is a value": (
        f("EXECUTE format('DO %L', 'BEGIN PERFORM trap(); END');"),
        "SELECT f()",
    ),
    "a block that is a value of a parameter": (
        f("EXECUTE 'DO ' || quote_literal(c);", "", "c text"),
        "SELECT f('BEGIN PERFORM tr' || 'ap(); END')",
    ),
    "a text of a function that is a value": (
        f(
            "EXECUTE format('SELECT * FROM ts_stat(%L)', c);",
            "DECLARE c text := 'SELECT to_tsvector(trap()::text)';",
        ),
        "SELECT f()",
    ),
    "a text of a function that is a value of a parameter": (
        f("EXECUTE format('SELECT * FROM ts_stat(%L)', c);", "", "c text"),
        "SELECT f('SELECT to_tsvector(trap()::text)')",
    ),
    # What a name may be.
    "a variable called procedure": (
        f("EXECUTE procedure;", "", "procedure text"),
        "SELECT f('SELECT trap()')",
    ),
    "a function with its parameters": (
        f("EXECUTE 'SELECT ' || p::regprocedure;", "", "p text"),
        "SELECT f('trap()')",
    ),
    "a domain": (
        DOMAIN + f("EXECUTE 'SELECT ''x''::' || p::regtype;", "", "p text"),
        "SELECT f('d')",
    ),
    "a domain that is quoted": (
        DOMAIN + f("EXECUTE format('SELECT $1::%I', p) USING 'x'::text;", "", "p text"),
        "SELECT f('d')",
    ),
    "a schema of temporary tables": (
        f(
            "EXECUTE format('SET LOCAL search_path = %I', p); CREATE TABLE t (a int);",
            "",
            "p text",
        ),
        "SELECT f('pg_temp')",
    ),
    # Parts of names.
    "a date in a name": (
        table("ev_2020")
        + f("EXECUTE 'INSERT INTO ev_' || to_char(DATE '2020-01-01', 'YYYY') || ' VALUES (1)';"),
        "SELECT f()",
    ),
    "a table's name in a name": (
        table("plain_log") + "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN"
        " EXECUTE format('INSERT INTO %s_log VALUES ($1)', TG_TABLE_NAME) USING 'x';"
        " RETURN NULL; END $f$; CREATE TRIGGER t AFTER INSERT ON plain EXECUTE FUNCTION t()",
        "INSERT INTO plain VALUES (1)",
    ),
    "a number in a name": (
        table("p_1")
        + f("EXECUTE format('INSERT INTO p_%s VALUES (1)', n::int);", "DECLARE n int := 1;"),
        "SELECT f()",
    ),
    "a part of a function's name": (
        MANY + f("EXECUTE format('SELECT %s_1()', quote_ident('many'));"),
        "SELECT f()",
    ),
    "a part of the name of a function of PostgreSQL's": (
        f("EXECUTE format('SELECT pg_%s_lock_shared(1)', quote_ident('advisory'));"),
        "SELECT f()",
    ),
    "a schema that may be the temporary one": (
        f("EXECUTE format('CREATE TABLE %I.scratch (a int)', s);", "", "s text"),
        "SELECT f('pg_' || 'temp')",
    ),
    # Several values of a variable.
    "either of two": (
        f(
            "IF l THEN v := 'SET LOCAL'; ELSE v := 'SET SESSION'; END IF;"
            " EXECUTE v || ' app.trapped = 1';",
            "DECLARE v text;",
            "l bool",
        ),
        "SELECT f(false)",
    ),
    "LOCAL or nothing": (
        f(
            "IF l THEN v := 'LOCAL'; END IF; EXECUTE 'SET ' || v || ' app.trapped = 1';",
            "DECLARE v text := '';",
            "l bool",
        ),
        "SELECT f(false)",
    ),
    "LOCAL or NULL": (
        f(
            "IF l THEN v := 'LOCAL'; END IF; EXECUTE format('SET %s app.trapped = 1', v);",
            "DECLARE v text;",
            "l bool",
        ),
        "SELECT f(false)",
    ),
    "ON COMMIT DROP or nothing": (
        f(
            "IF l THEN v := 'ON COMMIT DROP'; END IF; EXECUTE 'CREATE TEMP TABLE x (a int) ' || v;",
            "DECLARE v text := '';",
            "l bool",
        ),
        "SELECT f(false)",
    ),
    "LOCAL is appended or not": (
        f(
            "IF l THEN q := q || 'LOCAL '; END IF; q := q || 'app.trapped = 1'; EXECUTE q;",
            "DECLARE q text := 'SET ';",
            "l bool",
        ),
        "SELECT f(false)",
    ),
    # Values that are not in the source.
    "coalesce": (
        f(
            "IF false THEN v := 'SELECT 1'; END IF; EXECUTE coalesce(v, c);",
            "DECLARE v text;",
            "c text",
        ),
        "SELECT f('SELECT tr' || 'ap()')",
    ),
    "ALIAS": (
        f(
            "IF c IS NULL THEN c := 'SELECT 1'; END IF; EXECUTE c;",
            "DECLARE c ALIAS FOR $1;",
            "text",
        ),
        "SELECT f('SELECT tr' || 'ap()')",
    ),
    "FOR a, b IN": (
        COPIED
        + f(
            "FOR n, c IN SELECT * FROM jobs LOOP EXECUTE c; END LOOP;",
            "DECLARE n int; c text := 'SELECT 1';",
        ),
        "SELECT f()",
    ),
    "CALL with INOUT": (
        "CREATE PROCEDURE p(INOUT c text) LANGUAGE plpgsql AS $f$"
        " BEGIN SELECT 'SELECT tr' || 'ap()' INTO c; END $f$;"
        + f("CALL p(c); EXECUTE c;", "DECLARE c text := 'SELECT 1';"),
        "SELECT f()",
    ),
    "GET STACKED DIAGNOSTICS": (
        f(
            "BEGIN RAISE EXCEPTION 'SELECT trap()'; EXCEPTION WHEN others THEN"
            " GET STACKED DIAGNOSTICS c = MESSAGE_TEXT; END; EXECUTE c;",
            "DECLARE c text := 'SELECT 1';",
        ),
        "SELECT f()",
    ),
    "text in a template of to_char": (
        f("""EXECUTE 'SELECT ' || to_char(now(), '"trap()"');"""),
        "SELECT f()",
    ),
    # Blocks.
    "a block in a function": (f("DO $x$ BEGIN PERFORM trap(); END $x$;"), "SELECT f()"),
    "a block in EXECUTE": (f("EXECUTE 'DO $x$ BEGIN PERFORM trap(); END $x$';"), "SELECT f()"),
    "a block whose command is in a table": (
        COPIED,
        "DO $$ DECLARE c text; BEGIN SELECT command INTO c FROM jobs; EXECUTE c; END $$",
    ),
    "a block whose command is in pieces": (
        "",
        "DO $d$ BEGIN EXECUTE 'S' || 'ET app.trapped = 1'; END $d$",
    ),
    "a block with a name in pieces": (
        MANY,
        "DO $d$ BEGIN EXECUTE 'DELETE FROM aud' || 'ited'; END $d$",
    ),
    "a block with a name beside dollars": (
        MANY,
        "DO $d$ BEGIN EXECUTE $$DELETE FROM audited$$; END $d$",
    ),
    "a block with a name after a backslash": (
        MANY,
        r"DO $d$ BEGIN EXECUTE E'DELETE FROM\naudited'; END $d$",
    ),
}
LONG = "f" * 70
EVENT = (
    "CREATE EVENT TRIGGER relet_bodies_event ON ddl_command_start EXECUTE FUNCTION locking_event();"
)
MOODS = """
CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('sad');
CREATE FUNCTION equal(mood, text) RETURNS bool LANGUAGE sql AS $$ SELECT trap() = 1 $$;
CREATE FUNCTION to_int(mood) RETURNS int LANGUAGE sql AS $$ SELECT trap() $$;
"""


def operator(name):
    return f"{MOODS} CREATE OPERATOR {name} (FUNCTION = equal, LEFTARG = mood, RIGHTARG = text);"


MADE |= {
    # Texts and names that functions of PostgreSQL's and of extensions take.
    "ts_stat": ("", "SELECT * FROM ts_stat('SELECT to_tsvector(trap()::text)')"),
    "ts_stat in a function": (
        f("PERFORM * FROM ts_stat('SELECT to_tsvector(trap()::text)');"),
        "SELECT f()",
    ),
    "connectby": (
        "CREATE EXTENSION tablefunc; CREATE VIEW v AS SELECT 1::text AS k, trap()::text AS p",
        "SELECT * FROM connectby('v', 'k', 'p', '1', 0) AS t(k text, p text, l int)",
    ),
    # Functions in C under another name.
    "crosstab": (
        (
            "CREATE EXTENSION tablefunc; CREATE FUNCTION of_names(text)"
            " RETURNS SETOF tablefunc_crosstab_2"
            " AS '$libdir/tablefunc', 'crosstab' LANGUAGE c STABLE STRICT"
        ),
        "SELECT * FROM of_names('SELECT trap()::text, ''a''::text, ''b''::text')",
    ),
    "set_limit": (
        (
            "CREATE FUNCTION set_similarity(real) RETURNS real"
            " AS '$libdir/pg_trgm', 'set_limit' LANGUAGE c"
        ),
        "SELECT set_similarity(0.7)",
    ),
    "pg_advisory_lock_shared": (
        (
            "CREATE FUNCTION guard(bigint) RETURNS void"
            " LANGUAGE internal AS 'pg_advisory_lock_shared_int8'"
        ),
        "SELECT guard(5)",
    ),
    "ts_stat under another name": (
        (
            "CREATE FUNCTION stat(text, OUT word text, OUT ndoc int, OUT nentry int)"
            " RETURNS SETOF record LANGUAGE internal AS 'ts_stat1'"
        ),
        "SELECT * FROM stat('SELECT to_tsvector(trap()::text)')",
    ),
    # How a table, a function or an operator may be written.
    "DELETE FROM ONLY (t)": ("", "DELETE FROM ONLY (audited)"),
    "UPDATE ONLY (t)": ("", "UPDATE ONLY (audited) SET id = 1"),
    "MERGE INTO ONLY (t)": (
        "",
        (
            "MERGE INTO ONLY (audited) USING (VALUES (1)) v(x) ON id = x"
            " WHEN NOT MATCHED THEN INSERT VALUES (1)"
        ),
    ),
    "EXPLAIN with many options": (
        "",
        "EXPLAIN (FORMAT JSON, BUFFERS true, COSTS false, TIMING false, ANALYZE) SELECT trap()",
    ),
    "a long name of a function": (
        f"CREATE FUNCTION {LONG}() RETURNS int LANGUAGE sql AS $$ SELECT trap() $$",
        f"SELECT {LONG}()",
    ),
    "a long name of a table": (table(LONG), f"INSERT INTO {LONG} VALUES ('x')"),
    "a long name in a function": (
        table(LONG) + f(f"INSERT INTO {LONG} VALUES ('x');"),
        "SELECT f()",
    ),
    "a name with a quote": (
        'CREATE FUNCTION "a""b"() RETURNS int LANGUAGE sql AS $$ SELECT trap() $$',
        'SELECT "a""b"()',
    ),
    "a name with a letter that becomes two": (
        MANY + 'CREATE FUNCTION "İşlem"() RETURNS int LANGUAGE sql AS $$ SELECT trap() $$',
        'SELECT "İşlem"()',
    ),
    "a name with a dollar sign": (
        MANY + "CREATE FUNCTION a$b() RETURNS int LANGUAGE sql AS $$ SELECT trap() $$",
        "SELECT a$b()",
    ),
    "!=": (operator("<>"), "SELECT m != 'x'::text FROM moods"),
    "IN": (operator("="), "SELECT m IN ('x'::text, 'y'::text) FROM moods"),
    "IN in a function": (
        operator("=") + f("PERFORM m IN ('x'::text, 'y'::text) FROM moods;"),
        "SELECT f()",
    ),
    "LIKE": (operator("~~"), "SELECT m LIKE 'x'::text FROM moods"),
    "BETWEEN": (
        operator(">=") + "CREATE OPERATOR <= (FUNCTION = equal, LEFTARG = mood, RIGHTARG = text)",
        "SELECT m BETWEEN 'x'::text AND 'y'::text FROM moods",
    ),
    "NULLIF": (operator("="), "SELECT NULLIF(m, 'x'::text) FROM moods"),
    "IS DISTINCT FROM": (operator("="), "SELECT m IS DISTINCT FROM 'x'::text FROM moods"),
    "another name of a type": (
        f"{MOODS} CREATE CAST (mood AS int) WITH FUNCTION to_int(mood)",
        "SELECT m::integer FROM moods",
    ),
    # Event triggers.
    "SELECT INTO": (EVENT, "SELECT 1 AS a INTO made"),
    "a definition in a block": (EVENT, "DO $$ BEGIN CREATE TABLE made (a int); END $$"),
    "a definition in a function": (f("CREATE TABLE made (a int);") + EVENT, "SELECT f()"),
    "a definition in dynamic SQL": (
        f("EXECUTE format('CREATE TABLE %I (a int)', 'made');") + EVENT,
        "SELECT f()",
    ),
    # Defined and used in one text.
    "a function that is called at once": (
        "",
        (
            "CREATE FUNCTION made() RETURNS text LANGUAGE sql AS"
            " $$ SELECT set_config('app.trapped', 'x', false) $$; SELECT made()"
        ),
    ),
    "a trigger that fires at once": (
        "",
        (
            "CREATE TRIGGER made AFTER INSERT ON plain EXECUTE FUNCTION locking();"
            " INSERT INTO plain VALUES (1)"
        ),
    ),
    "a function that a block makes and calls": (
        "",
        (
            "DO $$ BEGIN CREATE FUNCTION made() RETURNS text LANGUAGE sql AS"
            " 'SELECT set_config(''app.trapped'', ''x'', false)'; PERFORM made(); END $$"
        ),
    ),
}
made = pytest.mark.parametrize("name", MADE)

#: Dynamic SQL that leaves nothing.
NOT_MADE = {
    "a part of another name": (
        table("log_1") + f("EXECUTE 'INSERT INTO ev_' || n::int || ' VALUES (1)';", "", "n int"),
        "CREATE TABLE ev_1 (a int); SELECT f(1)",
    ),
    "a trigger that makes partitions": (
        table("log_1")
        + """
CREATE TABLE people (id int, born date);
CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $f$
DECLARE part text;
BEGIN
  part := 'people_' || to_char(NEW.born, 'YYYY_MM');
  IF NOT EXISTS (SELECT 1 FROM pg_class WHERE relname = part) THEN
    EXECUTE 'CREATE TABLE ' || quote_ident(part) || ' (CHECK (born >= '
      || quote_literal(date_trunc('month', NEW.born)::date) || ')) INHERITS (people)';
    EXECUTE format('CREATE INDEX %I ON %I (born)', part || '_born', part);
  END IF;
  EXECUTE 'INSERT INTO ' || quote_ident(part) || ' VALUES ($1.*)' USING NEW;
  RETURN NULL;
END $f$;
CREATE TRIGGER t BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION t()""",
        "INSERT INTO people VALUES (1, '2020-01-01')",
    ),
    "parameters of types that are known": (
        f(
            "EXECUTE 'SELECT 1 FROM ' || t || ' LIMIT ' || n; EXECUTE 'SELECT ' || $2;",
            "",
            "t regclass, n int, OUT x int",
        ).replace("RETURNS void", ""),
        "SELECT f('plain', 1)",
    ),
    "partitions in a loop": (
        f("FOR i IN 1..2 LOOP EXECUTE format('CREATE TABLE p_%s (id int)', i); END LOOP;"),
        "SELECT f()",
    ),
    "columns of a table": (
        f(
            "SELECT string_agg(quote_ident(attname), ', ') INTO q FROM pg_attribute"
            " WHERE attrelid = 'plain'::regclass AND attnum > 0;"
            " EXECUTE 'SELECT ' || q || ' FROM plain';",
            "DECLARE q text;",
        ),
        "SELECT f()",
    ),
    "variables that are called like commands": (
        f(
            "SELECT 1 INTO temp; load := temp; listen := 'a'; reset := true;",
            "DECLARE temp int; load int; listen text; reset bool; prepare int;",
        ),
        "SELECT f()",
    ),
    "names with commas": (
        f(
            "FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = 'plain'::regclass"
            " AND attnum > 0 LOOP IF q <> '' THEN q := q || ', '; END IF;"
            " q := q || quote_ident(c); END LOOP; EXECUTE 'SELECT ' || q || ' FROM plain';",
            "DECLARE c name; q text := '';",
        ),
        "SELECT f()",
    ),
    "either direction": (
        f(
            "EXECUTE format('TABLE plain ORDER BY id %s', CASE WHEN l THEN 'ASC' ELSE 'DESC' END);",
            "",
            "l bool",
        ),
        "SELECT f(true)",
    ),
    "a table that has no trigger": (
        table("log_1") + f("EXECUTE format('INSERT INTO %I VALUES (1)', 'plain');"),
        "SELECT f()",
    ),
    "a condition that is appended or not": (
        f(
            "IF l THEN q := q || ' WHERE id > 1'; END IF; q := q || ' LIMIT 1'; EXECUTE q;",
            "DECLARE q text := 'SELECT 1 FROM plain';",
            "l bool",
        ),
        "SELECT f(true)",
    ),
    "many conditions": (
        f(
            "".join(f"IF l THEN q := q || ' AND id > {n}'; END IF; " for n in range(12))
            + "EXECUTE q;",
            "DECLARE q text := 'SELECT 1 FROM plain WHERE true';",
            "l bool",
        ),
        "SELECT f(true)",
    ),
    "values or NULL": (
        f(
            "EXECUTE 'INSERT INTO plain VALUES ('"
            + " || '), (' ".join("|| coalesce(quote_literal(n), 'NULL')" for _ in range(8))
            + " || ')';",
            "",
            "n int",
        ),
        "SELECT f(1)",
    ),
    "definitions": (
        "",
        (
            "CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1';"
            " CREATE VIEW view_made AS SELECT made(); COMMENT ON VIEW view_made IS 'x'"
        ),
    ),
    "a block that defines": (
        "",
        (
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM plain WHERE id = 1) THEN"
            " CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'; END IF; END $$"
        ),
    ),
    "a query with an event trigger": (EVENT, "INSERT INTO plain SELECT 1"),
    "another operator": (operator("~~"), "SELECT m IN ('sad') FROM moods"),
    "a table in a block": ("", "DO $$ BEGIN EXECUTE format('TABLE %I', 'plain'); END $$"),
    "a template of a date": (
        f("EXECUTE 'SELECT ''' || to_char(now(), 'YYYY-MM-DD HH24:MI') || '''';"),
        "SELECT f()",
    ),
}


def run(wrapper, sql):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)


def state(wrapper):
    """What the next borrower has."""
    pool = wrapper._runner.find_pool().pool
    pool.open()
    connection = pool.checkout()
    try:
        return fingerprint(connection.raw, ("app.trapped",))
    finally:
        pool.checkin(connection)


@pytest.fixture
def defined(observer):
    def define(sql):
        observer.execute(SETUP + sql)
        observer.execute("RESET search_path")

    yield define
    observer.execute("RESET search_path")
    observer.execute(CLEAN)


@made
def test_it_keeps_the_lease_and_is_undone(make, defined, name):
    definition, statement = MADE[name]
    defined(definition)
    wrapper = make(**PATH)
    run(wrapper, "SELECT 1")
    before = state(wrapper)
    run(wrapper, statement)
    kept = wrapper._runner.lease.connection is not None
    wrapper.close()
    assert not difference(before, state(wrapper))
    assert kept


@pytest.mark.parametrize("name", NOT_MADE)
def test_what_leaves_nothing_keeps_nothing(make, defined, name):
    definition, statement = NOT_MADE[name]
    defined(definition)
    wrapper = make(**PATH)
    run(wrapper, statement)
    assert at_rest(wrapper)


def test_a_temporary_table_that_a_function_renames(make, defined):
    defined(f("ALTER TABLE before RENAME TO after;"))
    wrapper = make(**PATH)
    for sql in (
        "CREATE TEMP TABLE before (a int)",
        "SELECT f()",
        "DROP TABLE IF EXISTS before",
        "TABLE after",
    ):
        run(wrapper, sql)


@contextmanager
def receiver(sql):
    """Have each new connection run *sql*."""

    def receive(connection, **_):
        run(connection, sql)

    connection_created.connect(receive)
    try:
        yield
    finally:
        connection_created.disconnect(receive)


TABLE = "CREATE TEMP TABLE context AS SELECT 1 AS a"
CURSOR = "DECLARE context CURSOR WITH HOLD FOR SELECT generate_series(1, 2)"


@pytest.mark.parametrize(
    ("made", "changed", "read"),
    [
        (TABLE, "ALTER TABLE context RENAME TO other", "TABLE context"),
        (TABLE, "DROP TABLE context", "TABLE context"),
        (TABLE, "SELECT f()", "TABLE context"),
        (CURSOR, "FETCH context", "FETCH context"),
        (CURSOR, "MOVE context", "FETCH context"),
        (CURSOR, "CLOSE context", "FETCH context"),
    ],
)
def test_what_a_receiver_made_is_there_for_the_next(make, defined, made, changed, read):
    defined(f("DROP TABLE context;"))
    with receiver(made):
        wrapper = make(**PATH)
        run(wrapper, changed)
        wrapper.close()
        with wrapper.cursor() as cursor:
            cursor.execute(read)
            assert [*map(tuple, cursor.fetchall())] == [(1,)]
