"""The classifier: every effect, and everything that looks like one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relet.core import Kind
from relet.core.sql.classifier import EFFECTS, UNREADABLE, Memo, classify
from relet.core.sql.effects import ALL, Change, Control, Effects, Move, Parameter, Unresolved
from relet.core.sql.statements import tokens


def told(sql):
    """The steps of *sql*, each as a line: ``KIND name``, ``KIND`` if nobody knows which."""
    effects = classify(sql)
    return [] if effects is None else [_line(step) for step in effects.resolve(None, None)]


def _line(step):
    if isinstance(step, Move):
        return f"{step.control.name} {step.savepoint}".strip()
    name = "" if step.name is None else "".join(map(str, step.name))
    sign = "~" if step.renames else "" if not step.undoes else "-" if step.sure else "?"
    return f"{sign}{step.kind.name} {name}".strip()


def table(cases):
    """Tests of `told`: SQL -> its steps, divided by commas."""
    pairs = [(sql, steps.split(", ") if steps else []) for sql, steps in cases.items()]
    return pytest.mark.parametrize(("sql", "steps"), pairs, ids=[*cases])


@table(
    {
        "SET work_mem = '1MB'": "SETTING work_mem",
        "set Work_Mem to 1": "SETTING work_mem",
        'SET "TimeZone" = 1': "SETTING timezone",
        "SET SESSION work_mem = 1": "SETTING work_mem",
        "SET app.tenant = '1'": "SETTING app.tenant",
        "SET a.b.c = 1": "SETTING a.b.c",
        "SET work_mem FROM CURRENT": "SETTING work_mem",
        "SET TIME ZONE 'UTC'": "SETTING timezone",
        "SET SESSION TIME ZONE INTERVAL '1' HOUR TO MINUTE": "SETTING timezone",
        "SET NAMES 'UTF8'": "SETTING client_encoding",
        "SET SCHEMA 'a'": "SETTING search_path",
        "SET XML OPTION DOCUMENT": "SETTING xmloption",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SETTING default_transaction",
        "SET search_path = a, pg_temp": "SETTING search_path, TEMPORARY",
        # Called like those of the transaction, but they stay.
        "SET transaction_timeout = 5": "SETTING transaction_timeout",
        # First parts of a name that are words of the grammar elsewhere.
        "SET local.a = 1": "SETTING local.a",
        "SET session.a = 1": "SETTING session.a",
        "SET SESSION session.a = 1": "SETTING session.a",
        "SET transaction.a = 1": "SETTING transaction.a",
        "SET constraints.a TO 1": "SETTING constraints.a",
        "SET role.a = 1": "SETTING role.a",
        "SET names.a = 1": "SETTING names.a",
        "SET time.zone = 1": "SETTING time.zone",
        # Given back.
        "RESET work_mem": "-SETTING work_mem",
        "RESET app.Tenant": "-SETTING app.tenant",
        "RESET ALL": "-SETTING *",
        'RESET "all"': "-SETTING all",
        "RESET TIME ZONE": "-SETTING timezone",
        "SET work_mem TO DEFAULT": "-SETTING work_mem",
        "SET TIME ZONE LOCAL": "-SETTING timezone",
        "SET TIME ZONE DEFAULT": "-SETTING timezone",
        "SET work_mem = 'default'": "SETTING work_mem",
        'SET search_path = "default"': "SETTING search_path",
    }
)
def test_settings(sql, steps):
    assert told(sql) == steps


@table(
    {
        "SET LOCAL work_mem = 1": "",
        "SET LOCAL TIME ZONE 'UTC'": "",
        "SET LOCAL ROLE a": "",
        "SET LOCAL SESSION AUTHORIZATION a": "",
        "SET TRANSACTION READ ONLY": "",
        "SET TRANSACTION SNAPSHOT 'a'": "",
        "SET transaction_isolation = 'serializable'": "",
        "SET SESSION transaction_read_only TO on": "",
        "SET CONSTRAINTS ALL DEFERRED": "",
        "UPDATE t SET a = 1": "",
        "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 1": "",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET a = 1": "",
        "ALTER TABLE t SET (fillfactor = 90)": "",
        "ALTER TABLE t ALTER a SET NOT NULL": "",
        "ALTER SYSTEM SET work_mem = 1": "",
        "ALTER SYSTEM RESET ALL": "",
        "ALTER ROLE a SET work_mem = 1": "",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET work_mem = 1 AS 'SELECT 1'": "",
        "SELECT current_setting('a.b')": "",
        "SELECT * FROM pg_settings": "",
        "SHOW work_mem": "",
        # A quoted word is no key word.
        '"set" work_mem = 1': "",
    }
)
def test_what_sets_nothing_for_the_session(sql, steps):
    assert told(sql) == steps


@pytest.mark.parametrize("name", ["isolation", "read_only", "deferrable"])
def test_settings_that_end_with_their_transaction(name):
    assert told(f"SET transaction_{name} = 'x'") == []
    assert told(f"SELECT set_config('transaction_{name}', 'x', false)") == []


@pytest.mark.parametrize("true", ["true", "TRUE", "'true'", "'T'", "'yes'", "'y'", "'on'", "'1'"])
@pytest.mark.parametrize("cast", ["", "::bool", "::boolean"])
def test_constants_that_are_true(true, cast):
    assert told(f"SELECT set_config('a.b', 'x', {true}{cast})") == []


def test_a_search_path_that_makes_every_table_a_temporary_one():
    for path in "pg_temp", '"pg_temp", public', '"$user", pg_temp', "'pg_temp'":
        assert told(f"SET LOCAL search_path = {path}") == ["TEMPORARY"]
        assert told(f"SET search_path TO {path}") == ["SETTING search_path", "TEMPORARY"]
        # The first that exists counts, and of these, nobody knows which do.
        assert told(f"SET LOCAL search_path = missing, {path}") == ["TEMPORARY"]
    for value in "pg_temp", "PG_TEMP, a", '"$user", pg_temp', "missing, pg_temp", "pg_temp_3":
        sql = f"SELECT set_config('search_path', '{value}', true)"
        assert told(sql) == ["TEMPORARY"]
    assert told("SET LOCAL SCHEMA 'pg_temp'") == ["TEMPORARY"]
    assert told("SET SCHEMA 'pg_temp'") == ["SETTING search_path", "TEMPORARY"]
    assert told("SET LOCAL search_path FROM CURRENT") == []
    assert told("SET LOCAL search_path TO DEFAULT") == []
    assert told("SET LOCAL search_path = public, temp") == []
    assert told("UPDATE pg_settings SET setting = 'pg_temp'") == ["SETTING", "TEMPORARY"]


@table(
    {
        "SELECT set_config('search_path', 'a' || ', pg_temp', true)": "TEMPORARY",
        "SELECT set_config('search_path', 'a'::text || ', b', true)": "",
        "SELECT set_config('search_path', 'pg_' || 'temp', true)": "TEMPORARY",
        "SELECT set_config('search_path', concat('pg_', 'temp'), true)": "TEMPORARY",
        "SELECT set_config('search_path', (SELECT a FROM t), true)": "TEMPORARY",
        "SELECT set_config('search_path', a || 'b', true)": "TEMPORARY",
        "SELECT set_config('search_' || 'path', 'pg_temp', true)": "TEMPORARY",
        "SELECT set_config('search_path', NULL, true)": "",
        f"SELECT set_config('search_path', 'a'{' || 0' * 40}, true)": "TEMPORARY",
        f"SELECT set_config('a.b', 'x', {'NOT ' * 40}true)": "SETTING a.b",
        "SELECT set_config('a.b', 'x', )": "SETTING a.b",
        "SELECT set_config('search_path', 'a' || , true)": "TEMPORARY",
        "SET LOCAL search_path = a, $0": "TEMPORARY",
        "SELECT set_config(a, 'b', true) FROM t": "SEED",
        "SELECT set_config(a, b, true) FROM t": "SEED, TEMPORARY",
        "SELECT set_config(new_value => 'pg_temp', setting_name => 'search_path', is_local => true)"
        "": "SEED, ROLE, SETTING, TEMPORARY",
    }
)
def test_a_search_path_that_is_computed(sql, steps):
    assert told(sql) == steps


@table(
    {
        "SELECT set_config('a.B', 'x', false)": "SETTING a.b",
        "SELECT pg_catalog.set_config('a.b', 'x', false)": "SETTING a.b",
        "SELECT \"set_config\"('a.b', 'x', false)": "SETTING a.b",
        "SELECT SET_CONFIG /* a */ ('a.b', 'x', false)": "SETTING a.b",
        "SELECT U&\"set_conf\\0069g\"('a.b', 'x', false)": "SETTING a.b",
        "SELECT set_config($$a.b$$, f(1, 2), false)": "SETTING a.b",
        "SELECT set_config('a.b', 'x', 'f')": "SETTING a.b",
        "SELECT set_config('a.b', 'x', NULL)": "SETTING a.b",
        # Given back, where that is certain.
        "SELECT set_config('a.b', NULL, false)": "-SETTING a.b",
        "SELECT set_config('a.b', NULL::text, 'f'), set_config('a.c', NULL, NULL)": (
            "-SETTING a.b, -SETTING a.c"
        ),
        "SELECT set_config('role', NULL, false)": "-ROLE role",
        "SELECT set_config('a.b', NULL, true)": "",
        "SELECT set_config('a.b', NULL, x)": "?SETTING a.b",
        "SELECT set_config('a.b', 'NULL', false)": "SETTING a.b",
        "SELECT set_config('a.b', \"null\", false)": "SETTING a.b",
        "SELECT set_config('a.b', NULL, false) FROM t": "?SETTING a.b",
        "SELECT set_config('a.b', NULL, false) WHERE false": "?SETTING a.b",
        "SELECT set_config('a.b', NULL, false) LIMIT 0": "?SETTING a.b",
        "WITH a AS (SELECT set_config('a.b', NULL, false)) SELECT 1": "?SETTING a.b",
        "EXPLAIN SELECT set_config('a.b', NULL, false)": "",
        "EXPLAIN ANALYZE SELECT set_config('a.b', NULL, false)": "?SETTING a.b",
        "PREPARE p AS SELECT set_config('a.b', NULL, false)": "PREPARED p, ?SETTING",
        "DECLARE c CURSOR FOR SELECT set_config('a.b', NULL, false)": "?SETTING",
        "SELECT set_config('a.b', 'x', NOT true)": "SETTING a.b",
        "SELECT set_config('a.b', 'x', true = false)": "SETTING a.b",
        "SELECT set_config('a.b', 'x', \"true\") FROM t": "SETTING a.b",
        "SELECT set_config('transaction_timeout', '1', false)": "SETTING transaction_timeout",
        "SELECT set_config('role', 'a', false)": "ROLE role",
        "SELECT set_config('r' || 'ole', 'a', false)": "ROLE role",
        "SELECT set_config(lower('ROLE'), 'a', false)": "SEED, ROLE, SETTING",
        "SELECT set_config(name, 'a', false) FROM t": "SEED, ROLE, SETTING",
        "SELECT set_config(%s, 'a', false)": "SEED, ROLE, SETTING",
        "WITH a AS (SELECT set_config('a.b', 'x', false)) SELECT 1": "SETTING a.b",
        "(SELECT set_config('a.b', 'x', false))": "SETTING a.b",
        "UPDATE t SET a = set_config('a.b', 'x', false)": "SETTING a.b",
        "VALUES (set_config('a.b', 'x', false))": "SETTING a.b",
        "COPY (SELECT set_config('a.b', 'x', false)) TO STDOUT": "SETTING a.b",
        "SELECT 7%set_config('a.b', '1', false)::int": "SETTING a.b",
        "UPDATE pg_settings SET setting = 1": "SETTING",
        "UPDATE ONLY pg_catalog.pg_settings s SET setting = 1": "SETTING",
        # Local to the transaction, or no call of it.
        "SELECT set_config('a.b', 'x', true)": "",
        "SELECT set_config('a.b', 'x', TRUE::boolean)": "",
        "SELECT set_config('a.b', 'x', 'on')": "",
        "SELECT set_config('transaction_read_only', 'on', false)": "",
        "SELECT set_config FROM t": "",
        'SELECT "SET_CONFIG"(1, 2, 3)': "",
        "SELECT 'set_config(''a.b'', ''x'', false)'": "",
    }
)
def test_set_config(sql, steps):
    assert told(sql) == steps


@table(
    {
        "SET ROLE a": "ROLE role",
        "SET SESSION ROLE a": "ROLE role",
        "SET ROLE 'none'": "ROLE role",
        'SET ROLE "none"': "ROLE role",
        "SET role TO a": "ROLE role",
        "SET SESSION AUTHORIZATION a": "ROLE session_authorization",
        "SET SESSION SESSION AUTHORIZATION a": "ROLE session_authorization",
        "SET session_authorization = a": "ROLE session_authorization",
        "SET ROLE NONE": "-ROLE role",
        "RESET ROLE": "-ROLE role",
        "SET role TO DEFAULT": "-ROLE role",
        "SET SESSION AUTHORIZATION DEFAULT": "-ROLE session_authorization",
        "RESET SESSION AUTHORIZATION": "-ROLE session_authorization",
        "CREATE ROLE a": "",
        "GRANT a TO b": "",
    }
)
def test_roles(sql, steps):
    assert told(sql) == steps


@table(
    {
        "CREATE TEMP TABLE a (b int)": "TEMPORARY a",
        "create temporary table A (b int)": "TEMPORARY a",
        "CREATE LOCAL TEMP TABLE a (b int)": "TEMPORARY a",
        "CREATE GLOBAL TEMPORARY TABLE a (b int)": "TEMPORARY a",
        'CREATE TEMP TABLE IF NOT EXISTS "A" (b int)': "TEMPORARY A",
        "CREATE TEMP TABLE pg_temp.a AS SELECT 1": "TEMPORARY a",
        "CREATE TEMP TABLE a (b int) ON COMMIT DELETE ROWS": "TEMPORARY a",
        "CREATE TEMP TABLE a ON COMMIT PRESERVE ROWS AS SELECT 1": "TEMPORARY a",
        "CREATE TEMP TABLE a AS SELECT 'on'\n'commit'\n'drop'": "TEMPORARY a",
        'CREATE TEMP TABLE a AS SELECT "on" "commit", drop': "TEMPORARY a",
        "CREATE TEMP SEQUENCE a": "TEMPORARY a",
        "CREATE TEMP VIEW a AS SELECT 1": "TEMPORARY a",
        "CREATE OR REPLACE TEMP VIEW a AS SELECT 1": "TEMPORARY a",
        "CREATE TEMP RECURSIVE VIEW a (b) AS SELECT 1": "TEMPORARY a",
        "CREATE TABLE pg_temp.a (b int)": "TEMPORARY",
        "CREATE UNLOGGED TABLE pg_temp_3.a (b int)": "TEMPORARY",
        'CREATE VIEW "pg_temp" . a AS SELECT 1': "TEMPORARY",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS ''": "TEMPORARY, UNKNOWN",
        "CREATE TYPE pg_temp.a AS ENUM ()": "TEMPORARY",
        "CREATE EXTENSION hstore SCHEMA pg_temp": "TEMPORARY",
        "SELECT 1 AS b INTO TEMP a": "TEMPORARY a",
        "SELECT 1 AS b INTO TEMPORARY TABLE a FROM t": "TEMPORARY a",
        "SELECT 1 AS b INTO LOCAL TEMP a": "TEMPORARY a",
        "SELECT 1 AS b INTO pg_temp.a": "TEMPORARY a",
        "SELECT 1 AS b INTO TABLE pg_temp.a": "TEMPORARY a",
        "WITH x AS (SELECT 1) SELECT 1 AS b INTO TEMP a FROM x": "TEMPORARY a",
        "SELECT 1 AS insert INTO TEMP a": "TEMPORARY a",
        "SELECT 1 insert INTO TEMP TABLE a": "TEMPORARY a",
        "SELECT 1 AS insert INTO pg_temp.a": "TEMPORARY a",
        "SELECT 1 AS merge INTO TEMP a": "TEMPORARY a",
        "SELECT 1 AS merge INTO TEMP t FROM a ORDER BY b USING <": "TEMPORARY t",
        "SELECT 1 AS merge INTO TEMP t FROM a JOIN b USING (c)": "TEMPORARY t",
        "SELECT 1 AS merge INTO TEMP t ORDER BY a USING <": "TEMPORARY t",
        "SELECT 1 AS insert INTO TEMP values": "TEMPORARY values",
        "SELECT 1 AS insert INTO TEMP overriding FROM t": "TEMPORARY overriding",
        "SELECT 1 AS b INTO a.pg_temp.t": "TEMPORARY t",
        "SELECT 1 AS b INTO UNLOGGED pg_temp.t": "TEMPORARY t",
        "SELECT 1 AS b INTO temp.pg_temp.t": "TEMPORARY t",
        "CREATE TABLE a.pg_temp.b (c int)": "TEMPORARY",
        "CREATE STATISTICS pg_temp.a ON b, c FROM t": "TEMPORARY",
        "CREATE STATISTICS IF NOT EXISTS a.pg_temp.b (ndistinct) ON c, d FROM t": "TEMPORARY",
        "CREATE COLLATION pg_temp.a FROM b": "TEMPORARY",
        "CREATE TEXT SEARCH DICTIONARY pg_temp.a (template = simple)": "TEMPORARY",
        "CREATE OPERATOR pg_temp.+ (function = f)": "TEMPORARY, UNKNOWN",
        "CREATE TEMP VIEW a AS SELECT pg_advisory_lock(1)": "TEMPORARY a, LOCK, UNKNOWN",
        "CREATE VIEW pg_temp.a AS SELECT pg_advisory_lock(1)": "TEMPORARY, LOCK, UNKNOWN",
        "CREATE TEMP TABLE a (b text DEFAULT set_config('a.b', '1', false))": (
            "TEMPORARY a, SETTING a.b"
        ),
        "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO pg_temp": "TEMPORARY pg_temp",
        # May be one of those that there are.
        "ALTER TABLE a RENAME TO b": "~TEMPORARY *",
        "ALTER TABLE IF EXISTS ONLY a RENAME TO b": "~TEMPORARY *",
        "ALTER VIEW a RENAME TO b": "~TEMPORARY *",
        "ALTER SEQUENCE a RENAME TO b": "~TEMPORARY *",
        "ALTER INDEX a RENAME TO b": "~TEMPORARY *",
        "ALTER TABLE a SET SCHEMA b": "~TEMPORARY *",
        "DO $$ BEGIN ALTER TABLE a RENAME TO b; END $$": "~TEMPORARY *",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE a RENAME TO b'; END $$": "~TEMPORARY *",
        "DROP TABLE a": "-TEMPORARY a",
        "DROP TABLE IF EXISTS a, pg_temp.b, c CASCADE": "-TEMPORARY a, -TEMPORARY b, -TEMPORARY c",
        "DROP VIEW a": "-TEMPORARY a",
        "DROP SEQUENCE a": "-TEMPORARY a",
    }
)
def test_temporary_objects(sql, steps):
    assert told(sql) == steps


@table(
    {
        "CREATE TEMP TABLE a (b int) ON COMMIT DROP": "",
        "CREATE TEMP TABLE a ON /* x */ commit\nDrop AS SELECT 1": "",
        "CREATE TABLE pg_temp.a (b int) ON COMMIT DROP": "",
        "CREATE TABLE temp (a int)": "",
        "CREATE TABLE temp.a (a int)": "",
        'CREATE "temp" TABLE a (a int)': "",
        "CREATE TABLE a (temp int)": "",
        "CREATE INDEX a ON pg_temp.b (c)": "",
        "CREATE TABLE a AS SELECT 'pg_temp.b'": "",
        "CREATE STATISTICS a ON b, c FROM pg_temp.t": "",
        "ALTER TABLE a RENAME b TO c": "",
        "ALTER TABLE a RENAME COLUMN b TO c": "",
        "SELECT 1 INTO a": "",
        "SELECT 1 INTO TABLE temporary_a": "",
        'SELECT 1 INTO "temp"': "",
        "INSERT INTO temp VALUES (1)": "",
        "INSERT INTO temp (a) VALUES (1)": "",
        "INSERT INTO temp AS a SELECT 1": "",
        "INSERT INTO temp DEFAULT VALUES": "",
        "INSERT INTO temp OVERRIDING USER VALUE SELECT 1": "",
        "INSERT INTO temp WITH a AS (SELECT 1) SELECT 1": "",
        "INSERT INTO pg_temp.a VALUES (1)": "",
        "WITH a AS (INSERT INTO temp VALUES (1) RETURNING b) SELECT b FROM a": "",
        "MERGE INTO temp USING a ON true WHEN MATCHED THEN DELETE": "",
        "MERGE INTO temp AS b USING a ON true WHEN MATCHED THEN DELETE": "",
        "MERGE INTO temp b USING a ON true WHEN MATCHED THEN DELETE": "",
        "MERGE INTO ONLY temp USING a ON true WHEN MATCHED THEN DELETE": "",
        "MERGE INTO temp * AS b USING a ON true WHEN MATCHED THEN DELETE": "",
        "MERGE INTO pg_temp.a USING b ON true WHEN MATCHED THEN DELETE": "",
        "SELECT 'x' AS \"INTO TEMP\"": "",
        "SELECT temp FROM temp WHERE temp = 'INTO TEMP a'": "",
        "DROP TABLE public.a": "",
        "DROP TABLE public.a, b.c.d": "",
        'DROP TABLE "*"': "",
        "DROP TABLE": "",
        "DROP INDEX a": "",
        "DROP ROLE a": "",
    }
)
def test_what_makes_no_temporary_object(sql, steps):
    assert told(sql) == steps


@table(
    {
        "LISTEN a": "CHANNEL a",
        'LISTEN "A"': "CHANNEL A",
        "listen A": "CHANNEL a",
        "LISTEN Ä": "CHANNEL Ä",
        "UNLISTEN a": "-CHANNEL a",
        "UNLISTEN *": "-CHANNEL *",
        'UNLISTEN "A"': "-CHANNEL A",
        # A name like any other.
        'LISTEN "*"': "CHANNEL",
        'UNLISTEN "*"': "",
        "NOTIFY a, 'LISTEN b'": "",
        "SELECT pg_notify('a', 'b')": "",
        "SELECT listen FROM unlisten": "",
    }
)
def test_channels(sql, steps):
    assert told(sql) == steps


@table(
    {
        "SELECT pg_advisory_lock(1)": "LOCK 1",
        "SELECT pg_advisory_lock(1, -2)": "LOCK 1,-2",
        "SELECT pg_advisory_lock(1) AS a": "LOCK 1",
        "SELECT pg_advisory_lock('1')": "LOCK '1'",
        "SELECT pg_advisory_lock(B'1'::int)": "LOCK B'1'::int",
        "SELECT pg_advisory_lock(hashtext('a'))": "LOCK hashtext('a')",
        "SELECT pg_advisory_lock(abs(mod(length(lower(upper(md5('a')))), 7)))": (
            "LOCK abs(mod(length(lower(upper(md5('a')))),7))"
        ),
        "SELECT pg_advisory_lock(1), pg_advisory_xact_lock(2)": "LOCK 1",
        "SELECT pg_try_advisory_xact_lock_shared(2), pg_advisory_lock(1)": "LOCK 1",
        "SELECT pg_advisory_lock_shared(1)": "LOCK shared 1",
        "SELECT pg_try_advisory_lock(1)": "LOCK 1",
        "SELECT pg_try_advisory_lock_shared(1)": "LOCK shared 1",
        "SELECT pg_catalog.pg_advisory_lock(1), pg_advisory_lock(2)": "LOCK 1, LOCK 2",
        # How often, and on what, only the server knows.
        "SELECT pg_advisory_lock(1) FROM t": "LOCK",
        "SELECT pg_advisory_lock(1) WHERE a": "LOCK",
        "SELECT pg_advisory_lock(a) FROM t": "LOCK",
        "SELECT pg_advisory_lock(a)": "LOCK",
        "SELECT pg_advisory_lock((SELECT 1))": "LOCK",
        "SELECT pg_advisory_lock(unknown(1))": "LOCK",
        "SELECT pg_advisory_lock(generate_series(1, 3))": "LOCK",
        "SELECT pg_advisory_lock(1), generate_series(1, 3)": "LOCK",
        "SELECT f(pg_advisory_lock(1))": "LOCK",
        "SELECT DISTINCT pg_advisory_lock(1)": "LOCK",
        "SELECT * FROM pg_advisory_lock(1)": "LOCK",
        "WITH a AS (SELECT pg_advisory_lock(1)) TABLE a": "LOCK",
        "DELETE FROM t WHERE pg_try_advisory_lock(1)": "LOCK",
        # Given back, where that is certain.
        "SELECT pg_advisory_unlock(1)": "-LOCK 1",
        "SELECT pg_advisory_unlock_shared(1, 2)": "-LOCK shared 1,2",
        "SELECT pg_advisory_unlock_all()": "-LOCK *",
        "SELECT pg_advisory_unlock_all(), pg_advisory_lock(1)": "-LOCK *, LOCK 1",
        "SELECT pg_advisory_unlock(1) FROM t": "",
        "SELECT pg_advisory_unlock(a)": "",
        "SELECT pg_advisory_unlock_all() WHERE false": "?LOCK *",
        "SELECT * FROM pg_advisory_unlock_all()": "?LOCK *",
        "DO 'BEGIN PERFORM pg_advisory_unlock_all(); END'": "?LOCK",
        "SELECT pg_advisory_unlock(1) LIMIT 0": "",
        "SELECT pg_advisory_unlock(1) AS a LIMIT 0": "",
        "SELECT pg_advisory_unlock(1) OFFSET 1": "",
        "(SELECT pg_advisory_unlock(1)) LIMIT 0": "",
        "SELECT pg_advisory_unlock(1) UNION SELECT true": "",
        "SELECT pg_advisory_unlock(1) FETCH FIRST 0 ROWS ONLY": "",
        "SELECT pg_advisory_unlock(generate_series(1, 0))": "",
        "SELECT pg_advisory_unlock(own.abs(1))": "",
        "SELECT pg_advisory_unlock(1), unnest(ARRAY[]::int[])": "",
        "WITH a AS (SELECT pg_advisory_unlock(1)) SELECT 1": "",
        "EXPLAIN SELECT pg_advisory_unlock(1)": "",
        "PREPARE a AS SELECT pg_advisory_unlock(1)": "PREPARED a",
        "DECLARE a CURSOR FOR SELECT pg_advisory_unlock(1)": "",
        "DECLARE a CURSOR WITH HOLD FOR SELECT pg_advisory_unlock_all()": "CURSOR a, ?LOCK",
        "COPY (SELECT pg_advisory_unlock(1)) TO STDOUT": "",
        "CREATE TABLE a AS SELECT pg_advisory_unlock(1)": "",
        "EXPLAIN ANALYZE SELECT pg_advisory_unlock(1)": "?LOCK 1",
        # Of the transaction, or no calls.
        "SELECT pg_advisory_xact_lock(1)": "",
        "SELECT pg_try_advisory_xact_lock_shared(1)": "",
        "SELECT 'pg_advisory_lock(1)' AS pg_advisory_lock": "",
        "LOCK TABLE t IN ACCESS SHARE MODE": "",
        "SELECT 1 FROM t FOR UPDATE": "",
    }
)
def test_locks(sql, steps):
    assert told(sql) == steps


@table(
    {
        "PREPARE a AS SELECT 1": "PREPARED a",
        'PREPARE "A" (int) AS SELECT $1': "PREPARED A",
        "PREPARE transaction AS SELECT 1": "PREPARED transaction",
        "PREPARE transaction (int) AS SELECT 1": "PREPARED transaction",
        "PREPARE a AS INSERT INTO temp VALUES (1)": "PREPARED a",
        # EXECUTE will do it, whenever.
        "PREPARE a AS SELECT set_config('a.b', 'x', false)": "PREPARED a, SETTING, UNKNOWN",
        "PREPARE a AS SELECT pg_advisory_lock(1)": "PREPARED a, LOCK, UNKNOWN",
        "DEALLOCATE a": "-PREPARED a",
        "DEALLOCATE PREPARE a": "-PREPARED a",
        "DEALLOCATE ALL": "-PREPARED *",
        "DEALLOCATE PREPARE ALL": "-PREPARED *",
        'DEALLOCATE "all"': "-PREPARED all",
        "DEALLOCATE prepare": "",
        "EXECUTE a": "",
    }
)
def test_prepared_statements(sql, steps):
    assert told(sql) == steps


@table(
    {
        "DECLARE a CURSOR WITH HOLD FOR SELECT 1": "CURSOR a",
        'DECLARE "A" BINARY INSENSITIVE NO SCROLL CURSOR WITH HOLD FOR SELECT 1': "CURSOR A",
        "DECLARE a NO SCROLL SCROLL INSENSITIVE ASENSITIVE BINARY NO SCROLL NO SCROLL"
        " CURSOR WITH HOLD FOR SELECT 1": "CURSOR a",
        "DECLARE no CURSOR WITH HOLD FOR SELECT 1": "CURSOR no",
        "DECLARE cursor CURSOR WITH HOLD FOR SELECT 1": "CURSOR cursor",
        "DECLARE a CURSOR WITH HOLD FOR SELECT nextval('s')": "CURSOR a, SEQUENCE, UNKNOWN",
        "DECLARE a CURSOR FOR SELECT nextval('s')": "SEQUENCE, UNKNOWN",
        "DECLARE a CURSOR FOR SELECT query_to_xml('SELECT nextval(1)', true, true, '')": (
            "SEQUENCE, UNKNOWN"
        ),
        "DECLARE a CURSOR FOR SELECT query_to_xml(b, true, true, '') FROM c": "DYNAMIC",
        "PREPARE a AS SELECT query_to_xml($1, true, true, '')": "PREPARED a, DYNAMIC",
        "CLOSE a": "-CURSOR a",
        "CLOSE ALL": "-CURSOR *",
        "DECLARE a CURSOR FOR SELECT 1": "",
        "DECLARE a CURSOR WITHOUT HOLD FOR SELECT 1": "",
        "DECLARE a CURSOR FOR WITH hold AS (SELECT 1) TABLE hold": "",
        "FETCH a": "?CURSOR",
    }
)
def test_cursors(sql, steps):
    assert told(sql) == steps


@table(
    {
        "SELECT nextval('s')": "SEQUENCE",
        "SELECT nextval(pg_get_serial_sequence('t', 'id'))": "SEQUENCE",
        "SELECT nextval(pg_catalog.pg_get_serial_sequence('t', 'id'))": "SEQUENCE",
        "SELECT setval(pg_get_serial_sequence('t', 'id'), nextval('s'))": "SEQUENCE",
        "SELECT setval('s', 1), nextval('s'), nextval('s')": "SEQUENCE",
        "INSERT INTO t SELECT nextval('s')": "SEQUENCE",
        "CREATE TABLE a AS SELECT nextval('s')": "SEQUENCE",
        "CREATE TABLE view AS SELECT nextval('s')": "SEQUENCE",
        "CREATE UNLOGGED TABLE function AS SELECT nextval('s')": "SEQUENCE",
        "CREATE MATERIALIZED VIEW a AS SELECT nextval('s')": "SEQUENCE",
        "ALTER TABLE t ALTER a TYPE int USING nextval('s')": "SEQUENCE",
        # Called later, for rows that somebody inserts.
        "CREATE TABLE t (a int DEFAULT nextval('s'), b int)": "",
        "CREATE TABLE t (a int DEFAULT pg_catalog.nextval('s'))": "",
        "CREATE TABLE t (a int DEFAULT (nextval('s')))": "",
        "ALTER TABLE t ALTER a SET DEFAULT nextval('s')": "",
        "ALTER TABLE t ALTER a SET DEFAULT (nextval('s'))": "",
        # As by an INSERT.
        "ALTER TABLE t ADD a int DEFAULT nextval('s')": "",
        "ALTER TABLE t ADD a int DEFAULT ((pg_catalog.nextval('s'))) NOT NULL": "",
        "CREATE VIEW a AS SELECT nextval('s')": "",
        "CREATE OR REPLACE VIEW a AS SELECT nextval('s')": "",
        "CREATE FUNCTION f() RETURNS int RETURN nextval('s')": "",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT nextval('s'); END": "",
        "CREATE RULE a AS ON INSERT TO t DO SELECT nextval('s')": "",
        "CREATE CONSTRAINT TRIGGER a AFTER INSERT ON t WHEN (nextval('s') > 1) EXECUTE f()": "",
        "SELECT nextval FROM t": "",
        "SELECT app.nextval('s')": "",
        'SELECT "pg_catalog".nextval(1)': "SEQUENCE",
        # Of Django's.
        "SELECT setval(pg_get_serial_sequence('t', 'id'), 1, false)": "",
    }
)
def test_sequences(sql, steps):
    assert told(sql) == steps


@pytest.mark.parametrize(
    "what",
    [
        *("VIEW", "FUNCTION", "PROCEDURE", "RULE", "POLICY", "TRIGGER", "AGGREGATE"),
        *("OR REPLACE FUNCTION", "RECURSIVE VIEW", "CONSTRAINT TRIGGER", "EVENT TRIGGER"),
    ],
)
def test_definitions(what):
    assert told(f"CREATE {what} a AS (nextval('s'))") == []


@pytest.mark.parametrize(
    "sql",
    [
        "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO a",
        "REVOKE EXECUTE ON FUNCTION set_config(text, text, boolean) FROM PUBLIC",
        "ALTER FUNCTION setseed(double precision) OWNER TO a",
        "ALTER POLICY a ON t USING (pg_try_advisory_lock(1))",
        "CREATE TABLE t (a text DEFAULT set_config('a.b', '1', false))",
        "CREATE DOMAIN a AS text CHECK (set_config('a.b', VALUE, false) > '')",
    ],
)
def test_what_only_names_a_function(sql):
    assert told(sql) == []


@pytest.mark.parametrize(
    "what",
    ["INDEX", "UNIQUE INDEX", "TRIGGER", "CONSTRAINT TRIGGER", "RULE", "POLICY", "STATISTICS"],
)
def test_parts_of_temporary_tables(what):
    assert told(f"CREATE {what} a ON pg_temp.b") == []


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("SELECT currval('s')", True),
        ("SELECT LASTVAL()", True),
        ('SELECT U&"\\006castval"()', True),
        ("INSERT INTO t VALUES (pg_catalog.currval('s'))", True),
        ("SELECT nextval('s')", False),
        ("SELECT nextval('s'); SELECT lastval()", True),
        ("SET a.b = 'lastval()'", False),
    ],
)
def test_what_reads_a_sequence(sql, reads):
    effects = classify(sql)
    assert effects is not None and effects.reads_sequence == reads


@pytest.mark.parametrize(
    ("sql", "may"),
    [
        ("DO $$ BEGIN SET a.b = 1; COMMIT; END $$", True),
        ("CALL p(nextval('s'))", True),
        ("SELECT 1; CALL p(); SET a.b = 1", True),
        ("SET a.b = 1; SELECT 'do'", False),
    ],
)
def test_what_may_commit_before_it_fails(sql, may):
    assert classify(sql).may_commit == classify(sql).deferred.may_commit == may
    assert classify(sql).repeated.may_commit


def test_what_does_not_read_a_sequence():
    assert classify("SELECT lastval FROM currval") is None


FOR_GOOD = (Kind.SEED, Kind.LIBRARY, Kind.EXTENSION, Kind.DYNAMIC, Kind.UNKNOWN)
ALL_OF_THEM = [kind.name for kind in Kind if kind not in FOR_GOOD]


@table(
    {
        "LOAD 'auto_explain'": "LIBRARY",
        "SELECT pg_backup_start('nightly')": "EXTENSION",
        "SELECT * FROM pg_create_logical_replication_slot('a', 'b', true)": "EXTENSION",
        "SELECT query_to_xml('SELECT setseed(1)', true, true, '')": "SEED",
        "SELECT query_to_xml('SELECT 1', true, true, '')": "",
        "SELECT query_to_xml(%s, true, true, '')": "DYNAMIC",
        "SELECT word FROM ts_stat('SELECT ' || %s)": "DYNAMIC",
        "SELECT ts_rewrite('a'::tsquery, 'SELECT set_config(''a.b'', ''1'', false)')": "SETTING",
        "SELECT ts_rewrite('a'::tsquery, 'b'::tsquery, 'c'::tsquery)": "",
        "DO $$ BEGIN PERFORM query_to_xml('SET a.b = 1', true, true, ''); END $$": "SETTING",
        "DISCARD TEMP": "-TEMPORARY *",
        "DISCARD TEMPORARY": "-TEMPORARY *",
        "DISCARD SEQUENCES": "-SEQUENCE *",
        "DISCARD PLANS": "",
        # A library cannot be unloaded.
        "discard all": ", ".join(f"-{kind} *" for kind in ALL_OF_THEM),
    }
)
def test_libraries_and_discard(sql, steps):
    assert told(sql) == steps


@table(
    {
        "COMMIT": "COMMIT",
        "END WORK": "COMMIT",
        "COMMIT AND CHAIN": "COMMIT",
        "PREPARE TRANSACTION 'a'": "COMMIT",
        "ROLLBACK": "ROLLBACK",
        "ABORT": "ROLLBACK",
        "SAVEPOINT a": "SAVEPOINT a",
        'SAVEPOINT "A"': "SAVEPOINT A",
        "RELEASE a": "RELEASE a",
        "RELEASE SAVEPOINT A": "RELEASE a",
        "ROLLBACK TO a": "ROLLBACK_TO a",
        "ROLLBACK WORK TO SAVEPOINT a": "ROLLBACK_TO a",
        f"SAVEPOINT {'a' * 70}": f"SAVEPOINT {'a' * 63}",
        f"ROLLBACK TO {'é' * 70}": f"ROLLBACK_TO {'é' * 31}",
        "BEGIN": "",
        "START TRANSACTION READ ONLY": "",
        "COMMIT PREPARED 'a'": "",
        "ROLLBACK PREPARED 'a'": "",
        "SELECT 'COMMIT'": "",
    }
)
def test_transactions(sql, steps):
    assert told(sql) == steps


@table(
    {
        "SELECT setseed(0.5)": "SEED",
        "SELECT pg_catalog.setseed(0.5)": "SEED",
        "SELECT random() FROM setseed(0.5)": "SEED",
        "SET SEED TO 0.5": "SEED",
        "SET seed = 0.5": "SEED",
        "SET SESSION seed = 0.5": "SEED",
        # Neither the end of the transaction nor anything else takes it back.
        "SET LOCAL seed = 0.5": "SEED",
        "SET seed TO DEFAULT": "SEED",
        "RESET seed": "SEED",
        "SELECT set_config('seed', '0.5', false)": "SEED",
        "SELECT set_config('SEED', '0.5', true)": "SEED",
        "SELECT set_config('seed', NULL, false)": "SEED",
        "DO $$ BEGIN PERFORM setseed(0.5); END $$": "SEED",
        "PREPARE a AS SELECT setseed(0.5)": "PREPARED a, SEED, UNKNOWN",
        "EXPLAIN SELECT setseed(0.5)": "",
        "CREATE VIEW a AS SELECT setseed(0.5)": "",
        "SELECT setseed FROM t": "",
        "SELECT random()": "",
    }
)
def test_the_seed_of_random(sql, steps):
    assert told(sql) == steps


@table(
    {
        "EXPLAIN SELECT set_config('a.b', 'x', false)": "",
        "EXPLAIN (COSTS OFF) SELECT set_config('a.b', 'x', false)": "",
        "EXPLAIN VERBOSE SELECT set_config('a.b', 'x', false)": "",
        "EXPLAIN (SELECT pg_advisory_lock(1))": "",
        "EXPLAIN CREATE TEMP TABLE a AS SELECT 1": "",
        "EXPLAIN ANALYZE SELECT set_config('a.b', 'x', false)": "SETTING a.b",
        "EXPLAIN ANALYSE VERBOSE SELECT set_config('a.b', 'x', false)": "SETTING a.b",
        "EXPLAIN (COSTS OFF, ANALYZE) SELECT pg_try_advisory_lock(1)": "LOCK 1",
        "EXPLAIN (ANALYZE true) CREATE TEMP TABLE a AS SELECT 1": "TEMPORARY a",
        "EXPLAIN ANALYZE": "",
        "EXPLAIN ANALYZE EXPLAIN ANALYZE SELECT nextval('s')": "",
        "EXPLAIN ANALYZE SELECT 1; COMMIT": "COMMIT",
        "EXPLAIN (SELECT 1)": "",
        "EXPLAIN (ANALYZE": "",
    }
)
def test_explain(sql, steps):
    assert told(sql) == steps


def test_the_row_of_a_plan_is_not_looked_at():
    (change,) = classify("EXPLAIN ANALYZE SELECT pg_try_advisory_lock(1)").steps
    assert change.column is None


@table(
    {
        "DO $$ BEGIN SET a.b = 1; END $$": "SETTING",
        "DO LANGUAGE plpgsql 'BEGIN SET a.b = ''x''; END'": "SETTING",
        "DO E'BEGIN\\n\\x53ET a.b = 1;\\nEND'": "SETTING",
        "DO $$ BEGIN IF x THEN SET a.b = 1; END IF; END $$": "SETTING",
        "DO $$ BEGIN IF x THEN NULL; ELSE LISTEN a; END IF; END $$": "CHANNEL",
        "DO $$ BEGIN LOOP LISTEN a; END LOOP; END $$": "CHANNEL",
        "DO $$ BEGIN PERFORM set_config('a.b', 'x', false); END $$": "SETTING",
        "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$": "LOCK",
        "DO $$ DECLARE x int := nextval('s'); BEGIN NULL; END $$": "SEQUENCE",
        "DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE a (b int)'; END $$": "TEMPORARY",
        "DO $$ BEGIN EXECUTE 'SET ' || x; END $$": "DYNAMIC, SEED, ROLE, SETTING, TEMPORARY",
        "DO $$ BEGIN EXECUTE 'SET LOCAL ' || x; END $$": "DYNAMIC, SEED, TEMPORARY",
        "DO $$ BEGIN EXECUTE 'SELECT set_config(' || x; END $$": (
            "DYNAMIC, SEED, ROLE, SETTING, TEMPORARY"
        ),
        "DO $$ DECLARE q text := 'LISTEN a'; BEGIN EXECUTE q; END $$": "CHANNEL",
        "DO $$ BEGIN EXECUTE $q$ DO 'BEGIN LISTEN a; END' $q$; END $$": "CHANNEL",
        'DO LANGUAGE plpython3u $$ plpy.execute("SET a.b = 1") $$': "SETTING",
        # Of other languages, whatever runs a string.
        "DO LANGUAGE plperl $$ spi_exec_query('SET a.b = 1'); $$": "SETTING",
        "DO $$ spi_exec_query(q(x), 'SET a.b = 1'); $$ LANGUAGE 'plperl'": "SETTING",
        "DO $$ BEGIN EXECUTE $q$ DO $r$ BEGIN EXECUTE 'LISTEN a'; END $r$ $q$; END $$": "CHANNEL",
        "DO $$ BEGIN DO $r$ BEGIN LISTEN a; END $r$; END $$": "CHANNEL",
        "DO $$ BEGIN EXECUTE 'CREATE ' || x; END $$": "DYNAMIC, TEMPORARY",
        "DO $$ BEGIN EXECUTE 'CREATE TABLE ' || 'pg_temp.x'; END $$": "TEMPORARY",
        "DO $$ BEGIN EXECUTE 'ALTER ' || x; END $$": "DYNAMIC, ~TEMPORARY *",
        "DO $$ BEGIN EXECUTE 'RESET ' || x; END $$": "DYNAMIC, ?SETTING, ?ROLE",
        "DO $$ BEGIN EXECUTE 'UNLISTEN ' || x; END $$": "DYNAMIC, ?CHANNEL",
        "DO $$ BEGIN EXECUTE x; END $$": "DYNAMIC",
        "DO $$ BEGIN EXECUTE 'S' || 'ET a.b = 1'; END $$": "SETTING",
        "DO $$ BEGIN EXECUTE format('SELECT %L', x); END $$": "",
        "DO $$ DECLARE BEGIN NULL; END $$": "",
        # So deep, nobody looks.
        "DO $1_$ BEGIN $1_$": "",
        "DO $a$ EXECUTE $b$ EXECUTE $c$ EXECUTE $d$ EXECUTE $e$ LISTEN a $e$ $d$ $c$ $b$ $a$": (
            "UNKNOWN"
        ),
        "DO $$ DECLARE c CURSOR FOR SELECT CASE WHEN a THEN 1 ELSE 2 END; BEGIN NULL; END $$": "",
        "DO $$ BEGIN PREPARE p AS SELECT CASE WHEN true THEN nextval('s') END; END $$": (
            "PREPARED, SEQUENCE, UNKNOWN"
        ),
        # Nothing is known to be given back, and no transaction to be ended.
        "DO $$ BEGIN COMMIT; PERFORM pg_advisory_unlock(1); END $$": "",
        # Where that was configured, it is gone.
        "DO $$ BEGIN RESET a.b; UNLISTEN c; END $$": "?SETTING, ?CHANNEL",
        "DO $$ BEGIN RAISE NOTICE 'SET a.b = 1'; END $$": "",
        "DO $$ BEGIN UPDATE t SET a = 1; END $$": "",
        "DO $$ BEGIN SET LOCAL a.b = 1; END $$": "",
    }
)
def test_do_blocks(sql, steps):
    # The order in which a block's statements run is not the text's.
    assert sorted(told(sql)) == sorted(steps)


@table(
    {
        "SET a.b = 1; RESET a.b; SET a.b = 2": "SETTING a.b, -SETTING a.b, SETTING a.b",
        "BEGIN; SET a.b = 1; COMMIT": "SETTING a.b, COMMIT",
        "SELECT 1; LISTEN a; SELECT 2": "CHANNEL a",
        ";; SELECT 1;;": "",
        "SELECT ';SET a.b = 1'; SELECT 1": "",
        "SELECT $$;$$; SELECT E'\\';SET a.b = 1'": "",
        "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1 AS case; END; SET a.b = 1": "SETTING a.b",
        "SELECT 1 AS €$$; SET a.b = 1; SELECT '$$'": "SETTING a.b",
        "SELECT 1 /* a /* b */ ; SET a.b = 1 */; SET a.c = 1": "SETTING a.c",
    }
)
def test_several_statements(sql, steps):
    assert told(sql) == steps


@pytest.mark.parametrize(
    ("sql", "single"),
    [("SET a.b = 1", True), ("SET a.b = 1; ;", True), ("SET a.b = 1; SELECT 1", False)],
)
def test_whether_it_is_a_single_statement(sql, single):
    assert classify(sql).single == single


EFFECT = "SET a.b = 1; SELECT set_config('a', 'b', false) INTO TEMP x; LISTEN c"
QUOTED = EFFECT.replace("'", "''")


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT '{QUOTED}'",
        f"SELECT E'\\'{QUOTED}'",
        f"SELECT U&'{QUOTED}'",
        f"SELECT 'a'\n'{QUOTED}'",
        f"SELECT $${EFFECT}$$",
        f"SELECT $a$ $$ {EFFECT} $$ $a$",
        f'SELECT 1 AS "{EFFECT}"',
        f'SELECT 1 AS U&"{EFFECT}"',
        f"SELECT 1 -- {EFFECT}",
        f"/* {EFFECT} */ SELECT 1",
        f"/* /* */ {EFFECT} */ SELECT 1",
        f"INSERT INTO t VALUES ('{QUOTED}')",
        f"COMMENT ON TABLE t IS '{QUOTED}'",
    ],
)
def test_a_word_in_a_string_a_comment_or_an_identifier_is_no_effect(sql):
    assert classify(sql) is None


@table(
    {
        # Without parameters, it is an operator.
        "SELECT 100 %(SELECT nextval('s'))s": "SEQUENCE",
        "SELECT 100 %(SELECT set_config('a.b', 'x', false)::int)s": "SETTING a.b",
        "SELECT 7%set_config('a.b', '1', false)::int": "SETTING a.b",
        "SELECT 7 %(a')s; SET a.b = 1 --": "SETTING a.b",
        # With parameters, it is a placeholder.
        "SELECT %sINTO TEMP t": "TEMPORARY t",
        "SELECT %(a)sINTO TEMP t": "TEMPORARY t",
        "SELECT %(a(b)sINTO TEMP t": "TEMPORARY t",
        "SELECT 1;%sSET a.b = 1": "",
        "SELECT %(a')s; SET a.b = 1; SELECT 'x'": "SETTING a.b",
        "SELECT %(a b)s; SET a.b = 1": "SETTING a.b",
        # Moves, and what is given back, only if it is in each of the ways.
        "SELECT 7 %(a')s; COMMIT --": "UNKNOWN",
        "RESET a.b; SELECT 7 %(a')s; SET a.c = 1 --": "?SETTING a.b, SETTING a.c",
    }
)
def test_what_depends_on_there_being_parameters(sql, steps):
    assert sorted(set(told(sql)) - {"UNKNOWN"}) == sorted(set(steps) - {"UNKNOWN"})


@table(
    {
        r"SELECT '\''; SET a.b = 1 --'": "SETTING a.b",
        r"SELECT '\', nextval('s'), '\'": "SEQUENCE",
        r"SELECT N'\''; SET a.b = 1 --'": "SETTING a.b",
        r"SELECT '\\'; SET a.b = 1; SELECT '\\'": "SETTING a.b",
        r"SELECT '\''; COMMIT --'": "UNKNOWN",
        r"SELECT E'\''; SET a.b = 1 --'": "SETTING a.b",
        r"SELECT E'\', nextval(''s''), \''": "",
        r"DO 'BEGIN \123ET a.b = 1; END'": "SETTING",
        r"DO $$ BEGIN EXECUTE '\123ET a.b = 1'; END $$": "SETTING",
        # It is session state itself; the rest of its text is read as before.
        r"SET standard_conforming_strings = off": "SETTING standard_conforming_strings",
        r"SET standard_conforming_strings = off; SELECT '\'; LISTEN a; --'": (
            "SETTING standard_conforming_strings, CHANNEL a"
        ),
        r"BEGIN; SET LOCAL standard_conforming_strings = off": "",
    }
)
def test_what_depends_on_standard_conforming_strings(sql, steps):
    assert told(sql) == steps


@pytest.mark.parametrize("how", ["repeated", "deferred"])
def test_what_may_never_run_gives_nothing_back(how):
    """By executemany() without rows, or a server-side cursor that nobody fetches from."""
    for sql in (
        "SELECT pg_advisory_unlock(1)",
        "SELECT pg_advisory_unlock_all()",
        "SELECT set_config('a.b', NULL, false)",
        "SELECT set_config('a.b', %s, false)",
        "RESET a.b",
        "UNLISTEN a",
        "DROP TABLE a",
    ):
        steps = getattr(classify(sql), how).resolve([None], [True])
        assert steps and not any(step.undoes and step.sure for step in steps), sql
    unlock = getattr(classify("SELECT pg_advisory_lock(1); COMMIT"), how)
    assert unlock.resolve(None, None) == (Change(Kind.LOCK, None), Change(Kind.UNKNOWN, None))


def test_a_query_that_cannot_be_read_may_do_anything():
    assert told(UNREADABLE) == ["UNKNOWN"]


def test_what_a_server_side_cursor_makes_it_makes_whenever_rows_are_fetched():
    effects = classify("SELECT pg_advisory_lock(1), set_config('a.b', %s, true)").deferred
    assert [_line(step) for step in effects.resolve(["x"], None)] == ["LOCK", "UNKNOWN"]
    effects = classify("SELECT set_config('a.b', 'x', %s), lastval()").deferred
    assert [_line(step) for step in effects.resolve([True], None)] == ["SETTING", "UNKNOWN"]
    assert effects.reads_sequence


class TestResolve:
    """What is left open by the text, is known by its parameters and its row."""

    @staticmethod
    def lines(sql, params=None, row=None):
        return [_line(step) for step in classify(sql).resolve(params, row)]

    @pytest.mark.parametrize("local", [True, "true", "t", "yes", "y", "on", "1"])
    def test_local_by_a_parameter(self, local):
        for sql, params in [
            ("SELECT set_config('a.b', %s, %s)", ["x", local]),
            ("SELECT set_config('a.b', %s, %s::boolean)", ("x", local)),
            ("SELECT set_config('a.b', %(x)s, %(y)s)", {"x": "y", "y": local}),
            ("SELECT set_config('a.b', $2, $1)", [local, "x"]),
            ("SELECT 1 LIMIT %s; SELECT set_config('a.b', 'x', %s)", [1, local]),
            ("SELECT 5 %% 3, '%%s', set_config('a.b', 'x', %s)", [local]),
            ("EXPLAIN ANALYZE SELECT set_config('a.b', 'x', %s)", [local]),
        ]:
            assert self.lines(sql, params) == []

    @pytest.mark.parametrize("params", [[False], ["f"], [None], [[]], [{}], [], (), {}, None, 5])
    def test_not_local_by_a_parameter(self, params):
        assert self.lines("SELECT set_config('a.b', 'x', %s)", params) == ["SETTING a.b"]

    @pytest.mark.parametrize(
        ("value", "temporary"),
        [
            ("a, pg_temp", True),
            ("PG_TEMP", True),
            ('"$user", "pg_temp_3"', True),
            ("public", False),
            ("temp", False),
            (None, False),
            (5, False),
            (object(), True),
        ],
    )
    def test_a_search_path_in_a_parameter(self, value, temporary):
        expected = ["TEMPORARY"] if temporary else []
        for sql in (
            "SELECT set_config('search_path', %s, true)",
            "SELECT set_config('search_path', %s::text, true)",
            "SELECT set_config('search_path', 'a, ' || %s || ', b', true)",
            "SET LOCAL search_path = a, %s",
            "SET LOCAL SCHEMA %s",
        ):
            assert self.lines(sql, [value]) == expected, sql
        sql = "SELECT set_config(%(name)s, %(value)s, true)"
        assert self.lines(sql, {"name": "search_PATH", "value": value}) == expected
        if value is not None:  # SET takes no NULL
            assert self.lines("SET search_path = %s", [value]) == ["SETTING search_path", *expected]

    def test_a_search_path_in_a_parameter_that_is_not_there(self):
        for sql in "SELECT set_config('search_path', %s, true)", "SET LOCAL search_path = a, %s":
            for params in None, [], {}, 5:
                assert self.lines(sql, params) == ["TEMPORARY"]

    def test_a_name_in_a_parameter(self):
        sql = "SELECT set_config(%s, %s, %s)"
        assert self.lines(sql, ["a.B", "x", False]) == ["SETTING a.b"]
        assert self.lines(sql, ["role", "x", False]) == ["ROLE role"]
        assert self.lines(sql, ["a.b", "x", True]) == []
        assert self.lines(sql, ["seed", "0.5", True]) == ["SEED"]
        assert self.lines(sql, ["search_path", "pg_temp", True]) == ["TEMPORARY"]
        assert self.lines(sql, ["transaction_read_only", "on", False]) == []
        assert self.lines(sql, None) == ["SEED", "ROLE", "SETTING", "TEMPORARY"]

    def test_null_in_a_parameter(self):
        sql = "SELECT set_config('a.b', %s, false)"
        assert self.lines(sql, [None]) == ["-SETTING a.b"]
        assert self.lines(sql, ["None"]) == ["SETTING a.b"]
        assert self.lines(f"{sql} FROM t", [None]) == ["?SETTING a.b"]
        sql = "SELECT set_config('a.b', %s, %s)"
        assert self.lines(sql, [None, False]) == ["-SETTING a.b"]
        assert self.lines(sql, [None, None]) == ["-SETTING a.b"]
        assert self.lines(sql, [None, True]) == []
        assert self.lines(sql, [None, "x"]) == ["?SETTING a.b"]

    def test_a_number_that_no_driver_counts_to(self):
        for number in "9" * 5000, "0":
            sql = f"SELECT pg_advisory_lock(${number}), set_config('a.b', 'x', ${number})"
            assert self.lines(sql, [True]) == ["LOCK", "SETTING a.b"]

    def test_a_parameter_that_is_only_part_of_it(self):
        for value in "NOT %s", "%s = false", "%s AND false":
            sql = f"SELECT set_config('a.b', 'x', {value})"
            assert self.lines(sql, [True]) == ["SETTING a.b"]

    def test_a_value_without_a_truth(self):
        class Array:
            def __eq__(self, other):
                raise ValueError("ambiguous")

            __hash__ = None

        assert self.lines("SELECT set_config('a.b', 'x', %s)", [Array()]) == ["SETTING a.b"]

    def test_placeholders_that_drivers_count_differently(self):
        """psycopg fills in those of strings and comments, too; so none can be told."""
        for sql in (
            "SELECT /* %s */ set_config('a.b', 'x', %s)",
            "SELECT '%s', set_config('a.b', 'x', %s)",
            "SELECT 5 %set, set_config('a.b', 'x', %s)",
        ):
            assert self.lines(sql, [True, False]) == ["SETTING a.b"]
            assert self.lines(sql, [True]) == ["SETTING a.b"]
        assert self.lines("SELECT /* %s */ pg_advisory_lock(%s)", [1, 2]) == ["LOCK"]
        assert self.lines("SELECT /* %(a)s */ pg_advisory_lock(%(b)s)", {"b": 2}) == ["LOCK 2"]

    def test_the_key_of_a_lock(self):
        lock, unlock = "SELECT pg_advisory_lock(%s)", "SELECT pg_advisory_unlock(%s)"
        assert self.lines(lock, [7]) == ["LOCK 7"] == self.lines("SELECT pg_advisory_lock(7)")
        assert self.lines(unlock, (7,)) == ["-LOCK 7"]
        assert self.lines("SELECT pg_advisory_lock(%s, %s)", [1, 2]) == ["LOCK 1,2"]
        assert self.lines("SELECT pg_advisory_lock(hashtext(%(a)s))", {"a": "it's"}) == [
            "LOCK hashtext('it''s')"
        ]
        # A number and its text are not the same to everybody.
        assert self.lines(lock, ["7"]) == ["LOCK '7'"]

    @pytest.mark.parametrize("params", [None, [], (), {}, {"a": 1}])
    def test_a_key_that_cannot_be_told(self, params):
        assert self.lines("SELECT pg_advisory_lock(%s)", params) == ["LOCK"]
        # What is given back then could be anything.
        assert self.lines("SELECT pg_advisory_unlock(%s)", params) == []

    def test_rows(self):
        sql = "SELECT pg_advisory_lock(1), pg_try_advisory_lock(2), pg_advisory_unlock(3)"
        assert self.lines(sql, row=["", True, True]) == ["LOCK 1", "LOCK 2", "-LOCK 3"]
        assert self.lines(sql, row=["", False, False]) == ["LOCK 1"]
        assert self.lines(sql) == ["LOCK 1", "LOCK 2", "-LOCK 3"]
        # Whose row it is, is not known.
        assert self.lines(f"{sql}; SELECT 1", row=[False] * 3) == ["LOCK 1", "LOCK 2", "-LOCK 3"]
        assert self.lines("SELECT pg_try_advisory_lock(1) FROM t", row=[False]) == ["LOCK"]

    def test_nothing_is_open_afterwards(self):
        sql = "SELECT set_config('a.b', 'x', %s), pg_try_advisory_lock(%s); COMMIT"
        assert classify(sql).resolve([False, 1], None) == (
            Change(Kind.SETTING, ("a.b",)),
            Change(Kind.LOCK, ("1",)),
            Move(Control.COMMIT),
        )

    def test_a_parameter_by_itself(self):
        assert Parameter("a").value({"a": 1}) == Parameter(0).value((1,)) == 1
        for key, params in ("a", [1]), (0, {0: 1}), (1, [1]), (0, None), ("a", {}):
            with pytest.raises(Unresolved):
                Parameter(key).value(params)


def test_made():
    effects = classify("SET a.b = 1; RESET a.b; COMMIT")
    assert effects.made == (Change(Kind.SETTING, ("a.b",)),)
    assert Effects((Change(Kind.LOCK, ALL, undoes=True),)).made == ()


class TestMemo:
    def test_it_answers_as_classify_does(self):
        memo = Memo()
        for sql in "SELECT 1", "SET a.b = 1", "SELECT 'SET'":
            assert memo[sql] == classify(sql) == memo[sql]
        assert isinstance(EFFECTS, Memo)

    def test_a_text_is_classified_once(self, monkeypatch):
        calls = []
        monkeypatch.setattr("relet.core.sql.classifier.classify", calls.append)
        memo = Memo()
        assert [memo["SELECT 1"], memo["SELECT 1"]] == [None, None]
        assert calls == ["SELECT 1"]

    def test_it_is_bounded(self):
        memo = Memo(texts=3)
        for number in range(10):
            assert memo[f"SET a.b = {number}"] is not None
            assert len(memo) <= 3
        assert "SET a.b = 9" in memo

    def test_it_keeps_what_it_can(self):
        memo = Memo(texts=3)
        for number in range(3):
            memo[f"SET a.b = {number}"]
        assert len(memo) == 3

    def test_long_texts_are_not_kept(self):
        memo = Memo(characters=11)
        assert memo["SET a.b = 1"] == memo["SET a.b = 12"] == classify("SET a.b = 1")
        assert [*memo] == ["SET a.b = 1"]


VOCABULARY = """
    SET SESSION LOCAL RESET ALL ROLE TIME ZONE CREATE TEMP TABLE VIEW DROP IF EXISTS a b "c" . , ;
    ( ) = TO DEFAULT SELECT INTO INSERT MERGE UPDATE pg_settings WITH AS set_config pg_advisory_lock
    pg_advisory_unlock nextval currval 'x' E'y' $$z$$ %s %(a)s $1 $99 $0 1 :: bool true PREPARE
    TRANSACTION DECLARE CURSOR HOLD DISCARD LISTEN UNLISTEN * LOAD EXPLAIN ANALYZE DO BEGIN ATOMIC
    CASE END COMMIT ROLLBACK SAVEPOINT search_path pg_temp role U&"d\\0061" UESCAPE '!' EXECUTE
    DEALLOCATE CLOSE ON - / [ ] setseed seed ALTER RENAME SCHEMA NULL | STATISTICS USING VALUES THEN
    search_path, %sa %(b'c)s '\\' \\ $q$ LANGUAGE FUNCTION
"""
WORDS = st.sampled_from(VOCABULARY.split())


@pytest.mark.slow
@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text())
def test_no_text_raises(sql):
    for text in sql, f"DO $body$ BEGIN EXECUTE {sql}; END $body$":
        effects = classify(text)
        if effects is not None:
            for params in None, [], [1, "a"], {"a": True}:
                assert isinstance(effects.resolve(params, None), tuple)


EXAMPLES = [
    "SET SESSION work_mem = '1MB'",
    "SET TIME ZONE LOCAL",
    "SET LOCAL a.b TO 1",
    "SELECT set_config ( 'a.b' , 'SET x' , %s :: bool ) ; RESET ALL",
    "CREATE TEMP TABLE IF NOT EXISTS a ( b int ) ON COMMIT DROP",
    'CREATE OR REPLACE TEMP VIEW "A" AS SELECT $$LISTEN a$$',
    "WITH x AS ( SELECT 1 ) SELECT 1 INTO TEMP TABLE a FROM x",
    "SELECT pg_catalog . pg_advisory_lock ( 1 , 2 ) AS a , pg_try_advisory_lock ( %s )",
    "UPDATE t SET a = 1 WHERE b = 'SET'",
    "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT nextval ( 's' )",
    "PREPARE TRANSACTION 'a' ; PREPARE transaction AS SELECT 1",
    "EXPLAIN ( ANALYZE ) SELECT pg_advisory_unlock_all ( )",
    "CREATE FUNCTION f ( ) BEGIN ATOMIC SELECT CASE WHEN a THEN b END ; END ; LISTEN c",
    "ROLLBACK TO SAVEPOINT a ; DISCARD ALL",
]
GAPS = st.sampled_from(
    [
        " ",
        "\n\t",
        "\r\n",
        "/**/",
        " /* SET a.b = 1; */ ",
        "-- LISTEN a\n",
        "/* ' /* \" */ $$ */",
        "\f",
    ]
)


@given(st.data())
def test_case_comments_and_white_space_make_no_difference(data):
    sql = data.draw(st.sampled_from(EXAMPLES))
    parts = re.split(r" (?![^']*'(?:[^']*'[^']*')*[^']*$)(?!a\$)", sql)
    written = data.draw(GAPS) + parts[0]
    for part in parts[1:]:
        changed = (
            part if part[0] in "'\"$%" else data.draw(st.sampled_from([part, part.swapcase()]))
        )
        written += data.draw(GAPS) + changed
    assert classify(written + data.draw(GAPS)) == classify(sql)
    assert len(tokens(written)) == len(tokens(sql))
