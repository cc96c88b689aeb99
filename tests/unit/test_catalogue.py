"""The catalogue: what definitions say, and which names a statement mentions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relet.core.catalogue.bodies import Body, may_set
from relet.core.catalogue.closure import Closure
from relet.core.catalogue.memo import UNREAD, CatalogueMemo, Either
from relet.core.catalogue.names import Catalogue
from relet.core.catalogue.queries import Routine, SearchPath, Separators, Sources
from relet.core.sql.classifier import EFFECTS
from relet.core.sql.effects import Change, Kind
from relet.core.sql.lines import Lines, has_clue, words_of
from relet.core.sql.names import UNKNOWN_NAME
from relet.core.sql.redefinitions import redefines
from relet.core.sql.statements import statements

SETTING, LOCK = Change(Kind.SETTING, None), Change(Kind.LOCK, None)


def routine(source, *, name="f", language="plpgsql", parameters="", oid="1", schema="public"):
    return Routine(oid, schema, name, language, parameters, "f", "f", "", source)


def own(source, **options):
    """The kinds of state that a function with *source* leaves itself."""
    made = routine(source, **options)
    lines = Lines([source])
    if not (may_set(lines) or lines.having("execute")):
        return ""
    body = Body(made, may_set=bool(may_set(lines)))
    return " ".join(sorted(change.kind.name for change in body.own if not change.undoes))


def plpgsql(*lines):
    return "DECLARE v text; BEGIN " + " ".join(lines) + " END"


OWN = {
    "nothing": ("SELECT 1", ""),
    "SET": ("SET a.b = 1;", "SETTING"),
    "SET after a comment": ("NULL; -- it's\n /* x */ SET a.b = 1;", "SETTING"),
    "SET after a long comment": (f"NULL; -- {'x' * 600}\n\n  SET a.b = 1;", "SETTING"),
    "SET after two": ("NULL; -- x\n -- y\n\tSET a.b = 1;", "SETTING"),
    "SET LOCAL": ("SET LOCAL a.b = 1;", ""),
    "UPDATE": ("UPDATE t SET a = 1;", ""),
    "UPDATE with an alias": ("UPDATE ONLY s.t AS x\n\tSET a = 1;", ""),
    "ON CONFLICT": ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2;", ""),
    "two of which one is UPDATE": ("UPDATE t SET a = 1; SET a.b = 1;", "SETTING"),
    "set_config": ("PERFORM set_config('a.b', 'x', false);", "SETTING"),
    "in capitals": ("PERFORM SET_CONFIG('a.b', 'x', FALSE);", "SETTING"),
    "a message": ("RAISE NOTICE 'SET a.b = 1';", ""),
    "a temporary table": ("CREATE TEMP TABLE x (a int);", "TEMPORARY"),
    "one that ends": ("CREATE TEMP TABLE x (a int) ON COMMIT DROP;", ""),
    "a constant": ("EXECUTE 'SET a.b = 1';", "SETTING"),
    "a harmless constant": ("EXECUTE 'SELECT 1';", ""),
    "a message beside EXECUTE": ("RAISE NOTICE 'SET a.b'; EXECUTE 'SELECT 1';", ""),
    "format": ("EXECUTE format('UPDATE %I SET a = %L', v, 1);", ""),
    "format by number": ("EXECUTE format('UPDATE %1$I SET a = %2$L', TG_TABLE_NAME, v);", ""),
    "format of SET": ("EXECUTE format('SET %I = %L', 'a.b', v);", "SETTING"),
    "format of SET LOCAL": (
        "EXECUTE format('SET LOCAL %I = %L', p, 1); EXECUTE format('SET LOCAL %I TO a', p);",
        "SEED",
    ),
    "format of a part of a setting": (
        (
            "EXECUTE format('SET LOCAL %I = %L', 'app.' || n, p);"
            " EXECUTE format('SELECT set_config(%L, %L, true)', 'app.' || n, p);"
        ),
        "",
    ),
    "format of set_config": (
        "EXECUTE format('SELECT set_config(%L, %L, false)', p, 1);",
        "ROLE SEED SETTING",
    ),
    "format of a schema": ("EXECUTE format('SET LOCAL search_path = a, %I', p);", "TEMPORARY"),
    "format of a part of a schema": (
        "EXECUTE format('SET LOCAL search_path = %I, a', 'tenant_' || n);",
        "",
    ),
    "format of a search path": (
        "EXECUTE format('SELECT set_config(''search_path'', %L, true)', p);",
        "TEMPORARY",
    ),
    "format of text": ("EXECUTE format('UPDATE t SET %s', p);", "DYNAMIC"),
    "format of a table": ("EXECUTE format('DELETE FROM %s', p::regclass);", ""),
    "format of a number": ("EXECUTE format('DELETE FROM t WHERE a = %s', p::int);", ""),
    "a parameter": ("EXECUTE p;", "DYNAMIC"),
    "a parameter in it": ("EXECUTE 'SELECT ' || p;", "DYNAMIC"),
    "quoted": ("EXECUTE 'SELECT ' || quote_literal(p) || ' AS x' INTO v USING 1;", ""),
    "a command that is put in": ("EXECUTE quote_ident(p) || ' a.b = 1';", "DYNAMIC"),
    "half a command": ("EXECUTE 'SE' || 'T a.b = 1';", "SETTING"),
    "a variable": ("v := 'LISTEN ' || quote_ident(p); EXECUTE v;", "CHANNEL"),
    "a variable that grows": ("v := 'SELECT 1'; v := v || ' WHERE ' || 'true'; EXECUTE v;", ""),
    "a variable that grows into more": (
        "v := 'SELECT 1'; v := v || '; SET a.b = 1'; EXECUTE v;",
        "SETTING",
    ),
    "a variable of which part is not known": ("v := 'SELECT ' || p; EXECUTE v;", "DYNAMIC"),
    "a variable from a query": ("SELECT x INTO v FROM t; EXECUTE v;", "DYNAMIC"),
    "a variable of a loop": ("FOR v IN SELECT x FROM t LOOP EXECUTE v; END LOOP;", "DYNAMIC"),
    "FOR over a constant": ("FOR v IN EXECUTE 'SELECT 1' LOOP NULL; END LOOP;", ""),
    "one of several values": (
        "IF p THEN v := 'SELECT 1'; ELSE v := 'LISTEN a'; END IF; EXECUTE v;",
        "CHANNEL",
    ),
    "a part that may be missing": (
        "v := 'SET '; IF p THEN v := v || 'LOCAL '; END IF; v := v || 'a.b = 1'; EXECUTE v;",
        "SETTING",
    ),
    "names with commas that are appended": (
        "v := 'SELECT '; v := v || ', '; v := v || quote_ident(p); EXECUTE v;",
        "",
    ),
    "parts that are appended in a loop": (
        "v := 'SELECT '; LOOP v := v || 'LOCAL'; v := v || ' x'; END LOOP; EXECUTE v;",
        "DYNAMIC",
    ),
    "words that are appended": (
        "v := 'SE'; v := v || 'T'; v := v || ' a.b'; EXECUTE v;",
        "DYNAMIC",
    ),
    "more values than are looked at": (
        "".join(f"v := 'SELECT {n}'; " for n in range(70)) + "EXECUTE v;",
        "DYNAMIC",
    ),
    "many parts that may be missing": (
        "v := 'SET '; " + "v := v || ' LOCAL '; " * 9 + "EXECUTE v;",
        "DYNAMIC ROLE SEED SETTING TEMPORARY",
    ),
    "CASE": ("EXECUTE 'SET ' || CASE WHEN p THEN 'LOCAL' ELSE '' END || ' a.b = 1';", "SETTING"),
    "CASE of what is known": (
        "EXECUTE 'TABLE x ORDER BY ' || CASE p WHEN 1 THEN 'a' WHEN 2 THEN 'b' ELSE 'c' END;",
        "",
    ),
    "CASE in CASE": (
        "EXECUTE CASE WHEN p THEN CASE p WHEN 1 THEN 'SELECT 1' END ELSE 'LISTEN a' END;",
        "CHANNEL",
    ),
    "CASE in CASE, inside": (
        "EXECUTE CASE WHEN p THEN CASE p WHEN 1 THEN 'LISTEN a' END ELSE 'SELECT 1' END;",
        "CHANNEL",
    ),
    "CASE of what is not known": (
        "EXECUTE CASE WHEN p THEN 'SELECT 1' ELSE p END;",
        "DYNAMIC",
    ),
    "CASE without ELSE": (
        "EXECUTE format('SET%s a.b = 1', CASE WHEN p THEN ' LOCAL' END);",
        "SETTING",
    ),
    "NULL is nothing": ("EXECUTE format('SET%s a.b = 1', v);", "SETTING"),
    "one of two that is not NULL": ("EXECUTE coalesce(v, 'LISTEN a');", "CHANNEL"),
    "a value or NULL": ("EXECUTE 'SELECT ' || coalesce(quote_literal(p), 'NULL');", ""),
    "small letters": ("EXECUTE lower('SELECT \"SET\"');", ""),
    "without spaces": ("EXECUTE 'SE' || ltrim('  T a.b = 1');", "SETTING"),
    "without letters": (
        "EXECUTE 'SET ' || ltrim('LOCAL a.b = 1', p);",
        "DYNAMIC ROLE SEED SETTING TEMPORARY",
    ),
    "the second argument": ("EXECUTE format('%2$s a', 'SELECT', 'LISTEN');", "CHANNEL"),
    "an argument that is missing": ("EXECUTE format('%3$s', 'SELECT 1');", "DYNAMIC"),
    "a table in a schema": ("EXECUTE format('CREATE TABLE %I.x (a int)', p);", "DYNAMIC"),
    "a table of a known schema": ("EXECUTE format('CREATE TABLE s.%I (a int)', p);", ""),
    "a name of a label": (
        "<<b>> DECLARE v text; BEGIN b.v := 'LISTEN a'; EXECUTE v; END;",
        "CHANNEL DYNAMIC",
    ),
    "blocks that are too deep": (
        "EXECUTE 'SELECT 1'; DO $a$ DO $b$ DO $c$ DO $d$ DO $e$ x $e$ $d$ $c$ $b$ $a$;",
        "UNKNOWN",
    ),
    "a variable called procedure": ("EXECUTE procedure;", "DYNAMIC"),
    "a variable called function": ("EXECUTE function || '()' INTO v;", "DYNAMIC"),
    "a variable after a trigger": (
        "CREATE TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION g(); EXECUTE function;",
        "DYNAMIC",
    ),
    "a trigger": ("CREATE OR REPLACE TRIGGER t AFTER INSERT ON t EXECUTE PROCEDURE g();", ""),
    "a trigger that is made or not": (
        "IF p THEN CREATE CONSTRAINT TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION g(); END IF;",
        "",
    ),
    "a privilege": ("GRANT EXECUTE ON FUNCTION g TO x;", ""),
    "a function with its parameters": ("EXECUTE 'DROP FUNCTION ' || p::regprocedure;", ""),
    "variables that are called like commands": (
        "load := 1; listen = 'a'; prepare[1] := 2; reset.x := 3; set := 4;",
        "",
    ),
    "columns that are called like commands": (
        "v := CASE p WHEN 1 THEN load WHEN 2 THEN listen || 'a' ELSE reset END;",
        "",
    ),
    "declarations of such variables": (
        "<<b>> DECLARE a int; load int; prepare bool; listen text; set int; BEGIN NULL; END;",
        "",
    ),
    "a command after declarations": ("DECLARE load int; BEGIN LOAD 'x'; END;", "LIBRARY"),
    "a command before declarations": ("LOAD 'x'; DECLARE a int; BEGIN NULL; END;", "LIBRARY"),
    "a command after a column": (
        "v := CASE WHEN p THEN declare ELSE a > declare END; LISTEN a;",
        "CHANNEL",
    ),
    "a command after a column in a term": (
        "v := CASE WHEN p THEN declare - 1 END; LISTEN a;",
        "CHANNEL",
    ),
    "a command after a column that is tested": (
        "v := CASE WHEN p THEN 1 ELSE declare IS NULL END; LISTEN a;",
        "CHANNEL",
    ),
    "a command after a column that is compared": (
        "PERFORM a < b AND c > declare FROM t; LISTEN a;",
        "CHANNEL",
    ),
    "a command after a column that is shifted": ("v := a << b >> declare; LISTEN a;", "CHANNEL"),
    "declarations in a branch": (
        (
            "IF p THEN <<b>> DECLARE a int; load int; BEGIN NULL; END; END IF;"
            " IF p THEN NULL; ELSE DECLARE a int; listen text; BEGIN NULL; END; END IF;"
        ),
        "",
    ),
    "a variable after INTO": (
        "SELECT 1 INTO temp FROM t; SELECT 1 INTO STRICT temp; EXECUTE 'SELECT 1' INTO temp;",
        "",
    ),
    "a table after INTO": ("EXECUTE 'SELECT 1 AS a INTO TEMP x';", "TEMPORARY"),
    # Values of which the type is known.
    "a number": ("EXECUTE 'SELECT 1 LIMIT ' || n; EXECUTE 'SELECT 1 LIMIT ' || $2;", ""),
    "a number in a name": ("EXECUTE format('DROP TABLE t_%s', n);", ""),
    "a table": ("EXECUTE 'DELETE FROM ' || t;", ""),
    "a variable that is a number": (
        (
            "DECLARE a int; b CONSTANT pg_catalog.int8 NOT NULL := f(); c numeric(9, 2) DEFAULT 1;"
            " BEGIN SELECT count(*) INTO a FROM t; EXECUTE format('SELECT %s, %s', a, b) || c; END;"
        ),
        "",
    ),
    "an array of numbers": (
        "DECLARE a int[]; BEGIN a := f(); EXECUTE 'SELECT ' || a; END;",
        "DYNAMIC",
    ),
    "a type of one's own": ('DECLARE a "int"; BEGIN EXECUTE p || a; END;', "DYNAMIC"),
    "a number and a text": (
        "DECLARE a int; BEGIN NULL; END; DECLARE a text; BEGIN a := p; EXECUTE a; END;",
        "DYNAMIC",
    ),
    "a parameter that is hidden": ("DECLARE n text; BEGIN n := p; EXECUTE n; END;", "DYNAMIC"),
    "a number of a loop": (
        "FOR i IN REVERSE 9..n LOOP EXECUTE format('DROP TABLE t_%s', i); END LOOP;",
        "",
    ),
    "a text of a loop": ("FOR i IN SELECT a FROM x LOOP EXECUTE i; END LOOP;", "DYNAMIC"),
    # Texts that queries put together.
    "names of a query": (
        (
            "SELECT string_agg(quote_ident(a), ', ' ORDER BY b) INTO STRICT v FROM x; "
            "EXECUTE 'SELECT ' || v || ' FROM x';"
        ),
        "",
    ),
    "commands of a query": (
        "FOR v IN SELECT format('LISTEN %I', a) FROM x LOOP EXECUTE v; END LOOP;",
        "CHANNEL",
    ),
    "a command of a query": (
        "SELECT INTO v 'LISTEN ' || quote_ident(a) FROM x; EXECUTE v;",
        "CHANNEL",
    ),
    "many commands of a query": (
        "SELECT string_agg('SET LOCAL a.b = 1', '; ') INTO v FROM x; EXECUTE v || ', 2';",
        "",
    ),
    "a column that is called like a parameter": ("SELECT n INTO v FROM x; EXECUTE v;", "DYNAMIC"),
    "a column of text": ("SELECT string_agg(a, ', ') INTO v FROM x; EXECUTE v;", "DYNAMIC"),
    "two queries": (
        "SELECT 'SELECT 1' INTO v FROM x UNION SELECT a FROM x; EXECUTE v;",
        "DYNAMIC",
    ),
    "two columns": ("SELECT a, 'SELECT 1' INTO v, w FROM x; EXECUTE v;", "DYNAMIC"),
    "what a statement returns": (
        "INSERT INTO x SELECT 'a' FROM y RETURNING a INTO v; EXECUTE v;",
        "DYNAMIC",
    ),
    "what is fetched": ("FETCH c INTO v; EXECUTE v;", "DYNAMIC"),
    "a long query": (
        f"SELECT INTO v {' || '.join(250 * ['a'])} FROM x; EXECUTE v;",
        "DYNAMIC",
    ),
    # More functions of texts.
    "concat_ws": ("EXECUTE concat_ws(' ', 'LISTEN', quote_ident(p));", "CHANNEL"),
    "concat_ws of NULL": ("EXECUTE concat_ws(' ', 'SELECT', v, '1');", "DYNAMIC"),
    "replace": ("EXECUTE replace('LISTEN %t', '%t', quote_ident(p));", "CHANNEL"),
    "replace in a name": ("EXECUTE replace('SELECT ' || quote_ident(p), '\"', '');", "DYNAMIC"),
    "a value without its quotes": (
        "EXECUTE 'SELECT ' || btrim(quote_literal(p), '''');",
        "DYNAMIC",
    ),
    "a block in it": ("EXECUTE $x$ DO 'BEGIN SET a.b = 1; END' $x$;", "SETTING"),
}


@pytest.mark.parametrize(("source", "kinds"), OWN.values(), ids=OWN)
def test_a_body(source, kinds):
    # A text, a number, and a table.
    assert own(plpgsql(source), parameters="p n t\n25 23 2205") == kinds


def test_parameters_whose_types_are_not_known():
    sql = "EXECUTE 'SELECT 1 LIMIT ' || n;"
    assert own(plpgsql(sql), parameters="n\n23") == ""
    assert own(plpgsql(sql), parameters=" n\n25 23") == ""
    assert own(plpgsql(sql), parameters="n\n99999") == "DYNAMIC"
    assert own(plpgsql(sql), parameters="a name n\n25 23") == "DYNAMIC"
    assert own(plpgsql("EXECUTE 'SELECT 1 LIMIT ' || $1;"), parameters="\n23") == ""


@pytest.mark.parametrize(
    ("source", "language", "kinds"),
    [
        ("SELECT set_config('a.b', 'x', false)", "sql", "SETTING"),
        ("SET a.b = 1; SELECT 1", "sql", "SETTING"),
        ("BEGIN ATOMIC SELECT pg_advisory_lock(1); END", "sql", "LOCK"),
        ("return 1", "plpython3u", ""),
        ("plpy.execute('SET a.b = 1')", "plpython3u", "DYNAMIC SETTING"),
    ],
)
def test_other_languages(source, language, kinds):
    assert own(source, language=language) == kinds


def catalogue(**options):
    return Catalogue(
        functions={"trap": {"public": (SETTING,), "other": (LOCK,)}},
        relations={
            "insert": {"t": {"public": (SETTING,)}},
            "update": {"t": {"public": (LOCK,)}},
            "truncate": {"t": {"public": (LOCK,)}},
            "cascade": {"t": {"public": (SETTING,)}},
            "select": {"v": {"public": (LOCK,)}, "Odd v": {"public": (LOCK,)}},
            "rewrite": {"t": {"public": (SETTING,)}},
        },
        types={"checked": (SETTING,)},
        operators={"#=#": (SETTING,)},
        **{"path": frozenset({"public"}), **options},
    )


STATEMENTS = {
    "SELECT trap()": "SETTING",
    "SELECT public . TRAP ( )": "SETTING",
    "SELECT other.trap()": "LOCK",
    "SELECT third.trap()": "",
    "SELECT trap, 'trap()' FROM x": "",
    'SELECT "Trap"()': "",
    'SELECT U&"\\0074rap"()': "SETTING",
    "INSERT INTO t VALUES (1)": "SETTING",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING": "LOCK SETTING",
    "INSERT INTO other.t VALUES (1)": "",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT 1": "SETTING",
    "UPDATE ONLY t SET a = 1": "LOCK",
    "SELECT * FROM t FOR UPDATE": "",
    "SELECT * FROM t FOR UPDATE OF t": "",
    "DELETE FROM t": "",
    "MERGE INTO t USING x ON true WHEN MATCHED THEN UPDATE SET a = 1": "LOCK",
    "TRUNCATE x, t": "LOCK",
    "TRUNCATE x, t CASCADE": "LOCK SETTING",
    "COPY t (a) FROM STDIN": "SETTING",
    "COPY t TO STDOUT": "",
    "COPY BINARY t FROM STDIN": "SETTING",
    "SELECT table_to_xml('public.v'::regclass, true, true, '')": "LOCK",
    "SELECT table_to_xml('t'::regclass, true, true, '')": "",
    "SELECT table_to_xml($1, true, true, '')": "DYNAMIC",
    "SELECT xpath_table('trap()', 'b', 't', '/', 'true') FROM v": "LOCK SETTING",
    "ALTER TABLE t ADD COLUMN b int": "SETTING",
    "ALTER TABLE x ADD COLUMN b int DEFAULT trap()": "SETTING",
    "ALTER TABLE x ADD CHECK (trap() = a)": "SETTING",
    "ALTER TABLE x ADD COLUMN b checked, RENAME TO y": "SETTING",
    "ALTER TABLE x DROP COLUMN a, ALTER b TYPE int USING trap()": "SETTING",
    "ALTER TABLE t ALTER a SET DEFAULT 'x'": "SETTING",
    "ALTER TABLE x ADD CHECK (a > '{1}'::checked[]) NOT VALID": "SETTING",
    "ALTER TABLE x ADD CHECK (a > 'x'::checked) NOT VALID, ALTER b SET NOT NULL": "SETTING",
    "ALTER TABLE x ADD CONSTRAINT c CHECK (trap() > a) NOT VALID, VALIDATE CONSTRAINT c": "SETTING",
    "ALTER DOMAIN checked ADD CHECK (trap() > 0)": "SETTING",
    "CREATE INDEX ON x (trap(a))": "SETTING",
    "CREATE TABLE x PARTITION OF t FOR VALUES IN (trap())": "SETTING",
    "CREATE TABLE x (a) AS SELECT trap()": "SETTING",
    "CREATE TABLE x (a checked[] DEFAULT '{1}')": "SETTING",
    "CREATE TEMP TABLE x (a int DEFAULT trap())": "SETTING",
    "CREATE TEMP VIEW x AS SELECT trap()": "SETTING UNKNOWN",
    "CREATE VIEW pg_temp.x AS SELECT a FROM public.t": "LOCK SETTING UNKNOWN",
    "CREATE TEMP VIEW x AS SELECT a FROM other.t": "",
    "CREATE TEMP VIEW x AS TABLE t": "LOCK SETTING UNKNOWN",
    "CREATE OR REPLACE LOCAL TEMP RECURSIVE VIEW x (a) AS SELECT a FROM t": "LOCK SETTING UNKNOWN",
    "CREATE SCHEMA x CREATE TABLE y (a int DEFAULT trap())": "SETTING",
    "SELECT * FROM x JOIN y ON trap() = 1": "SETTING",
    "SELECT json_object(KEY trap() VALUE 1)": "SETTING",
    # These only name it, or keep it for later.
    "DROP FUNCTION IF EXISTS trap() CASCADE": "",
    "DROP TABLE t": "",
    "COMMENT ON FUNCTION trap() IS 'x'": "",
    "GRANT EXECUTE ON FUNCTION trap() TO x": "",
    "REVOKE ALL ON FUNCTION trap() FROM x": "",
    "ALTER FUNCTION trap() SECURITY DEFINER": "",
    "ALTER POLICY p ON t USING (trap() = 1)": "",
    "CREATE CAST (a AS b) WITH FUNCTION trap(a)": "",
    "CREATE OPERATOR CLASS x FOR TYPE a USING btree AS FUNCTION 1 trap(a, a)": "",
    "CREATE DOMAIN x AS checked CHECK (trap() > 0)": "",
    "CREATE TABLE x (a int DEFAULT trap(), b checked CHECK (trap() > b)) PARTITION BY LIST (a)": "",
    "CREATE TABLE x (a int REFERENCES t)": "",
    "ALTER TABLE x ADD FOREIGN KEY (a) REFERENCES t": "",
    "ALTER TABLE t RENAME a TO b": "",
    "ALTER TABLE IF EXISTS ONLY public.t * SET SCHEMA other": "",
    "ALTER TABLE t OWNER TO x, ENABLE TRIGGER ALL": "",
    "ALTER TABLE t ALTER COLUMN a SET DEFAULT trap(), ALTER b DROP NOT NULL": "",
    "ALTER TABLE t ADD CONSTRAINT c CHECK (trap() > a) NOT VALID": "",
    # What is called as the function.
    'INSERT INTO "trap" ("id") VALUES (1)': "",
    "COPY other.trap (id) TO STDOUT": "",
    "WITH trap (a) AS (SELECT 1) SELECT a": "",
    "CREATE UNIQUE INDEX i ON trap (a)": "",
    "CREATE TABLE trap (a int)": "",
    "SELECT * FROM x, v": "LOCK",
    'TABLE "Odd v"': "LOCK",
    "SELECT v FROM x": "",
    "SELECT 1::checked": "SETTING",
    "SELECT 1 #=# 2": "SETTING",
    "SELECT 1 = 2": "",
    "EXPLAIN SELECT trap()": "",
    "EXPLAIN ANALYZE SELECT trap()": "SETTING",
    "CREATE VIEW x AS SELECT trap()": "",
    "CREATE TABLE x AS SELECT trap()": "SETTING",
    "PREPARE p AS SELECT trap()": "SETTING UNKNOWN",
    "DO $$ BEGIN PERFORM trap(); END $$": "SETTING",
    "DO $$ BEGIN EXECUTE 'SELECT trap()'; END $$": "SETTING",
    f"DELETE FROM {UNKNOWN_NAME}": "",
    f"INSERT INTO {UNKNOWN_NAME} VALUES (1)": "SETTING",
    f"SELECT {UNKNOWN_NAME}(1)": "DYNAMIC",
    f"INSERT INTO {UNKNOWN_NAME}.t{UNKNOWN_NAME} VALUES (1)": "SETTING",
    f"INSERT INTO u{UNKNOWN_NAME} VALUES (1)": "",
    f"INSERT INTO o{UNKNOWN_NAME}.t VALUES (1)": "",
    f"SELECT tr{UNKNOWN_NAME}(1)": "SETTING",
    f"SELECT other.tr{UNKNOWN_NAME}(1)": "LOCK",
    f"SELECT pg_advisory{UNKNOWN_NAME}(1)": "LOCK",
    f"SELECT {UNKNOWN_NAME}_trap(1)": "",
    f"CREATE TABLE IF NOT EXISTS {UNKNOWN_NAME} (a int)": "",
    f"CREATE INDEX ON {UNKNOWN_NAME} (a)": "SETTING",
    f"WITH {UNKNOWN_NAME} (a) AS (SELECT 1) SELECT 1": "",
    f"SELECT {UNKNOWN_NAME}({UNKNOWN_NAME})": "DYNAMIC",
    f"DROP FUNCTION {UNKNOWN_NAME}({UNKNOWN_NAME})": "",
    f"SELECT 1::{UNKNOWN_NAME}": "SETTING",
    f"SELECT 1::{UNKNOWN_NAME}.{UNKNOWN_NAME}[]": "SETTING",
    f"SELECT 1::u{UNKNOWN_NAME}": "",
    f"SELECT CAST(1 AS {UNKNOWN_NAME})": "SETTING",
    f"SELECT {UNKNOWN_NAME} 'a'": "SETTING",
    f"SELECT check{UNKNOWN_NAME}('a')": "SETTING",
    f"ALTER TABLE u ADD COLUMN a {UNKNOWN_NAME} DEFAULT 1": "SETTING",
    f"SELECT a AS {UNKNOWN_NAME}, b AS {UNKNOWN_NAME} FROM u": "",
}


def kinds_of(sql, known):
    if not known.may_concern(sql.lower()):
        return ""
    found = {change.kind.name for each in statements(sql) for change in known.steps_of(each)}
    return " ".join(sorted(found))


@pytest.mark.parametrize(("sql", "kinds"), STATEMENTS.items())
def test_a_statement(sql, kinds):
    assert kinds_of(sql, catalogue()) == kinds


@pytest.mark.parametrize(
    ("sql", "kinds"),
    {
        "EXPLAIN SELECT trap()": "SETTING",
        "CREATE TABLE x (a int, b int GENERATED ALWAYS AS (trap()) STORED)": "SETTING",
        "CREATE UNLOGGED TABLE x (a int) PARTITION BY RANGE ((a + trap()))": "SETTING",
        "CREATE VIEW x AS SELECT trap()": "",
        "CREATE DOMAIN x AS int CHECK (trap() > 0)": "",
    }.items(),
)
def test_what_the_planner_runs(sql, kinds):
    known = catalogue(planned=catalogue())
    assert kinds_of(sql, known) == kinds
    assert not any(change.undoes for each in statements(sql) for change in known.steps_of(each))


def test_a_search_path_that_is_not_known():
    assert kinds_of("SELECT trap()", catalogue().anywhere) == "LOCK SETTING"
    assert kinds_of("SELECT third.trap()", catalogue().anywhere) == ""


def test_many_names():
    many = {f"f_{n}": {"public": (SETTING,)} for n in range(100)}
    known = Catalogue(functions=many, path=frozenset({"public"}))
    assert kinds_of("SELECT f_99()", known) == "SETTING"
    assert kinds_of("SELECT f_100()", known) == ""


def test_event_triggers():
    known = Catalogue(definitions=(SETTING,))
    assert kinds_of("CREATE TABLE x (a int)", known) == "SETTING"
    assert kinds_of("SELECT 'create'", known) == ""


def judged(*routines):
    closure = Closure(Sources(routines, SearchPath(frozenset({"public"})), (), 0))
    closure.judge()
    return closure.relate(None)


def test_calls_and_cycles():
    found = judged(
        routine("SELECT b()", name="a", language="sql", oid="1"),
        routine("SELECT c(), a()", name="b", language="sql", oid="2"),
        routine("SELECT a(), set_config('a.b', '', false)", name="c", language="sql", oid="3"),
        routine("SELECT d()", name="d", language="sql", oid="4"),
    )
    assert set(found.functions) == {"a", "b", "c"}
    ((change,),) = found.functions["a"].values()
    assert change == SETTING._replace(origin="called in function public.c")


def test_extensions():
    found = judged(
        routine("", name="set_limit", language="c", oid="1"),
        routine("", name="crosstab", language="c", oid="2"),
        routine("SELECT * FROM crosstab('SET a.b = 1')", language="sql", oid="3"),
        routine("SELECT * FROM crosstab('SELECT 1')", name="g", language="sql", oid="4"),
    )
    assert set(found.functions) == {"set_limit", "f"}
    assert kinds_of("SELECT * FROM crosstab('SELECT 1', $1)", found) == "DYNAMIC"


class TestMemo:
    def test_a_text_is_judged_once_for_each_catalogue(self):
        memo = CatalogueMemo()
        assert memo["SELECT trap()"] is None
        memo.renew(catalogue())
        assert memo["SELECT trap()"].steps == (SETTING,)
        assert "SELECT trap()" in memo
        memo.renew(None)
        assert memo["SELECT trap()"] is None

    def test_stale(self):
        memo = CatalogueMemo(stale=True)
        assert memo["SELECT trap()"] is UNREAD
        assert memo.judge("SELECT trap()") is None
        assert not memo
        memo.renew(catalogue())
        memo["SELECT trap()"]
        memo.expire()
        assert memo["SELECT trap()"] is UNREAD

    def test_a_catalogue_that_changes_meanwhile(self, monkeypatch):
        memo = CatalogueMemo()

        def classify(sql):
            memo.renew(catalogue())

        monkeypatch.setattr("relet.core.catalogue.memo.classify", classify)
        assert memo["SELECT trap()"] is None
        assert "SELECT trap()" not in memo

    @pytest.mark.parametrize(
        "sql",
        [
            "SET LOCAL search_path = other",
            "SET SCHEMA 'other'",
            "SELECT set_config(%s, %s, true)",
            "SELECT set_config('search_path', 'other', true)",
        ],
    )
    def test_the_search_path_changes(self, sql):
        memo = CatalogueMemo()
        memo.renew(catalogue())
        assert memo["SELECT trap()"].steps == (SETTING,)
        memo[sql]
        assert memo["SELECT trap()"].steps == (SETTING, LOCK)

    def test_either(self):
        memo = CatalogueMemo()
        memo.renew(Either(Catalogue(), catalogue()))
        assert memo["SELECT trap()"].steps == (SETTING,)

    def test_the_common_memo_knows_no_catalogue(self):
        assert EFFECTS["SELECT trap()"] is None


REDEFINES = {
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'": True,
    "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql AS ''": True,
    "ALTER FUNCTION f() RENAME TO g": True,
    "DROP VIEW v": True,
    "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()": True,
    "CREATE MATERIALIZED VIEW v AS SELECT 1": True,
    "CREATE EXTENSION dblink": True,
    "DO $$ BEGIN EXECUTE 'CREATE FUNCTION f()'; END $$": True,
    "DO $$ BEGIN CREATE TABLE x (a int); END $$": True,
    "ALTER ROLE app SET search_path = other": True,
    "CREATE TABLE x (a text DEFAULT set_config('a.b', '', false))": True,
    "CREATE UNLOGGED TABLE x (a text DEFAULT set_config('a.b', '', false))": True,
    "CREATE TEMP TABLE x (a text DEFAULT set_config('a.b', '', false))": True,
    "DO $$ BEGIN CREATE INDEX ON x (f(a)); END $$": True,
    "DO $$ BEGIN CREATE TYPE x AS (a good); END $$": True,
    "ALTER SYSTEM SET search_path = other": True,
    "COMMIT PREPARED 'a'": True,
    "ALTER TABLE x ENABLE ROW LEVEL SECURITY": True,
    "ALTER TABLE x ENABLE ALWAYS RULE r": True,
    "ROLLBACK PREPARED 'a'": False,
    "ALTER TABLE x DISABLE TRIGGER ALL": False,
    "CREATE TEMP VIEW x AS SELECT 1": False,
    "DO $$ BEGIN UPDATE x SET table = 'create'; END $$": False,
    "CREATE TABLE x (a int)": False,
    "CREATE TEMP TABLE x (a int)": False,
    "CREATE SEQUENCE s": False,
    "ALTER ROLE app SET lock_timeout = 1": False,
    "SELECT 'create function'": False,
    "INSERT INTO created VALUES (1)": False,
}


@pytest.mark.parametrize(("sql", "may"), REDEFINES.items())
def test_redefinitions(sql, may):
    assert redefines(sql, sql.lower(), known=False) == may


#: Where something in the database is known to have effects.
MAKES_TABLES = {
    "SELECT * INTO x FROM y": True,
    "SELECT * INTO TEMP x FROM y": False,
    "INSERT INTO x SELECT 1": False,
    "EXPLAIN (ANALYZE) CREATE TABLE x AS TABLE y": True,
    "EXPLAIN CREATE TABLE x AS TABLE y": False,
}


@pytest.mark.parametrize(("sql", "may"), MAKES_TABLES.items())
def test_tables_that_take_columns_over(sql, may):
    assert redefines(sql, sql.lower(), known=True) == may


USED = {
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT f()": True,
    "CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f(); INSERT INTO x VALUES (1)": True,
    "CREATE VIEW v AS SELECT 1; DO $$ BEGIN PERFORM * FROM v; END $$": True,
    "DO $$ BEGIN LOOP PERFORM f(); EXECUTE 'DROP FUNCTION f()'; END LOOP; END $$": True,
    "SELECT 1; CREATE EXTENSION dblink": False,
    "CREATE VIEW v AS SELECT 1; GRANT SELECT ON v TO a; COMMENT ON VIEW v IS 'a'": False,
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END": False,
    "CREATE TABLE x (a int); INSERT INTO x VALUES (1)": False,
    "DO $$ BEGIN IF NOT EXISTS (SELECT) THEN CREATE VIEW v AS SELECT 1; END IF; END $$": False,
}


@pytest.mark.parametrize(("sql", "used"), USED.items())
def test_definitions_that_are_used_at_once(sql, used):
    memo = CatalogueMemo()
    effects = memo[sql]
    kinds = frozenset() if effects is None else effects.kinds
    assert (Kind.UNKNOWN in kinds) == used


def test_tables_matter_where_something_has_effects():
    for sql in "CREATE TABLE x (a int)", "ALTER TABLE x ATTACH PARTITION y DEFAULT":
        assert redefines(sql, sql.lower(), known=True)
    temporary = "CREATE LOCAL TEMP TABLE x (a good)"
    assert not redefines(temporary, temporary.lower(), known=True)


def test_separators_are_not_in_any_source():
    first, second = Separators(), Separators()
    assert first != second
    text = first.between.join(first.fields.join(record) for record in (["a", "b"], ["c", ""]))
    assert first.split(text) == [["a", "b"], ["c", ""]]
    assert first.split("") == []


LETTERS = 'abSET_1"\n\r\t .-\\\u0130\u017f\u212a\u03a3\u00df\u2028\U0001d518'


@given(st.lists(st.text(LETTERS)), st.text(LETTERS, min_size=1, max_size=3).map(str.lower))
def test_lines_find_what_is_in_each_text(texts, part):
    lines, lowered = Lines(texts), [text.lower() for text in texts]
    having = {at for at, text in enumerate(lowered) if part in text}
    assert lines.having(part) == having
    also = {at for at in having if "e" in lowered[at]}
    assert lines.having_clue(((part, "e"),)) == also
    assert also == {at for at, text in enumerate(lowered) if has_clue(text, ((part, "e"),))}
    words = {word for text in lowered for word in words_of(text)}
    assert lines.mentions({*words, b"absent"}) == {
        word: {at for at, text in enumerate(lowered) if word in words_of(text)} for word in words
    }
