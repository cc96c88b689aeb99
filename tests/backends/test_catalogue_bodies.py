"""I3 in what functions run: dynamic SQL, blocks in blocks, names that are put together."""

from __future__ import annotations

import pytest

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


COPIED = "CREATE TABLE jobs (n int, command text); INSERT INTO jobs VALUES (1, 'SELECT trap()');"
MADE = {
    # How a text is written.
    "a name beside dollars": (f("EXECUTE $$DELETE FROM audited$$;"), "SELECT f()"),
    "a name after a backslash": (f(r"EXECUTE E'DELETE FROM\naudited';"), "SELECT f()"),
    "a name in two pieces": (f("EXECUTE 'DELETE FROM aud' || 'ited';"), "SELECT f()"),
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
made = pytest.mark.parametrize("name", MADE)

#: Dynamic SQL that leaves nothing.
NOT_MADE = {
    "a part of another name": (
        table("log_1") + f("EXECUTE 'INSERT INTO ev_' || n::int || ' VALUES (1)';", "", "n int"),
        "CREATE TABLE ev_1 (a int); SELECT f(1)",
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
