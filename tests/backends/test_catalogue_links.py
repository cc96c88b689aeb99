"""I3 by way of others: what uses what has effects, where names are looked up, what changes it."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import pytest
from django.db import DatabaseError
from django.db.backends.signals import connection_created

from relet.core.sql.redefinitions import changes_path

from ..support import engine
from ..support.fingerprint import difference, fingerprint
from ..support.pools import backend_pid
from ..support.sessions import kill, until_true
from ..support.threads import Thread

SCHEMA, OTHER, RENAMED, ROLE = (f"relet_links{end}" for end in ("", "_2", "_3", "_role"))
SET = "set_config('app.linked', 'yes', false)"
PATH = {"OPTIONS": {"options": f"-c search_path={SCHEMA},public"}}
CLEAN = (
    "DROP EVENT TRIGGER IF EXISTS relet_links; "
    + "".join(f"DROP SCHEMA IF EXISTS {name} CASCADE; " for name in (SCHEMA, OTHER, RENAMED, ROLE))
    + f"DROP ROLE IF EXISTS {ROLE}"
)
BASE = f"""
CREATE SCHEMA {SCHEMA}; CREATE SCHEMA {OTHER}; SET search_path = {SCHEMA};
CREATE FUNCTION trap() RETURNS int LANGUAGE plpgsql AS
  $$ BEGIN PERFORM {SET}; RETURN 1; END $$;
CREATE FUNCTION {OTHER}.elsewhere() RETURNS int LANGUAGE plpgsql AS
  $$ BEGIN PERFORM {SET}; RETURN 1; END $$;
CREATE FUNCTION hash(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM pg_advisory_lock_shared(77); RETURN $1; END $$;
CREATE FUNCTION is_good(text) RETURNS bool LANGUAGE plpgsql AS
  $$ BEGIN PERFORM {SET}; RETURN true; END $$;
CREATE FUNCTION locking() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_lock_shared(4712); RETURN NULL; END $$;
CREATE TABLE plain (id int);
CREATE DOMAIN good AS text CHECK (is_good(VALUE));
CREATE TYPE mood AS ENUM ('sad');
"""
INDEXED = (
    "CREATE TABLE indexed (a int); INSERT INTO indexed SELECT generate_series(1, 50);"
    "CREATE INDEX hashed ON indexed (hash(a));"
)
PARTED = (
    "CREATE TABLE parted (a int, b int) PARTITION BY LIST (a);"
    "CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0);"
)
LATE = (
    "CREATE TABLE late (a int UNIQUE); CREATE CONSTRAINT TRIGGER g AFTER INSERT OR DELETE ON late"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION locking();"
)
CLASS = (
    "CREATE FUNCTION compare(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS"
    " $$ SELECT btint4cmp(hash($1), $2) $$; CREATE OPERATOR CLASS ints FOR TYPE int USING btree"
    " AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,"
    " FUNCTION 1 compare(int, int); INSERT INTO plain VALUES (1);"
)
ON_PLAIN = "CREATE TRIGGER g AFTER INSERT ON plain EXECUTE FUNCTION locking()"
IN_BOTH = (
    "CREATE FUNCTION who() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;"
    f"CREATE FUNCTION {OTHER}.who() RETURNS int LANGUAGE sql AS $$ SELECT {SCHEMA}.trap() $$;"
)
OF_ROLE = (
    f"CREATE ROLE {ROLE}; CREATE SCHEMA {ROLE}; GRANT ALL ON SCHEMA {SCHEMA}, {ROLE} TO {ROLE};"
    f"CREATE FUNCTION {ROLE}.of_role() RETURNS text LANGUAGE sql AS $$ SELECT {SET} $$;"
)


def function(body, options="", name="f", returns="void"):
    return (
        f"CREATE FUNCTION {name}() RETURNS {returns} LANGUAGE plpgsql {options} AS"
        f" $f$ BEGIN {body} END $f$;"
    )


CLOSE, BEGIN, COMMIT, ROLLBACK = "close", "begin", "commit", "rollback"

#: What is defined, then what is done. The last lease that takes is kept, and its state undone.
LINKS = {
    "an aggregate of PostgreSQL's function": (
        (
            "CREATE AGGREGATE set_all(text, boolean)"
            " (SFUNC = set_config, STYPE = text, INITCOND = 'app.linked')"
        ),
        "SELECT set_all('x', false)",
    ),
    "an operator of PostgreSQL's function": (
        (
            "CREATE OPERATOR @#@"
            " (FUNCTION = pg_try_advisory_lock_shared, LEFTARG = int, RIGHTARG = int)"
        ),
        "SELECT 1 @#@ 2",
    ),
    "a negator": (
        function("RETURN true;", name="eq", returns="bool").replace("eq()", "eq(int, int)")
        + "CREATE FUNCTION ne(int, int) RETURNS bool LANGUAGE sql AS $$ SELECT trap() = 1 $$;"
        "CREATE OPERATOR #== (FUNCTION = eq, LEFTARG = int, RIGHTARG = int, NEGATOR = #!=);"
        "CREATE OPERATOR #!= (FUNCTION = ne, LEFTARG = int, RIGHTARG = int, NEGATOR = #==)",
        "SELECT NOT (id #== 1) FROM (VALUES (1)) AS v (id)",
    ),
    "a domain of a domain": (
        "CREATE DOMAIN better AS good; CREATE TABLE t (a better)",
        "INSERT INTO t VALUES ('x')",
    ),
    "a cast to a domain of a domain": ("CREATE DOMAIN better AS good", "SELECT 'x'::text::better"),
    "an array of a domain": ("CREATE TABLE t (a good[])", "INSERT INTO t VALUES (ARRAY['x'])"),
    "a row with a domain": (
        "CREATE TYPE pair AS (a good, b int); CREATE TABLE t (p pair)",
        "INSERT INTO t VALUES (ROW('x', 1))",
    ),
    "a function that returns a domain": (
        function("RETURN 'x';", returns="good"),
        "SELECT f()",
    ),
    "a range of a domain": (
        "CREATE TYPE span AS RANGE (subtype = good)",
        "SELECT span('a', 'b')",
    ),
    "anything beside a range of a domain": (
        "CREATE TYPE span AS RANGE (subtype = good)",
        "SELECT trap()",
    ),
    "a function that sets the search path": (
        IN_BOTH + function("EXECUTE 'SET LOCAL ' || 'search' || '_path = relet_links_2';"),
        *(BEGIN, "SELECT f()", "SELECT who()", COMMIT),
    ),
    "a function that sets what it is told": (
        IN_BOTH + "CREATE FUNCTION f(n text, v text) RETURNS void LANGUAGE plpgsql AS"
        " $f$ BEGIN EXECUTE format('SET LOCAL %I = %I', n, v); END $f$;",
        *(BEGIN, f"SELECT f('search_path', '{OTHER}')", "SELECT who()", COMMIT),
    ),
    "a search path with pg_temp that is put in": (
        (
            "CREATE FUNCTION f(s text) RETURNS void LANGUAGE plpgsql AS $f$ BEGIN"
            " EXECUTE format('SET LOCAL search_path = %I', s); CREATE TABLE made (a int); END $f$;"
        ),
        "SELECT f('pg_temp')",
    ),
    "an operator class of an index": (
        CLASS + "CREATE INDEX ON plain (id ints)",
        "INSERT INTO plain VALUES (2)",
    ),
    "an operator of an exclusion constraint": (
        (
            "CREATE FUNCTION same(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS"
            " $$ SELECT hash($1) = $2 $$;"
            "CREATE OPERATOR === (FUNCTION = same, LEFTARG = int, RIGHTARG = int,"
            " COMMUTATOR = ===); CREATE OPERATOR CLASS ints FOR TYPE int USING hash"
            " AS OPERATOR 1 ===, FUNCTION 1 hashint4(int);"
            "CREATE TABLE t (a int, EXCLUDE USING hash (a ints WITH ===))"
        ),
        "INSERT INTO t VALUES (1), (1) ON CONFLICT DO NOTHING",
    ),
    "a temporary view that is rolled back": (
        "",
        *(BEGIN, "CREATE TEMP VIEW v AS SELECT hash(1) AS a", "SELECT * FROM v", ROLLBACK),
    ),
    "a temporary view that is written": (
        ON_PLAIN,
        *("CREATE TEMP VIEW v AS SELECT * FROM plain", "INSERT INTO v VALUES (1)", "DROP VIEW v"),
    ),
    "a temporary table that is rolled back": (
        "",
        *(BEGIN, "CREATE TEMP TABLE t (a int DEFAULT hash(1), b int)"),
        *("INSERT INTO t (b) VALUES (1)", ROLLBACK),
    ),
    "a temporary function that is rolled back": (
        "",
        *(BEGIN, "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT hash(1)'"),
        *("SELECT pg_temp.f()", ROLLBACK),
    ),
    "EXPLAIN of an immutable function": ("", "EXPLAIN SELECT hash(1)"),
    "EXPLAIN of a stable function": (
        function(f"PERFORM {SET}; RETURN 1;", "STABLE", returns="int")
        + "INSERT INTO plain VALUES (1); ANALYZE plain",
        "EXPLAIN SELECT * FROM plain WHERE id = f()",
    ),
    "EXPLAIN of a view": (
        "CREATE VIEW v AS SELECT hash(1) AS a",
        f"SET LOCAL search_path = {OTHER}",
        f"EXPLAIN (COSTS OFF) SELECT * FROM {SCHEMA}.v",
    ),
    "a function in C that takes a domain": (
        "CREATE FUNCTION f(good) RETURNS int LANGUAGE internal AS 'textlen'",
        "SELECT f('x')",
    ),
    "a function in C that has a default": (
        "CREATE FUNCTION f(int DEFAULT trap()) RETURNS int LANGUAGE internal AS 'int4up'",
        "SELECT f()",
    ),
    "a view that casts to a domain": (
        "INSERT INTO plain VALUES (1); CREATE VIEW v AS SELECT id::text::good FROM plain",
        "SELECT * FROM v",
    ),
    "the key of partitions": (
        (
            "CREATE TABLE t (a int) PARTITION BY RANGE (hash(a));"
            "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9)"
        ),
        "INSERT INTO t VALUES (1)",
    ),
    "the key of a partition": (
        (
            "CREATE TABLE t (a int) PARTITION BY RANGE (hash(a));"
            "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9)"
        ),
        "INSERT INTO t_1 VALUES (1)",
    ),
    "statistics": (
        (
            "CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 100);"
            "CREATE STATISTICS s ON (hash(a)) FROM t"
        ),
        "ANALYZE t",
    ),
    "ALTER TABLE of partitions": (
        PARTED + "ALTER TABLE parted_0 ADD CHECK (is_good(b::text));"
        "INSERT INTO parted VALUES (0, 1)",
        "ALTER TABLE parted ALTER COLUMN b TYPE bigint",
    ),
    "ANALYZE of partitions": (
        PARTED + "CREATE INDEX ON parted_0 (hash(a)); INSERT INTO parted VALUES (0, 1)",
        "ANALYZE parted",
    ),
    "ANALYZE of all": (INDEXED, "ANALYZE"),
    "ANALYZE of all with options": (INDEXED, "ANALYZE (VERBOSE)"),
    "REINDEX INDEX": (INDEXED, "REINDEX INDEX hashed"),
    "REINDEX SCHEMA": (INDEXED, f"REINDEX (VERBOSE) SCHEMA {SCHEMA}"),
    "a function of any row": (
        (
            "CREATE FUNCTION a(anyelement) RETURNS int LANGUAGE sql AS $$ SELECT trap() $$;"
            "INSERT INTO plain VALUES (1)"
        ),
        "SELECT plain.a FROM plain",
    ),
    "a function of a row, with a default": (
        (
            "CREATE FUNCTION a(plain, int DEFAULT 1) RETURNS int LANGUAGE sql AS"
            " $$ SELECT trap() $$; INSERT INTO plain VALUES (1)"
        ),
        "SELECT plain.a FROM plain",
    ),
    # Where names are looked up.
    "a function's own search path": (
        function("PERFORM elsewhere();", f"SET search_path = {OTHER}"),
        "SELECT f()",
    ),
    "the search path of whoever calls": (
        function("PERFORM elsewhere();", name="inner_one")
        + function(f"PERFORM {SCHEMA}.inner_one();", f"SET search_path = {OTHER}"),
        "SELECT f()",
    ),
    "a search path set before the call": (
        function("PERFORM elsewhere();"),
        BEGIN,
        f"SET LOCAL search_path = {OTHER}",
        f"SELECT {SCHEMA}.f()",
        COMMIT,
    ),
    "a function whose search path begins with pg_temp": (
        function("CREATE TABLE scratch (a int);", "SET search_path = pg_temp, public"),
        "SELECT f()",
    ),
    "a function that it calls": (
        function("CREATE TABLE scratch (a int);", name="inner_one")
        + function(f"PERFORM {SCHEMA}.inner_one();", "SET search_path = pg_temp, public"),
        "SELECT f()",
    ),
    "a function in SQL with such a search path": (
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql SET search_path = pg_temp AS"
            " $$ CREATE TABLE scratch AS SELECT 1 AS a $$"
        ),
        "SELECT f()",
    ),
    "set_config() by a comment": (
        "",
        BEGIN,
        f"SELECT set_config/**/('search' || '_path', '{OTHER}', true)",
        "SELECT elsewhere()",
        COMMIT,
    ),
    # What this process defines.
    "an unlogged table": (
        "",
        "CREATE UNLOGGED TABLE t (a int DEFAULT trap(), b int)",
        CLOSE,
        "INSERT INTO t (b) VALUES (1)",
    ),
    "a trigger of a temporary table": (
        "",
        BEGIN,
        "CREATE TEMP TABLE t (b int) ON COMMIT DROP",
        ON_PLAIN.replace("plain", "t"),
        "INSERT INTO t VALUES (1)",
        COMMIT,
    ),
    "a rule of a temporary table": (
        "",
        BEGIN,
        "CREATE LOCAL TEMP TABLE t (b int) ON COMMIT DROP",
        "CREATE RULE r AS ON INSERT TO t DO ALSO SELECT trap()",
        "INSERT INTO pg_temp.t VALUES (1)",
        COMMIT,
    ),
    "a default of a temporary table": (
        "",
        BEGIN,
        f"CREATE TEMP TABLE t (a text DEFAULT {SET}, b int) ON COMMIT DROP",
        "INSERT INTO t (b) VALUES (1)",
        COMMIT,
    ),
    "a function that defines": (
        function(f"{ON_PLAIN};"),
        "SELECT f()",
        CLOSE,
        "INSERT INTO plain VALUES (1)",
    ),
    "one that calls it": (
        function(f"{ON_PLAIN};", name="inner_one") + function("PERFORM inner_one();"),
        "SELECT f()",
        CLOSE,
        "INSERT INTO plain VALUES (1)",
    ),
    "one that defines by EXECUTE": (
        function(f"EXECUTE '{ON_PLAIN}';"),
        "SELECT f()",
        CLOSE,
        "INSERT INTO plain VALUES (1)",
    ),
    "an index in DO": (
        "",
        "DO $$ BEGIN CREATE INDEX ON plain (hash(id)); END $$",
        CLOSE,
        "INSERT INTO plain VALUES (1)",
    ),
    "a type in DO": (
        "CREATE TABLE t (p text)",
        "DO $$ BEGIN CREATE TYPE pair AS (a good); ALTER TABLE t ADD q pair; END $$",
        CLOSE,
        "INSERT INTO t (q) VALUES (ROW('x'))",
    ),
    "a constraint that is added and validated at once": (
        "INSERT INTO plain VALUES (1)",
        ("ALTER TABLE plain ADD CONSTRAINT c CHECK (trap() = id) NOT VALID, VALIDATE CONSTRAINT c"),
    ),
    "a constant of a domain in a constraint": (
        "CREATE TABLE t (a text)",
        "ALTER TABLE t ADD CHECK (a > ('{x}'::good[])[1]) NOT VALID",
    ),
    "a generated column when it is made": (
        "",
        "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (hash(1)) STORED)",
    ),
    "a key of partitions when it is made": (
        "",
        "CREATE TABLE t (a int) PARTITION BY RANGE ((a + hash(1)))",
    ),
    "a temporary view of a whole table": (
        ON_PLAIN,
        BEGIN,
        "CREATE TEMP VIEW v AS TABLE plain",
        "INSERT INTO v VALUES (1)",
        ROLLBACK,
    ),
}
#: The same, with the search path of the server.
USERS_PATH = {
    "SET LOCAL ROLE": (OF_ROLE, BEGIN, f"SET LOCAL ROLE {ROLE}", "SELECT of_role()", COMMIT),
    "the role by set_config()": (
        OF_ROLE,
        BEGIN,
        f"SELECT set_config('role', '{ROLE}', true)",
        "SELECT of_role()",
        COMMIT,
    ),
    "the role in DO": (
        OF_ROLE,
        BEGIN,
        f"DO $$ BEGIN SET/**/LOCAL ROLE {ROLE}; END $$",
        "SELECT of_role()",
        COMMIT,
    ),
    "SECURITY DEFINER": (
        OF_ROLE
        + function("RETURN of_role();", "SECURITY DEFINER", returns="text")
        + f"ALTER FUNCTION f() OWNER TO {ROLE}",
        f"SELECT {SCHEMA}.f()",
    ),
}
#: What is there, what another process defines, and what has effects after that.
OTHERS = {
    "INHERIT": (
        (
            "CREATE TABLE parent (id int); CREATE TABLE child (id int);"
            "CREATE TRIGGER g AFTER DELETE ON child FOR EACH ROW EXECUTE FUNCTION locking();"
            "INSERT INTO child VALUES (1)"
        ),
        "ALTER TABLE child INHERIT parent",
        "DELETE FROM parent",
    ),
    "an operator": (
        "CREATE FUNCTION op(int, int) RETURNS bool LANGUAGE sql AS $$ SELECT trap() = 1 $$",
        "CREATE OPERATOR === (FUNCTION = op, LEFTARG = int, RIGHTARG = int)",
        "SELECT 1 === 2",
    ),
    "an operator of PostgreSQL's function": (
        "",
        (
            "CREATE OPERATOR @#@"
            " (FUNCTION = pg_try_advisory_lock_shared, LEFTARG = int, RIGHTARG = int)"
        ),
        "SELECT 1 @#@ 2",
    ),
    "a cast": (
        "CREATE FUNCTION as_int(mood) RETURNS int LANGUAGE sql AS $$ SELECT trap() $$",
        "CREATE CAST (mood AS int) WITH FUNCTION as_int(mood)",
        "SELECT 'sad'::mood::int",
    ),
    "a table with a domain": ("", "CREATE TABLE t (a good)", "INSERT INTO t VALUES ('x')"),
    "a column with a domain": (
        "CREATE TABLE t (b int)",
        "ALTER TABLE t ADD COLUMN a good",
        "INSERT INTO t (a) VALUES ('x')",
    ),
    "a domain renamed": ("", "ALTER DOMAIN good RENAME TO fine", "SELECT 'x'::text::fine"),
    "an index": ("", "CREATE INDEX ON plain (hash(id))", "INSERT INTO plain VALUES (1)"),
    "an index by an operator class": (
        CLASS,
        "CREATE INDEX ON plain (id ints)",
        "INSERT INTO plain VALUES (2)",
    ),
    "statistics": (
        "INSERT INTO plain SELECT generate_series(1, 100)",
        "CREATE STATISTICS s ON (hash(id)) FROM plain",
        "ANALYZE plain",
    ),
    "a default": (
        "CREATE TABLE t (a int, b int)",
        "ALTER TABLE t ALTER a SET DEFAULT trap()",
        "INSERT INTO t (b) VALUES (1)",
    ),
    "a policy": (
        (
            "CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY p ON t USING (true)"
        ),
        "ALTER POLICY p ON t USING (is_good('x'))",
        "SELECT * FROM t",
    ),
    "a table renamed": (
        "CREATE TABLE t (a int DEFAULT trap())",
        "ALTER TABLE t RENAME TO u",
        "INSERT INTO u DEFAULT VALUES",
    ),
    "two tables that change their names": (
        "CREATE TABLE t (a int DEFAULT trap()); CREATE TABLE u (a int)",
        "ALTER TABLE t RENAME TO v; ALTER TABLE u RENAME TO t; ALTER TABLE v RENAME TO u",
        "INSERT INTO u DEFAULT VALUES",
    ),
    "a table in another schema": (
        "CREATE TABLE t (a int DEFAULT trap())",
        f"ALTER TABLE t SET SCHEMA {OTHER}",
        f"INSERT INTO {OTHER}.t DEFAULT VALUES",
    ),
    "a schema renamed": (
        "",
        f"ALTER SCHEMA {OTHER} RENAME TO {RENAMED}",
        f"SELECT {RENAMED}.elsewhere()",
    ),
    "ATTACH PARTITION": (
        (
            "CREATE TABLE t (a text) PARTITION BY LIST (a);"
            "CREATE TABLE t_0 PARTITION OF t FOR VALUES IN ('0');"
            "CREATE TABLE t_1 (a text, CHECK (is_good(a)))"
        ),
        "ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES IN ('1')",
        "INSERT INTO t VALUES ('1')",
    ),
}
DEFERRED = {
    "a view": ("CREATE VIEW t AS SELECT * FROM late", "INSERT INTO t VALUES (0)"),
    "a partition": (
        (
            "CREATE TABLE t (a int) PARTITION BY LIST (a);"
            "ALTER TABLE t ATTACH PARTITION late FOR VALUES IN (0)"
        ),
        "INSERT INTO t VALUES (0)",
    ),
    "a function": (function("INSERT INTO late VALUES (0);"), "SELECT f()"),
}


def run(wrapper, sql):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def state(wrapper):
    """The session as the next borrower has it."""
    pool = wrapper._runner.find_pool().pool
    pool.open()
    connection = pool.checkout()
    try:
        return fingerprint(connection.raw, ("app.linked",))
    finally:
        pool.checkin(connection)


def is_kept(wrapper):
    return wrapper._runner.lease.connection is not None


def perform(wrapper, steps):
    for step in steps:
        if step is CLOSE:
            wrapper.close()
        elif step is BEGIN:
            wrapper.set_autocommit(False)
        elif step is COMMIT:
            wrapper.commit()
            wrapper.set_autocommit(True)
        elif step is ROLLBACK:
            wrapper.rollback()
            wrapper.set_autocommit(True)
        else:
            run(wrapper, step)


@contextmanager
def kept_and_undone(wrapper):
    run(wrapper, "SELECT 1")
    before = state(wrapper)
    yield
    kept = is_kept(wrapper)
    wrapper.close()
    assert not difference(before, state(wrapper))
    assert kept


@pytest.fixture
def define(observer):
    """Define something, beside what all tests have."""

    def define(sql=""):
        observer.execute(f"SET search_path = {SCHEMA}; {sql}")
        observer.execute("RESET search_path")

    observer.execute(CLEAN)
    observer.execute(BASE)
    observer.execute("RESET search_path")
    yield define
    observer.execute("RESET search_path")
    observer.execute(CLEAN)


@pytest.mark.parametrize(("definition", "steps"), [(d, s) for d, *s in LINKS.values()], ids=LINKS)
def test_what_uses_it_is_found(make, define, definition, steps):
    define(definition)
    wrapper = make(**PATH)
    with kept_and_undone(wrapper):
        perform(wrapper, steps)


@pytest.mark.parametrize(
    ("definition", "steps"), [(d, s) for d, *s in USERS_PATH.values()], ids=USERS_PATH
)
def test_the_schema_of_a_role(make, define, definition, steps):
    define(definition)
    wrapper = make()
    with kept_and_undone(wrapper):
        perform(wrapper, steps)


@pytest.mark.parametrize(
    "path", [f"{SCHEMA}, pg_temp", f"pg_catalog, {SCHEMA}", f"{OTHER}, pg_temp"]
)
def test_a_search_path_in_which_pg_temp_is_the_last(make, define, path):
    define(function(f"CREATE TABLE {SCHEMA}.scratch (a int);", f"SET search_path = {path}"))
    wrapper = make(**PATH)
    run(wrapper, "SELECT f()")
    assert not is_kept(wrapper)


def on_a_new_connection(wrapper, observer):
    kill(observer, backend_pid(wrapper))
    with suppress(DatabaseError):
        run(wrapper, "SELECT 1")
    wrapper.close()
    run(wrapper, "SELECT 1")
    run(wrapper, "SELECT 2")


@pytest.mark.parametrize(("definition", "later", "statement"), OTHERS.values(), ids=OTHERS)
def test_another_process_changes_it(make, define, observer, definition, later, statement):
    define(definition)
    wrapper = make(**PATH)
    run(wrapper, "SELECT 1")
    define(later)
    on_a_new_connection(wrapper, observer)
    with kept_and_undone(wrapper):
        run(wrapper, statement)


def test_another_process_changes_the_search_path(make, define, observer):
    define()
    wrapper = make()
    run(wrapper, "SELECT 1")
    database = observer.execute("SELECT quote_ident(current_database())").fetchall()[0][0]
    observer.execute(f"ALTER DATABASE {database} SET search_path = {OTHER}")
    try:
        on_a_new_connection(wrapper, observer)
        with kept_and_undone(wrapper):
            run(wrapper, "SELECT elsewhere()")
    finally:
        observer.execute(f"ALTER DATABASE {database} RESET search_path")


def test_what_others_do_beside_definitions(make, define, observer, monkeypatch):
    define("CREATE TABLE t (a int DEFAULT trap())")
    wrapper = make(**PATH)
    run(wrapper, "SELECT 1")
    observer.execute("CREATE TEMP TABLE passing (a int)")
    define("TRUNCATE plain; GRANT USAGE ON SCHEMA relet_links TO PUBLIC")
    monkeypatch.setattr("relet.backends.leases.definitions.Closure", None)
    on_a_new_connection(wrapper, observer)
    run(wrapper, "INSERT INTO t DEFAULT VALUES")
    assert is_kept(wrapper)


def test_a_search_path_that_begins_with_pg_temp(make, define):
    define()
    wrapper = make(OPTIONS={"options": f"-c search_path=pg_temp,{SCHEMA}"})
    with kept_and_undone(wrapper):
        run(wrapper, "CREATE TABLE scratch (a int)")
    with kept_and_undone(wrapper):
        run(wrapper, "SELECT 1 AS a INTO scratch")
    wrapper.close()
    run(wrapper, "SELECT 1 AS a")
    assert not is_kept(wrapper)


@pytest.mark.parametrize(("definition", "write"), DEFERRED.values(), ids=DEFERRED)
def test_a_deferred_trigger_is_reached_by(make, define, definition, write):
    define(LATE + definition)
    wrapper = make(**PATH)
    perform(wrapper, (BEGIN, write, "SELECT pg_advisory_unlock_all()", COMMIT))
    assert is_kept(wrapper)


class TestOtherPools:
    def test_two_pools_of_one_database(self, make, define):
        define()
        one, two = make(**PATH), make("extra2", **PATH)
        run(one, "SELECT 1")
        with kept_and_undone(two):
            run(one, ON_PLAIN)
            run(two, "INSERT INTO plain VALUES (1)")

    def test_in_a_transaction(self, make, define):
        define()
        one, two = make(**PATH), make("extra2", **PATH)
        with kept_and_undone(two):
            perform(one, (BEGIN, ON_PLAIN))
            run(two, "SELECT 2")
            perform(one, (COMMIT,))
            run(two, "INSERT INTO plain VALUES (1)")


class TestStatementsThatWait:
    @pytest.fixture
    def thread(self):
        thread = Thread()
        yield thread
        thread.end()

    def wait(self, observer):
        until_true(
            observer,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = %s::regclass)",
            f"{SCHEMA}.plain",
        )

    @pytest.mark.parametrize("begin", [(), (BEGIN,)], ids=["alone", "in a transaction"])
    @pytest.mark.parametrize("alias", ["extra", "extra2"])
    def test_for_a_definition(self, make, define, observer, thread, alias, begin):
        define()
        wrapper, other = make(size=2, **PATH), make(alias, size=2, **PATH)
        run(wrapper, "SELECT 1")
        run(other, "SELECT 1")
        perform(wrapper, (BEGIN, ON_PLAIN))
        copied = []

        def work():
            copied.append(other.copy())
            perform(copied[0], (*begin, "INSERT INTO plain VALUES (1)"))
            if begin:
                perform(copied[0], (COMMIT,))
            kept = is_kept(copied[0])
            copied[0].close()
            return kept

        thread.begin(work)
        self.wait(observer)
        perform(wrapper, (COMMIT,))
        assert thread.result()
        until_true(
            observer,
            "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4712)",
        )
        assert not wrapper._runner.effects.definers

    def test_others_run_as_before_meanwhile(self, make, define, thread):
        define()
        wrapper = make(size=2, **PATH)
        perform(wrapper, (BEGIN, ON_PLAIN))

        def work():
            copied = wrapper.copy()
            run(copied, "SELECT 1")
            kept = is_kept(copied)
            copied.close()
            return kept

        assert not thread(work)
        wrapper.rollback()
        wrapper.set_autocommit(True)
        run(wrapper, "INSERT INTO plain VALUES (1)")
        assert not is_kept(wrapper)
        assert "INSERT INTO plain VALUES (1)" in wrapper._runner.effects

    def test_a_wrapper_that_is_closed_has_defined_nothing(self, make, define):
        define()
        wrapper = make(size=2, **PATH)
        perform(wrapper, (BEGIN, ON_PLAIN))
        wrapper.close()
        assert not wrapper._runner.effects.definers

    def test_a_wrapper_that_is_dropped_has_defined_nothing(self, make, define):
        define()
        wrapper = make(size=2, **PATH)
        run(wrapper, "SELECT 1")
        definitions = wrapper._runner.find_pool().pool.definitions
        definitions.begin(lambda: None)
        run(wrapper, "SELECT 2")
        run(wrapper, "SELECT 2")
        assert "SELECT 2" in wrapper._runner.effects

    def test_a_definition_that_does_not_begin(self, make, define, observer):
        define()
        wrapper = make(**PATH)
        run(wrapper, "SELECT 1")
        kill(observer, backend_pid(wrapper))
        for _ in range(2):
            with suppress(DatabaseError):
                run(wrapper, ON_PLAIN)
        assert not wrapper._runner.effects.definers

    def test_a_snapshot_that_is_older(self, make, define):
        define()
        wrapper = make(size=2, **PATH)
        other = wrapper.copy()
        run(other, "SELECT 1")
        perform(wrapper, (BEGIN, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1"))
        run(other, ON_PLAIN)
        run(wrapper, "SELECT 2")  # reads what was there when its transaction began
        perform(wrapper, (COMMIT,))
        run(other, "INSERT INTO plain VALUES (1)")
        assert is_kept(other)
        other.close()


@contextmanager
def receiver(text):
    def receive(connection, **kwargs):
        run(connection, text)

    connection_created.connect(receive)
    try:
        yield
    finally:
        connection_created.disconnect(receive)


def test_a_receiver_that_defines(make, define):
    define()
    text = (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.f() RETURNS text LANGUAGE sql AS $$ SELECT {SET} $$"
    )
    with receiver(text):
        wrapper = make(**PATH)
        with kept_and_undone(wrapper):
            run(wrapper, "SELECT f()")


@engine.needs("psycopg", "configure")
def test_the_pool_configures_the_search_path(make, define):
    define()

    def configure(raw):
        raw.execute(f"SET search_path = {OTHER}")
        raw.commit()

    wrapper = make(pool={"min_size": 1, "max_size": 1, "configure": configure})
    with kept_and_undone(wrapper):
        run(wrapper, "SELECT elsewhere()")


PATHS = {
    "SET LOCAL search_path = a": True,
    "SET SCHEMA 'a'": True,
    "SET SESSION ROLE a": True,
    "SET/* */LOCAL/* */SESSION AUTHORIZATION a": True,
    "SELECT set_config('role', 'a', true)": True,
    "SELECT set_config('ro' || 'le', 'a', true)": True,
    'SELECT "set_config" (%s, %s, true)': True,
    "DO $$ BEGIN EXECUTE 'SET ROLE a'; END $$": True,
    "DO $$ BEGIN IF true THEN SET ROLE a; END IF; END $$": True,
    "DO $$ BEGIN EXECUTE 'SET LOCAL ' || 'search' || '_path = a'; END $$": True,
    (
        "DO $$ DECLARE n text := 'search';"
        " BEGIN EXECUTE format('SET LOCAL %I = a', n || '_path'); END $$"
    ): True,
    "DO $$ DECLARE n text; BEGIN EXECUTE format('SET app.%I = 1', n || ''); END $$": False,
    "DO $$ DECLARE n text; BEGIN EXECUTE format('UPDATE t SET %I = 1', n); END $$": False,
    "RESET ROLE": True,
    "DISCARD ALL": True,
    "DISCARD PLANS": False,
    "SELECT set_config('app.role', 'a', true)": False,
    "SELECT password_reset(all_of_it)": False,
    "UPDATE users SET role = 'a'": False,
    "INSERT INTO users VALUES (1) ON CONFLICT DO UPDATE SET role = 'a', schema = 'b'": False,
    "SELECT 1 /* SET ROLE a */": False,
}


@pytest.mark.parametrize(("sql", "changes"), PATHS.items())
def test_what_changes_the_search_path(sql, changes):
    assert changes_path(sql, sql.lower()) == changes
