"""I3 inside definitions: each kind of them is read where it is the only one in its database."""

from contextlib import suppress

import pytest
from django.db import DatabaseError

from relet.core.catalogue.queries import SIGNATURE, Separators, read_signature, sources_query
from relet.core.sql.functions import KINDS

from ..support.pools import backend_pid
from ..support.sessions import kill

SCHEMA = "relet_alone"
SET = "set_config('app.alone', 'x', false)"
#: What is defined, and a statement that sets something by it.
ALONE = {
    "a function": (
        f"CREATE FUNCTION trap() RETURNS text LANGUAGE sql AS $$ SELECT {SET} $$",
        f"SELECT {SCHEMA}.trap()",
    ),
    "a default": (
        f"CREATE TABLE t (a text DEFAULT {SET})",
        f"INSERT INTO {SCHEMA}.t DEFAULT VALUES",
    ),
    "a check": (
        f"CREATE TABLE t (a text CHECK ({SET} = 'x'))",
        f"INSERT INTO {SCHEMA}.t VALUES ('x')",
    ),
    "a domain's default": (
        f"CREATE DOMAIN d AS text DEFAULT {SET}; CREATE TABLE t (a d)",
        f"INSERT INTO {SCHEMA}.t DEFAULT VALUES",
    ),
    "a domain's check": (
        f"CREATE DOMAIN d AS text CHECK ({SET} = 'x'); CREATE TABLE t (a d)",
        f"INSERT INTO {SCHEMA}.t VALUES ('x')",
    ),
    # Settings that are made while it is refreshed are undone; locks are not.
    "a materialized view": (
        "CREATE MATERIALIZED VIEW v AS SELECT pg_try_advisory_lock(4713) WITH NO DATA",
        f"REFRESH MATERIALIZED VIEW {SCHEMA}.v",
    ),
    "an operator": (
        (
            "CREATE OPERATOR @#@ (FUNCTION = pg_try_advisory_lock_shared,"
            " LEFTARG = int, RIGHTARG = int)"
        ),
        f"SELECT 1 OPERATOR({SCHEMA}.@#@) 2",
    ),
    "a view": (f"CREATE VIEW v AS SELECT {SET}", f"SELECT * FROM {SCHEMA}.v"),
    "a rule": (
        f"CREATE TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO SELECT {SET}",
        f"INSERT INTO {SCHEMA}.t VALUES (1)",
    ),
    "a policy": (
        (
            f"CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
            f"CREATE POLICY p ON t USING ({SET} = 'x')"
        ),
        f"SELECT * FROM {SCHEMA}.t",
    ),
    "a trigger": (
        (
            "CREATE TABLE t (a int); CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW"
            f" WHEN ({SET} = 'x') EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        ),
        f"UPDATE {SCHEMA}.t SET a = 1",
    ),
}


@pytest.fixture
def define(observer):
    def run(sql):
        observer.execute(f"CREATE SCHEMA {SCHEMA}; SET search_path = {SCHEMA}")
        try:
            observer.execute(sql)
        finally:
            observer.execute("RESET search_path")

    yield run
    observer.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


@pytest.mark.parametrize(("definition", "statement"), ALONE.values(), ids=ALONE)
def test_it_is_found(make, define, definition, statement):
    define(definition)
    wrapper = make()
    with wrapper.cursor() as cursor:
        cursor.execute(statement)
        assert wrapper._runner.lease.connection is not None


def test_what_is_not_there_is_not_read(observer):
    ((*known, text),) = observer.execute(SIGNATURE).fetchall()
    empty = read_signature([(*known, " ".join("0" for _ in text.split()))])
    assert sources_query(empty, Separators()) == ""
    first = read_signature([(*known, text.replace(text.split()[0], "1:700", 1))])
    assert "pg_proc" in first.present
    assert "prosrc" in sources_query(first, Separators())


def test_a_domain_that_changes_is_read_again(make, define, observer):
    define("CREATE DOMAIN d AS text DEFAULT ''; CREATE TABLE t (a d)")
    statement = f"INSERT INTO {SCHEMA}.t DEFAULT VALUES"
    wrapper = make()
    with wrapper.cursor() as cursor:
        cursor.execute(statement)
        assert wrapper._runner.lease.connection is None
    observer.execute(f"ALTER DOMAIN {SCHEMA}.d SET DEFAULT {SET}")
    kill(observer, backend_pid(wrapper))  # so that the next one has a new connection
    with suppress(DatabaseError), wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.execute(statement)
        assert wrapper._runner.lease.connection is not None


def test_no_index_calls_a_function_that_has_effects(observer):
    # So what indexes have need not be read where there are no functions of the project's.
    found = observer.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND proname = ANY(%s) AND provolatile = 'i'"
        # It is the other one that runs a query.
        " AND oid <> 'ts_rewrite(tsquery, tsquery, tsquery)'::regprocedure",
        [list(KINDS)],
    ).fetchall()
    assert found == []
