"""I3 inside definitions: each kind of them is read where it is the only one in its database."""

import pytest

from relet.core.catalogue.queries import SIGNATURE, read_signature
from relet.core.sql.functions import KINDS

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


def test_nothing_is_read_where_nothing_is_defined(make, monkeypatch):
    wrapper = make()
    with wrapper.cursor() as cursor:
        cursor.execute(SIGNATURE)
        assert read_signature(cursor.fetchall()).present <= {"pg_class", "pg_constraint"}
        cursor.execute("SELECT 1")
        assert wrapper._runner.lease.connection is None


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
