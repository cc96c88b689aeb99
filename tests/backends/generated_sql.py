"""SQL at random, for the classifier's oracle test: what leaves state, and what looks like it.

A template is written with a space wherever white space or a comment may stand; what is
in capitals is written in any case. ``{name}`` is filled in by a method of `Writer`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from random import Random
from typing import Any

SCHEMA = "relet_oracle"
ROLE = "relet_oracle_role"

#: What must exist. ``current()`` makes the state of a sequence visible.
SETUP = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
CREATE SEQUENCE {SCHEMA}.s;
CREATE TABLE {SCHEMA}.t (id int PRIMARY KEY, a int, "set" text, listen text);
INSERT INTO {SCHEMA}.t VALUES (1, 1, 'SET a.b = 1', 'LISTEN c');
CREATE TABLE {SCHEMA}.temp (id int PRIMARY KEY, a int);
CREATE TABLE {SCHEMA}.never_written (a int);
CREATE TABLE {SCHEMA}.numbered (id serial);
CREATE FUNCTION {SCHEMA}.current() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  name text;
  found text := '';
BEGIN
  FOREACH name IN ARRAY ARRAY['s', 'numbered_id_seq'] LOOP
    BEGIN
      found := found || name || currval('{SCHEMA}.' || name);
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
      NULL;
    END;
  END LOOP;
  RETURN found;
END $$;
DROP ROLE IF EXISTS {ROLE};
CREATE ROLE {ROLE};
GRANT USAGE ON SCHEMA {SCHEMA} TO {ROLE};
GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {ROLE};
GRANT ALL ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {ROLE};
"""
TEARDOWN = f"DROP SCHEMA {SCHEMA} CASCADE; DROP OWNED BY {ROLE}; DROP ROLE {ROLE}"

#: The settings of a session before each script, as if it had been configured so.
BASELINE = {"relet_oracle.base": "1", "work_mem": "5MB", "geqo": "off"}

#: Statements that leave state, or may; by what is counted together.
EFFECTS: dict[str, list[str]] = {
    "SET": [
        "SET {guc} {eq} {setting}",
        "SET SESSION {guc} {eq} {setting}",
        "SET {custom} {eq} {literal}",
        "SET SESSION {custom} {eq} {literal}",
        "SET {guc} FROM CURRENT",
        "SET TIME ZONE {zone}",
        "SET SESSION TIME ZONE {zone}",
        "SET NAMES 'UTF8'",
        "SET SCHEMA 'public'",
        "SET XML OPTION DOCUMENT",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE , DEFERRABLE",
        "SET search_path {eq} pg_temp , public",
        "SET standard_conforming_strings {eq} off",
        # As the server has it, there is no body here whose semicolons would be part of it.
        (
            "CREATE {temp} TABLE {name} AS SELECT t . begin atomic FROM ( SELECT 1 AS begin ) t ;"
            " SET a.b = 1 ; END"
        ),
        (
            "CREATE OR REPLACE FUNCTION {schema} . h ( ) RETURNS int BEGIN ATOMIC"
            " SELECT 1 AS a , 2 case ; SELECT 3 end ; END ; SET a.b = 1"
        ),
    ],
    "RESET": [
        "RESET {base}",
        "RESET ALL",
        "RESET {guc}",
        "SET {base} {eq} DEFAULT",
        "SET SESSION {base} {eq} DEFAULT",
        "RESET TIME ZONE",
        "DISCARD {what}",
        "DO {code:BEGIN RESET ALL; END}",
        "DO {code:BEGIN EXECUTE 'RESET work_mem'; END}",
        "SELECT {set_config} ( {base_name} , {null} , {false} )",
        "SELECT {set_config} ( {base_name} , {null} , {false} ) FROM {t} WHERE false",
        "SELECT {set_config} ( {guc_name} , {null} , {false} )",
        "SELECT {set_config} ( {guc_name} , {null} , {false} ) LIMIT 0",
        "SELECT {set_config} ( {guc_name} , {null} , {true} )",
        "WITH c AS ( SELECT {set_config} ( {guc_name} , {null} , {false} ) ) SELECT 1",
        "EXPLAIN ANALYZE SELECT {set_config} ( {base_name} , NULL , {false} )",
    ],
    "set_config": [
        "SELECT {set_config} ( {custom_name} , {literal} , {false} )",
        "SELECT {set_config} ( {guc_name} , '77s' , {false} )",
        "SELECT {set_config} ( 'search_path' , 'public' , {false} )",
        "SELECT {set_config} ( 'a' || '.b' , {literal} , {false} )",
        "SELECT {set_config} ( 'role' , '{role}' , {false} )",
        "VALUES ( {set_config} ( {custom_name} , 'x' , {false} ) )",
        "SELECT a FROM {t} WHERE {set_config} ( {custom_name} , 'x' , {false} ) = 'x'",
        "WITH c AS ( SELECT {set_config} ( 'a.b' , {literal} , {false} ) AS x ) SELECT x FROM c",
        "UPDATE {t} SET a = length ( {set_config} ( 'a.b' , 'x' , {false} ) )",
        "INSERT INTO {t} ( id ) SELECT 1 WHERE {set_config} ( 'a.b' , 'x' , {false} ) = 'y'",
        "DELETE FROM {t} WHERE {set_config} ( 'a.b' , 'x' , {false} ) = 'y'",
        "SELECT 7 % length ( {set_config} ( 'a.b' , 'x' , {false} ) )",
        "SELECT 7 %length({set_config} ( 'a.b' , 'x' , {false} ))",
        "SELECT 7%set_config ( 'a.b' , '3' , {false} ) :: int",
        "SELECT 100 %( SELECT length ( {set_config} ( 'a.b' , 'x' , {false} ) ) )s",
        "SELECT 100 %(SELECT length('it''s' || {set_config}('a.b', 'x', {false})))s",
        "SELECT {noise} INTO {temp} {name}",
        "SELECT {literal}INTO {temp} {name}",
        "UPDATE pg_settings SET setting = '78s' WHERE name = 'lock_timeout'",
        "UPDATE pg_catalog . pg_settings AS s SET setting = '78s' WHERE s . name = 'lock_timeout'",
        "EXPLAIN ANALYZE SELECT {set_config} ( 'a.b' , 'x' , {false} )",
        "EXPLAIN ( ANALYSE , COSTS OFF ) SELECT {set_config} ( 'a.b' , 'x' , {false} )",
    ],
    "role": [
        "SET ROLE {role}",
        "SET SESSION ROLE {role}",
        "SET ROLE '{role}'",
        "SET role {eq} {role}",
        "SET SESSION AUTHORIZATION {role}",
        "SET SESSION SESSION AUTHORIZATION {role}",
        "SET session_authorization {eq} '{role}'",
        "SET ROLE NONE",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "RESET SESSION AUTHORIZATION",
    ],
    "temporary": [
        "CREATE {temp} TABLE {name} ( a int )",
        "CREATE {temp} TABLE IF NOT EXISTS {name} ( a int ) ON COMMIT DELETE ROWS",
        "CREATE {temp} TABLE {name} ON COMMIT PRESERVE ROWS AS SELECT 1 AS a",
        "CREATE {temp} TABLE {name} AS SELECT {noise} AS a",
        "CREATE {temp} TABLE {name} AS SELECT 'on'\n'commit'\n'drop' AS a",
        "CREATE {temp} TABLE {name} AS VALUES ( 1 , 2 )",
        "CREATE {temp} SEQUENCE {name}",
        "CREATE {temp} VIEW {name} AS SELECT 1 AS a",
        "CREATE OR REPLACE {temp} VIEW {name} ( a ) AS SELECT 1",
        "CREATE {temp} RECURSIVE VIEW {name} ( a ) AS SELECT 1",
        "CREATE TABLE {pg_temp} . {name} ( a int )",
        "CREATE TABLE {pg_temp} . {name} AS SELECT 1 AS a",
        "CREATE VIEW {pg_temp} . {name} AS SELECT 1 AS a",
        "CREATE TYPE {pg_temp} . {name} AS ENUM ( 'a' )",
        "CREATE DOMAIN {pg_temp} . {name} AS int",
        "CREATE OR REPLACE FUNCTION {pg_temp} . {name} ( ) RETURNS int LANGUAGE SQL AS 'SELECT 1'",
        "SELECT 1 AS a INTO {temp} {name}",
        "SELECT 1 AS a INTO {temp} TABLE {name}",
        "SELECT a INTO {temp} {name} FROM {t}",
        "SELECT a INTO {pg_temp} . {name} FROM {t}",
        "SELECT a INTO TABLE {pg_temp} . {name} FROM {t}",
        "SELECT 1 AS insert INTO {temp} {name}",
        "SELECT 1 AS merge INTO {temp} {name}",
        "SELECT 1 AS merge INTO {temp} {name} FROM {t} ORDER BY a USING <",
        "SELECT 1 AS insert INTO {temp} values",
        "SELECT 1 AS insert INTO {temp} overriding FROM {t}",
        "SELECT 1 AS a INTO {database} . {pg_temp} . {name}",
        "CREATE TABLE {database} . {pg_temp} . {name} ( a int )",
        "CREATE STATISTICS {pg_temp} . {name} ON id , a FROM {t}",
        "CREATE STATISTICS IF NOT EXISTS {pg_temp} . {name} ( ndistinct ) ON id , a FROM {t}",
        "ALTER TABLE {name} RENAME TO {name}",
        "ALTER TABLE IF EXISTS {name} RENAME TO renamed",
        "ALTER INDEX IF EXISTS {name} RENAME TO renamed",
        (
            "CREATE {temp} TABLE {name} ( a int ) ; ALTER TABLE {name} RENAME TO renamed ;"
            " DROP TABLE IF EXISTS {name}"
        ),
        "WITH c AS ( SELECT 1 AS a ) SELECT a INTO {temp} {name} FROM c",
        "EXPLAIN ANALYZE CREATE {temp} TABLE {name} AS SELECT 1 AS a",
        "EXPLAIN ANALYSE VERBOSE CREATE {temp} TABLE {name} AS SELECT 1 AS a",
        "DROP TABLE {name}",
        "DROP TABLE IF EXISTS {name}",
        "DROP VIEW {name}",
        "DROP SEQUENCE {pg_temp} . {name}",
        "BEGIN ; SET LOCAL search_path {eq} pg_temp ; CREATE TABLE {name} ( a int ) ; COMMIT",
        (
            "BEGIN ; SET LOCAL search_path {eq} missing , pg_temp ;"
            " CREATE TABLE {name} ( a int ) ; COMMIT"
        ),
        (
            "BEGIN ; SET LOCAL search_path {eq} missing , {path_part} ;"
            " CREATE TABLE {name} ( a int ) ; COMMIT"
        ),
        "BEGIN ; SET LOCAL SCHEMA 'pg_temp' ; CREATE TABLE {name} ( a int ) ; COMMIT",
        (
            "BEGIN ; SELECT {set_config} ( 'search_path' , {path} , {true} ) ;"
            " CREATE TABLE {name} ( a int ) ; COMMIT"
        ),
        (
            "BEGIN ; SELECT {set_config} ( {path_name} , 'missing, ' || {path} , {true} ) ;"
            " CREATE TABLE {name} ( a int ) ; COMMIT"
        ),
    ],
    "channel": ["LISTEN {channel}"] * 3 + ["UNLISTEN {channel}", "UNLISTEN *"],
    "lock": [
        "SELECT {lock} ( {key} )",
        "SELECT {lock} ( {key} ) AS locked",
        "SELECT {lock} ( {key} ) , {lock} ( {key} )",
        "SELECT {lock} ( {key} ) FROM {t}",
        "SELECT {lock} ( id ) FROM {t}",
        "SELECT a FROM {t} WHERE {lock} ( {key} ) IS NOT NULL",
        "SELECT * FROM {lock} ( {key} )",
        "VALUES ( {lock} ( {key} ) )",
        "WITH c AS MATERIALIZED ( SELECT {lock} ( {key} ) AS x ) SELECT x FROM c",
        "SELECT {lock} ( generate_series ( 1 , 3 ) )",
        "SELECT generate_series ( 1 , 3 ) , {lock} ( {key} )",
        "SELECT {lock} ( hashtext ( {literal} ) )",
        "SELECT CASE WHEN a > 0 THEN {lock} ( {key} ) IS NULL END FROM {t}",
        "SELECT {unlock} ( {key} )",
        "SELECT {unlock} ( {key} ) AS unlocked",
        "SELECT {unlock} ( {key} ) , {unlock} ( {key} )",
        "SELECT {unlock} ( {key} ) WHERE false",
        "EXPLAIN SELECT {unlock} ( {key} )",
        "EXPLAIN ANALYZE SELECT {unlock} ( {key} )",
        "SELECT {unlock} ( {key} ) LIMIT 0",
        "SELECT {unlock} ( {key} ) AS a OFFSET 1",
        "SELECT {unlock} ( generate_series ( 1 , 0 ) )",
        "WITH c AS ( SELECT {unlock} ( {key} ) ) SELECT 1",
        "PREPARE {statement} AS SELECT {unlock} ( {key} )",
        "BEGIN ; DECLARE k CURSOR FOR SELECT {unlock} ( {key} ) ; COMMIT",
        "DECLARE {cursor} CURSOR WITH HOLD FOR SELECT {unlock} ( {key} ) LIMIT 0",
        "EXPLAIN ANALYZE SELECT {lock} ( {key} )",
        "SELECT pg_advisory_unlock_all ( )",
        "SELECT pg_advisory_unlock_all ( ) FROM {t} WHERE false",
    ],
    "prepared": [
        "PREPARE {statement} AS SELECT 1",
        "PREPARE {statement} ( int ) AS SELECT $1 + 1",
        "PREPARE transaction AS SELECT 1",
        "PREPARE {statement} AS INSERT INTO {t} VALUES ( 1 )",
        "PREPARE {statement} AS SELECT {set_config} ( 'a.b' , 'x' , {false} )",
        "PREPARE {statement} AS SELECT {lock} ( 77 ) ; EXECUTE {statement}",
        "EXECUTE {statement}",
        "DEALLOCATE {statement}",
        "DEALLOCATE PREPARE {statement}",
        "DEALLOCATE ALL",
    ],
    "cursor": [
        "DECLARE {cursor} CURSOR WITH HOLD FOR SELECT 1",
        "DECLARE {cursor} BINARY NO SCROLL CURSOR WITH HOLD FOR SELECT a FROM {t}",
        (
            "DECLARE {cursor} NO SCROLL INSENSITIVE BINARY NO SCROLL NO SCROLL INSENSITIVE"
            " CURSOR WITH HOLD FOR SELECT 1"
        ),
        "DECLARE {cursor} INSENSITIVE SCROLL CURSOR WITH HOLD FOR TABLE {t}",
        "DECLARE {cursor} CURSOR WITH HOLD FOR SELECT {set_config} ( 'a.b' , 'x' , {false} )",
        (
            "BEGIN ; DECLARE c CURSOR FOR SELECT {set_config} ( 'a.b' , 'x' , {false} ) ;"
            " FETCH c ; COMMIT"
        ),
        "CLOSE {cursor}",
        "CLOSE ALL",
    ],
    "sequence": [
        "SELECT {nextval} ( {sequence} )",
        "SELECT setval ( {sequence} , {n} )",
        "SELECT {nextval} ( pg_get_serial_sequence ( '{schema}.numbered' , 'id' ) )",
        "SELECT {nextval} ( pg_catalog . pg_get_serial_sequence ( '{schema}.numbered' , 'id' ) )",
        "SELECT a , {nextval} ( {sequence} ) FROM {t}",
        "UPDATE {t} SET a = {nextval} ( {sequence} )",
        "SELECT {nextval} ( {sequence} :: regclass ) AS x",
        "INSERT INTO {t} ( id ) SELECT {nextval} ( {sequence} ) + 1000000 ON CONFLICT DO NOTHING",
        "CREATE {temp} TABLE {name} AS SELECT {nextval} ( {sequence} ) AS a",
        "ALTER TABLE {t} ALTER COLUMN a TYPE int USING {nextval} ( {sequence} )",
        (
            "CREATE TABLE IF NOT EXISTS {schema} . view AS SELECT {nextval} ( {sequence} ) AS a ;"
            " DROP TABLE {schema} . view"
        ),
        (
            "CREATE MATERIALIZED VIEW {schema} . m AS SELECT {nextval} ( {sequence} ) AS a ;"
            " DROP MATERIALIZED VIEW {schema} . m"
        ),
    ],
    "seed": [
        "SELECT setseed ( 0.5 )",
        "SELECT pg_catalog . setseed ( 0.5 ) , 1",
        "SELECT 1 FROM setseed ( 0.5 )",
        "SET SEED TO 0.5",
        "SET seed {eq} 0.5",
        "SET SESSION seed {eq} 0.5",
        "SET LOCAL seed {eq} 0.5",
        "SELECT {set_config} ( 'seed' , '0.5' , {false} )",
        "SELECT {set_config} ( 'seed' , '0.5' , {true} )",
        "SELECT {set_config} ( {seed_name} , '0.5' , {true} )",
        "DO {code:BEGIN PERFORM setseed(0.5); END}",
        "EXPLAIN ANALYZE SELECT setseed ( 0.5 )",
        "PREPARE {statement} AS SELECT setseed ( 0.5 ) ; EXECUTE {statement}",
    ],
    "DO": [
        "DO {code:BEGIN SET a.b = 1; END}",
        "DO {code:DECLARE x int := 1; BEGIN IF x = 1 THEN SET a.b = 1; END IF; END}",
        "DO LANGUAGE plpgsql {code:BEGIN PERFORM set_config('a.b', '1', false); END}",
        "DO {code:BEGIN FOR i IN 1..2 LOOP PERFORM pg_advisory_lock(i); END LOOP; END}",
        "DO {code:BEGIN CASE 1 WHEN 1 THEN LISTEN c; ELSE NULL; END CASE; END}",
        "DO {code:BEGIN EXECUTE 'SET a.b = 1'; END}",
        "DO {code:BEGIN EXECUTE 'SET ' || 'a.b' || ' = 1'; END}",
        "DO {code:BEGIN EXECUTE format('CREATE TEMP TABLE %I (a int)', 'x' || 1); END}",
        "DO {code:DECLARE q text := 'LISTEN c'; BEGIN EXECUTE q; END}",
        "DO {code:BEGIN EXECUTE 'SELECT set_config(' || '''a.b'', ''1'', false)'; END}",
        "DO {code:BEGIN EXECUTE $q$ DO 'BEGIN CREATE TEMP TABLE x (a int); END' $q$; END}",
    ],
}

#: Statements without an effect, full of words that have one elsewhere.
HARMLESS: dict[str, list[str]] = {
    "SELECT": [
        "SELECT {noise}",
        "SELECT {noise} , {noise} AS {label}",
        "SELECT 1 AS {label}",
        'SELECT "set" , listen FROM {t} WHERE "set" = {noise}',
        "SELECT id FROM {schema} . temp",
        "WITH temp AS ( SELECT 1 AS nextval ) SELECT nextval FROM temp",
        "SELECT current_setting ( 'work_mem' )",
        "SELECT count ( * ) FROM pg_settings",
        "SELECT 1 AS set_config , 2 AS pg_advisory_lock",
        "SELECT 7 %2",
        "TABLE {t}",
        "VALUES ( {noise} )",
    ],
    "write": [
        "UPDATE {t} SET a = 1 , listen = {noise} WHERE id = {n}",
        "INSERT INTO {t} ( id ) VALUES ( 1 ) ON CONFLICT ( id ) DO UPDATE SET a = 1",
        "INSERT INTO {schema} . temp ( id ) VALUES ( 1 ) ON CONFLICT DO NOTHING",
        "INSERT INTO {schema} . temp AS x SELECT 1 , 2 ON CONFLICT DO NOTHING",
        (
            "MERGE INTO {schema} . temp USING {t} AS s ON s . id = temp . id"
            " WHEN MATCHED THEN UPDATE SET a = 2"
        ),
        (
            "MERGE INTO ONLY {schema} . temp AS x USING {t} AS s ON s . id = x . id"
            " WHEN MATCHED THEN UPDATE SET a = 2"
        ),
        "DELETE FROM {t} WHERE listen = {noise} AND id > 1",
    ],
    "transaction": [
        "SET LOCAL {guc} {eq} {setting}",
        "SET LOCAL {custom} {eq} {literal}",
        "SET LOCAL ROLE {role}",
        "SET LOCAL TIME ZONE {zone}",
        "SET TRANSACTION READ WRITE",
        "SET SESSION TRANSACTION READ WRITE",
        "SET transaction_isolation {eq} 'serializable'",
        "SET CONSTRAINTS ALL DEFERRED",
        "SELECT {set_config} ( {custom_name} , {literal} , {true} )",
        "SELECT {set_config} ( 'role' , '{role}' , {true} )",
        "SELECT {xact_lock} ( {key} )",
        "CREATE {temp} TABLE {name} ( a int ) ON COMMIT DROP",
        "CREATE {temp} TABLE {name} ON COMMIT DROP AS SELECT 1 AS a",
        "BEGIN ; DECLARE {cursor} CURSOR FOR SELECT 1 ; COMMIT",
        "BEGIN ; DECLARE {cursor} CURSOR WITHOUT HOLD FOR SELECT 1 ; FETCH {cursor} ; COMMIT",
        "NOTIFY {channel} , {payload}",
    ],
    "definition": [
        "ALTER TABLE {t} SET ( fillfactor = 90 )",
        "ALTER TABLE {schema} . never_written ALTER a SET DEFAULT {nextval} ( {sequence} )",
        "ALTER TABLE {t} ALTER COLUMN id SET NOT NULL",
        "ALTER ROLE {role} SET work_mem = '6MB'",
        "COMMENT ON TABLE {t} IS {payload}",
        "CREATE TABLE IF NOT EXISTS {schema} . u ( a int DEFAULT ( {nextval} ( {sequence} ) ) )",
        "CREATE OR REPLACE VIEW {schema} . v AS SELECT {set_config} ( 'a.b' , 'x' , false ) AS a",
        (
            "CREATE OR REPLACE FUNCTION {schema} . f ( ) RETURNS text LANGUAGE SQL SET a.b = 1"
            " AS {code:SELECT set_config('a.b', 'x', false)}"
        ),
        (
            "CREATE OR REPLACE FUNCTION {schema} . g ( ) RETURNS text BEGIN ATOMIC"
            " SELECT 1 AS case ;"
            " SELECT CASE WHEN true THEN {set_config} ( 'a.b' , 'x' , false ) END ; END"
        ),
    ],
    "other": [
        "SHOW {guc}",
        "EXPLAIN SELECT {set_config} ( 'a.b' , 'x' , false )",
        "EXPLAIN CREATE {temp} TABLE {name} AS SELECT 1 AS a",
        "EXPLAIN SELECT {nextval} ( {sequence} )",
        "EXPLAIN SELECT setseed ( 0.5 )",
        "SELECT 100 %( SELECT 7 )s",
        "SELECT 7 %length({noise})",
        "DO {code:BEGIN PERFORM 1; END}",
        "LOAD 'plpgsql'",
        "BEGIN ; LOCK TABLE {t} IN ACCESS SHARE MODE ; COMMIT",
        "DISCARD PLANS",
    ],
    "error": [
        "SELECT 1 / 0",
        "SET no_such_setting = 1",
        "SELEC 1",
        "SELECT {noise} FROM no_such_table",
        "SELECT {set_config} ( 'a.b' , 'x' , false ) , 1 / 0",
        "SELECT {lock} ( {key} ) , 1 / 0",
        "SELECT 'unclosed",
        "SELECT $$ unclosed",
        'SELECT "unclosed',
        "SELECT 1 /* unclosed",
    ],
}

CONTROL = [
    *("BEGIN", "BEGIN", "START TRANSACTION", "COMMIT", "COMMIT", "END", "ROLLBACK", "ABORT"),
    *("SAVEPOINT {savepoint}", "SAVEPOINT {savepoint}", "ROLLBACK TO {savepoint}"),
    *("ROLLBACK WORK TO SAVEPOINT {savepoint}", "RELEASE {savepoint}"),
    *("COMMIT AND CHAIN", "ROLLBACK AND CHAIN"),
]

#: Texts that are read in another way where standard_conforming_strings is off.
UNCLEAR = [
    r"SELECT '\'' ; SET a.b = 1 --'",
    r"SELECT '\'' ; LISTEN c --'",
    r"SELECT '\' , {set_config} ( 'a.b' , 'x' , {false} ) , '\'",
    r"SELECT '\'' , {lock} ( {key} ) --'",
    r"SELECT '\\' , {nextval} ( '{schema}.s' ) , '\\'",
    r"DO '\102EGIN PERFORM set_config(''\141.b'', ''x'', false); END'",
    r"SELECT N'\'' ; CREATE TEMP TABLE x ( a int ) --'",
]

#: What stands in strings and comments, and is no effect there.
NOISE = [
    *("SET a.b = 1", "; LISTEN c;", "$$", "--", "it's", "CREATE TEMP TABLE x (a int)", "\\"),
    *("/* ", "set_config('a.b', 'x', false)", 'SET "a', "INTO TEMP x", "pg_advisory_lock(1)"),
    *("BEGIN ATOMIC", "", "$q$ DISCARD ALL", "ON COMMIT DROP", "nextval('s')", "; RESET ALL; "),
]
IN_COMMENTS = [text for text in NOISE if "/*" not in text and "*/" not in text]

_SETTINGS = {
    "statement_timeout": "'77s'",
    "lock_timeout": "77000",
    "application_name": "relet",
    "datestyle": "ISO , DMY",
    "extra_float_digits": "-1",
    "search_path": "public , pg_catalog",
    "timezone": "'Asia/Tokyo'",
    "transaction_timeout": "'99s'",
    "client_encoding": "'UTF8'",
    "xmloption": "DOCUMENT",
    "default_transaction_read_only": "off",
}
#: Of words that mean something else when no dot follows.
CUSTOM = [
    *("a.b", "session.x", "local.x", "transaction.x", "constraints.x", "role.x", "time.zone"),
    *("names.x", "schema.x", "a.b.c", "transaction_isolation.x", "xml.option"),
]
_FUNCTIONS = {
    "set_config": ["set_config"],
    "nextval": ["nextval"],
    "lock": [
        *("pg_advisory_lock", "pg_advisory_lock_shared"),
        *("pg_try_advisory_lock", "pg_try_advisory_lock_shared"),
    ],
    "unlock": ["pg_advisory_unlock", "pg_advisory_unlock", "pg_advisory_unlock_shared"],
    "xact_lock": ["pg_advisory_xact_lock", "pg_try_advisory_xact_lock_shared"],
}
_NAMES = {
    "name": ["x", "y", "temp", "view", "Änderung"],
    "channel": ["c", "d", "set"],
    "statement": ["p", "q", "prepare"],
    "cursor": ["k", "cursor", "no"],
    "savepoint": ["s1", "s2"],
    "pg_temp": ["pg_temp"],
    "database": ["postgres"],
}
_CHOICES = {
    "eq": ["=", "TO"],
    "temp": ["TEMP", "TEMPORARY", "LOCAL TEMP", "GLOBAL TEMPORARY"],
    "zone": ["'UTC'", "5", "INTERVAL '+03:00' HOUR TO MINUTE", "LOCAL", "DEFAULT", "-7.5"],
    "what": ["ALL", "TEMP", "TEMPORARY", "SEQUENCES", "PLANS"],
    "base": [*BASELINE],
    "label": ["set", "listen", "temp", '"SET a.b = 1"', "a$$", "€$$", "nextval", "begin"],
    "n": ["0", "1", "2", "3"],
    "schema": [SCHEMA],
    "role": [ROLE],
    "t": [f"{SCHEMA}.t"],
}


@dataclass
class Text:
    """What is given to one ``execute()``.

    :param statements: how many it has.
    :param category: of its only statement; "" if it has several.
    """

    sql: str
    params: list[Any] | dict[str, Any] | None
    statements: int
    category: str


class Writer:
    """Writes texts."""

    def __init__(self, random: Random, database: str = "postgres") -> None:
        self.random = random
        self._database = database
        self._values: list[Any] = []
        self._params: type | None = None

    def script(self) -> list[Text]:
        """Return texts to run one after the other, in one session."""
        self._usual = {name: self.random.choice(names) for name, names in _NAMES.items()}
        self._usual["database"] = self._database
        self._usual_key = self._constant_key()
        if self._maybe(0.03):
            return self._unclear()
        return [self.text() for _ in range(self.random.choice((1, 1, 1, 2, 3)))]

    def _unclear(self) -> list[Text]:
        """Texts of which the session decides what they are."""
        self._values, self._params = [], None
        local = self._maybe(0.5)
        before = f"SET {'LOCAL ' if local else ''}standard_conforming_strings = off"
        script = [Text(before, None, 1, "SET")] if self._maybe(0.8) else []
        if local:
            script.insert(0, Text("BEGIN", None, 1, "control"))
        written = self._write(self.random.choice(UNCLEAR))
        script.append(Text(written, None, 2, ""))
        if local:
            script.append(Text(self.random.choice(("COMMIT", "ROLLBACK")), None, 1, "control"))
        return script

    def text(self) -> Text:
        self._values, self._params = [], self.random.choice((None, None, list, dict))
        count = self.random.choice((1, 1, 1, 2, 3, 4))
        chosen = [self._choose(alone=count == 1) for _ in range(count)]
        written = [self._write(template) for _, template in chosen]
        sql = self._space("").join(
            statement + (";" if number < count - 1 or self._maybe(0.2) else "")
            for number, statement in enumerate(written)
        )
        sql = self._space("") + sql + self._space("")
        templates = [template for _, template in chosen]
        statements = count + sum(template.count(" ; ") for template in templates)
        category = chosen[0][0] if statements == 1 else ""
        return Text(*self._bind(sql), statements, category)

    def _choose(self, *, alone: bool) -> tuple[str, str]:
        if self._maybe(0.03 if alone else 0.35):
            return "control", self.random.choice(CONTROL)
        groups = EFFECTS if self._maybe(0.6) else HARMLESS
        category = self.random.choice([*groups])
        return category, self.random.choice(groups[category])

    def _maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    # Text.

    def _write(self, template: str) -> str:
        pieces = [self._piece(piece) for piece in _split(template)]
        text = pieces[0]
        for before, piece in itertools.pairwise(pieces):
            glued = not (before[-1:].isalnum() or before[-1:] in "'\"_$€") or piece[:1] in ",;)"
            # Between operators a comment would become part of them.
            text += (self._space("") if glued else self._space(" ")) + piece
        return text

    def _piece(self, piece: str) -> str:
        if filled := re.fullmatch(r"(.*?)\{(\w+)(?::(.*))?\}(.*)", piece, re.DOTALL):
            before, name, argument, after = filled.groups()
            return before + self._fill(name, argument) + after
        return self._any_case(piece) if piece.isupper() and piece.isalpha() else piece

    def _fill(self, name: str, argument: str | None) -> str:
        if name in _NAMES:
            # What is made has a chance to be given back.
            usual = self._usual[name]
            if name != "database" and self._maybe(0.3):
                usual = self.random.choice(_NAMES[name])
            return self._identifier(usual)
        if name in _FUNCTIONS:
            schema = self.random.choice(("", "", "", "pg_catalog.", '"pg_catalog" . '))
            return schema + self._identifier(self.random.choice(_FUNCTIONS[name]))
        if name in _CHOICES:
            return self.random.choice(_CHOICES[name])
        return str(getattr(self, f"_{name}")(*([argument] if argument else [])))

    def _any_case(self, word: str) -> str:
        return self.random.choice((str.upper, str.lower, str.title, str.swapcase))(word)

    def _space(self, least: str) -> str:
        draw = self.random.random()
        if draw < 0.7:
            return least
        noise = self.random.choice(IN_COMMENTS)
        if draw < 0.85:
            return self.random.choice(("  ", "\n", "\t", "\r\n", "\f"))
        if draw < 0.9:
            return f" --{noise}\n"
        if draw < 0.93:
            return f" /* {noise} /* nested {noise} */ */ "
        if draw < 0.94 and self._params is list:
            return f" /* {self._value(1)} */ "
        return f" /*{noise}*/ "

    def _identifier(self, name: str) -> str:
        draw = self.random.random()
        if draw < 0.7:
            return self._any_case(name) if name.isascii() else name
        if draw < 0.9:
            return f'"{name}"'
        escape, clause = self.random.choice((("\\", ""), ("\\", ""), ("!", " UESCAPE '!'")))
        return f'U&"{escape}{ord(name[0]):04x}{name[1:]}"{clause}'

    def _string(self, text: str) -> str:
        """A constant, in one of the ways to write one."""
        plain, draw = text.replace("'", "''"), self.random.random()
        if draw < 0.5:
            return f"'{plain}'"
        if draw < 0.6:
            escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace(";", "\\073")
            return f"{self.random.choice('eE')}'{escaped}'"
        if draw < 0.7:
            tag = self.random.choice(
                [tag for tag in ("", "q", "Ä1", "tag") if f"${tag}$" not in text]
            )
            return f"${tag}${text}${tag}$" if text[-1:] != "$" else f"'{plain}'"
        if draw < 0.8:
            return (
                f"U&'{plain}'".replace("\\", "\\\\").replace("S", "\\0053").replace("s", "\\0073")
            )
        if draw < 0.9 and "''" not in plain:
            middle = len(plain) // 2
            gap = self.random.choice(("\n", " -- it's\n ", "\r\n\t"))
            return f"'{plain[:middle]}'{gap}'{plain[middle:]}'"
        return f"'{plain}'"

    def _value(self, value: Any) -> str:
        """A parameter; `_bind` writes its placeholder."""
        self._values.append(value)
        return f"\0{len(self._values) - 1}\0"

    def _bind(self, sql: str) -> tuple[str, list[Any] | dict[str, Any] | None]:
        if not self._values:
            return sql, None
        parts = sql.replace("%", "%%").split("\0")
        texts, numbers = parts[::2], [int(number) for number in parts[1::2]]
        if self._params is list:
            return "%s".join(texts), [self._values[number] for number in numbers]
        names = [f"%(p{number})s" for number in numbers] + [""]
        sql = "".join(text + name for text, name in zip(texts, names, strict=True))
        return sql, {f"p{number}": self._values[number] for number in numbers}

    # What templates name.

    def _guc(self) -> str:
        name = self.random.choice([*_SETTINGS])
        self._setting_of = _SETTINGS[name]
        return self._identifier(name)

    def _setting(self) -> str:
        return "DEFAULT" if self._maybe(0.1) else self._setting_of

    def _guc_name(self) -> str:
        return self._string(self.random.choice(("statement_timeout", "LOCK_timeout")))

    def _custom(self) -> str:
        return self._any_case(self.random.choice(CUSTOM))

    def _custom_name(self) -> str:
        name = self.random.choice(CUSTOM)
        return self._value(name) if self._params and self._maybe(0.3) else self._string(name)

    def _base_name(self) -> str:
        return self._string(self.random.choice([*BASELINE]))

    def _null(self) -> str:
        if self._params and self._maybe(0.5):
            return self._value(None)
        return self.random.choice(("NULL", "null", "NULL::text"))

    def _path(self) -> str:
        """A search path, in which tables are temporary, or not."""
        path = self.random.choice(
            ("pg_temp", "missing, pg_temp", '"pg_temp"', "pg_catalog, PG_TEMP")
        )
        return self._value(path) if self._params and self._maybe(0.7) else self._string(path)

    def _path_part(self) -> str:
        return self._value("pg_temp") if self._params else "'pg_temp'"

    def _path_name(self) -> str:
        name = "search_path"
        return self._value(name) if self._params and self._maybe(0.5) else self._string(name)

    def _seed_name(self) -> str:
        return self._value("seed") if self._params else self._string("seed")

    def _noise(self) -> str:
        text = "".join(self.random.choice(NOISE) for _ in range(self.random.randint(1, 3)))
        if self._params and self._maybe(0.3):
            return self._value(text)
        if self._params is list and self._maybe(0.1):
            return f"'{self._value(1)}'"
        return self._string(text)

    def _payload(self) -> str:
        text = self.random.choice(NOISE).replace("'", "''")
        return f"'{text}'"

    def _literal(self) -> str:
        text = self.random.choice(("x", "1", "", "SET", "it's"))
        return self._value(text) if self._params and self._maybe(0.5) else self._string(text)

    def _false(self) -> str:
        if self._params and self._maybe(0.4):
            if self._maybe(0.2):
                return f"NOT {self._value(True)}"
            if self._maybe(0.2):
                return f"{self._value(True)} = false"
            return self._value(False) + self.random.choice(("", "::bool"))
        return self.random.choice(
            (
                "false",
                "FALSE",
                "'f'",
                "'off'",
                "NOT true",
                "1 = 2",
                "true = false",
                "NULL",
                "false::bool",
            )
        )

    def _true(self) -> str:
        if self._params and self._maybe(0.4):
            return self._value(True)
        return self.random.choice(("true", "TRUE", "'t'", "'on'", "true::boolean", "1 = 1"))

    def _key(self) -> str:
        if self._params and self._maybe(0.4):
            return self._value(self.random.randint(1, 3))
        return self._usual_key if self._maybe(0.7) else self._constant_key()

    def _constant_key(self) -> str:
        number = self.random.randint(1, 3)
        return self.random.choice(
            [
                *(f"{number}", f"{number}", f"{number}, {number}", f"{number}::bigint"),
                *(f"'{number}'", f"B'1{number % 2}'::int", f"X'1{number}'::int"),
                *(f"1 + {number}", f"-{number}"),
            ]
        )

    def _sequence(self) -> str:
        return self._string(f"{SCHEMA}.s")

    def _code(self, code: str) -> str:
        return self._string(code)


def _split(template: str) -> list[str]:
    """The pieces of a template: what ``{code:...}`` has inside is one."""
    return re.findall(r"(?:'[^']*'\n?|\{[^{}]*\}|[^\s{])+", template)
