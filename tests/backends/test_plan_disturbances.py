"""Prepared plans after statements that change what a target means: as if it was never prepared."""

import pytest
from django.db import DatabaseError, DataError
from django.db.backends.signals import connection_created

import relet

from ..support import driver
from ..support.threads import Thread
from ..support.waiting import until
from .test_plans import ALL, add, fresh, row, run, table

__all__ = ["add", "fresh", "table"]  # fixtures

pytestmark = pytest.mark.skipif(driver.NAME == "psycopg2", reason="psycopg2 cannot prepare")

EAGER = {"prepare": {"mode": "auto", "after": 0}}
TABLE = ["CREATE TABLE tt (a int, b text)", "INSERT INTO tt VALUES (1, '1')"]
SCHEMA = [*TABLE, "CREATE SCHEMA ten", "CREATE TABLE ten.tt (a int, b varchar(5))"]
ENUM = [
    "CREATE TYPE mood AS ENUM ('x')",
    "CREATE TABLE tt (a int, b mood)",
    "INSERT INTO tt VALUES (1, 'x')",
]
FUNCTION = ["CREATE FUNCTION ff(numeric) RETURNS text LANGUAGE sql AS $$SELECT 'numeric'$$"]
GONE = [
    "DROP TABLE IF EXISTS tt CASCADE",
    "DROP SCHEMA IF EXISTS ten CASCADE",
    "DROP TYPE IF EXISTS mood, mood_old",
    "DROP FUNCTION IF EXISTS ff(numeric), ff(int)",
]
ROWS = ("SELECT * FROM tt WHERE a = %s", [1])
COUNT = ("SELECT count(*) FROM tt WHERE b = %s", ["1"])
INSERT = ("INSERT INTO tt (b) VALUES (%s)", ["1"])
MOOD = ("SELECT a FROM tt WHERE b = %s", ["x"])
SAD = ("SELECT a FROM tt WHERE b = 'x' AND a = %s", [1])
ZONE = ("SELECT extract(epoch FROM '2026-01-01'::timestamptz)::int WHERE 1 = %s", [1])
DATE = ("SELECT '01/02/2026'::date::text WHERE 1 = %s", [1])
NULL = ("SELECT 1 WHERE NULL = NULL AND 1 = %s", [1])
CALL = ("SELECT ff(%s)", [1])
TO_INT = "ALTER TABLE tt ALTER b TYPE int USING b::int"
TOKYO = "SET TIME ZONE 'Asia/Tokyo'"
NEW_ENUM = [
    "ALTER TYPE mood RENAME TO mood_old",
    "CREATE TYPE mood AS ENUM ('x', 'y')",
    "ALTER TABLE tt ALTER b TYPE mood USING b::text::mood",
    "DROP TYPE mood_old",
]


def by_others(*statements):
    return [f"!{sql}" for sql in statements]


#: What there is before, and then steps: statements of one session, and after "!" of another one.
STEPS = {
    "another type": (TABLE, [COUNT, *by_others(TO_INT), COUNT, COUNT, COUNT]),
    "another type to write": (TABLE, [INSERT, *by_others(TO_INT), INSERT, INSERT, COUNT]),
    "own other type": (TABLE, [COUNT, TO_INT, COUNT, COUNT]),
    "a column made anew": (
        TABLE,
        [COUNT, *by_others("ALTER TABLE tt DROP b", "ALTER TABLE tt ADD b int"), COUNT, COUNT],
    ),
    "a new enumeration": (ENUM, [MOOD, *by_others(*NEW_ENUM), MOOD, MOOD]),
    "an own new enumeration": (ENUM, [MOOD, *NEW_ENUM, MOOD, MOOD]),
    "renamed values": (
        ENUM,
        [
            *(SAD, "ALTER TYPE mood RENAME VALUE 'x' TO 'y'"),
            *("ALTER TYPE mood ADD VALUE 'x'", SAD),
        ],
    ),
    "a table that comes before": (
        [*TABLE, "CREATE SCHEMA ten"],
        ["SET search_path = ten, public", ROWS, "CREATE TABLE ten.tt (a int)", ROWS, ROWS],
    ),
    "a temporary table": (TABLE, [ROWS, "CREATE TEMP TABLE tt (a int)", ROWS, ROWS]),
    "a second temporary table": (
        TABLE,
        ["CREATE TEMP TABLE other (a int)", ROWS, "CREATE TEMP TABLE tt (a int, b text)", ROWS],
    ),
    "a second temporary table, by SELECT INTO": (
        TABLE,
        ["CREATE TEMP TABLE other (a int)", ROWS, "SELECT 5 AS a INTO TEMP tt", ROWS],
    ),
    "writing a second temporary table": (
        TABLE,
        [
            *("CREATE TEMP TABLE other (a int)", INSERT, "CREATE TEMP TABLE tt (b text)", INSERT),
            "SELECT count(*) FROM public.tt",
        ],
    ),
    "a function that fits better": (
        FUNCTION,
        [CALL, "CREATE FUNCTION ff(int) RETURNS text LANGUAGE sql AS $$SELECT 'int'$$", CALL],
    ),
    "a time zone": ((), ["SET TIME ZONE 'UTC'", ZONE, TOKYO, ZONE, ZONE]),
    "a time zone, and back": ((), [ZONE, TOKYO, "RESET timezone", ZONE]),
    "a time zone by a function": (
        (),
        [ZONE, ("SELECT set_config('TimeZone', %s, false)", ["Asia/Tokyo"]), ZONE, ZONE],
    ),
    "a time zone by a block": (
        (),
        [ZONE, f"DO $$ BEGIN EXECUTE $x${TOKYO}$x$; END $$", ZONE],
    ),
    "an order of days and months": (
        (),
        ["SET DateStyle = 'ISO, MDY'", DATE, "SET DateStyle = 'ISO, DMY'", DATE],
    ),
    "NULL as a value": ((), [NULL, "SET transform_null_equals = on", NULL]),
    "schemas in turn": (
        SCHEMA,
        [
            *("SET search_path = public", ROWS, COUNT, "SET search_path = ten, public", ROWS),
            *(COUNT, "SET search_path = public", ROWS, COUNT),
        ],
    ),
    "all that is prepared is dropped": (TABLE, [ROWS, "DEALLOCATE ALL", ROWS]),
    "behind a comment": (TABLE, [ROWS, "/* x */ DEALLOCATE PREPARE ALL", ROWS]),
    "as a second statement": (TABLE, [ROWS, "SELECT 1; DEALLOCATE ALL", ROWS]),
    "everything is dropped": (TABLE, [ROWS, "DISCARD ALL", ROWS]),
}
#: The same, but all in one transaction; where others change something, the server would wait.
IN_TRANSACTION = {
    **{
        name: steps
        for name, steps in STEPS.items()
        # These are not allowed there.
        if not any(str(step).startswith("!") for step in steps[1])
        and name not in ("renamed values", "everything is dropped")
    },
    "another column": (TABLE, [ROWS, "ALTER TABLE tt ADD c int", ROWS, ROWS]),
    "a temporary table until the end": (
        TABLE,
        [ROWS, "CREATE TEMP TABLE tt (a int, b text, c int) ON COMMIT DROP", ROWS],
    ),
    "a schema until the end": (
        SCHEMA,
        ["SET LOCAL search_path = public", ROWS, "SET LOCAL search_path = ten, public", ROWS],
    ),
    "back to a savepoint": (
        TABLE,
        [ROWS, "SAVEPOINT s", "ALTER TABLE tt ADD c int", ROWS, "ROLLBACK TO SAVEPOINT s", ROWS],
    ),
}


def outcomes(wrapper, owner, before, steps, *, atomic):
    """Return what each of *steps* returns, or the class of its error."""
    for sql in before:
        run(owner, sql)
    found = []
    try:
        if atomic:
            wrapper.set_autocommit(False)
        for step in steps:
            sql, params = (step, None) if isinstance(step, str) else step
            if sql.startswith("!"):
                run(owner, sql[1:])
                continue
            try:
                found.append((sql, run(wrapper, sql, params)))
            except DatabaseError as error:
                found.append((sql, type(error)))
        return found
    finally:
        if atomic:
            wrapper.rollback()
            wrapper.set_autocommit(True)
        wrapper.close()
        for sql in GONE:
            run(owner, sql)


@pytest.mark.parametrize("name", STEPS)
def test_a_statement_means_what_it_would_mean_now(add, make, name):
    """Whoever has changed it."""
    before, steps = STEPS[name]
    owner = make("owner")
    expected = outcomes(make("plain"), owner, before, steps, atomic=False)
    wrapper = add(OPTIONS=EAGER)
    assert outcomes(wrapper, owner, before, steps, atomic=False) == expected
    # The session has no memory of it.
    assert run(wrapper, *ZONE) == [(1767225600,)]


@pytest.mark.parametrize("name", IN_TRANSACTION)
def test_the_same_in_a_transaction(add, make, name):
    before, steps = IN_TRANSACTION[name]
    owner = make("owner")
    expected = outcomes(make("plain"), owner, before, steps, atomic=True)
    wrapper = add(OPTIONS=EAGER)
    for _ in range(3):
        assert outcomes(wrapper, owner, before, steps, atomic=True) == expected


def test_targets_are_prepared_again(add, table):
    """Once the session is as all others are again."""
    wrapper = add()
    relet.prepare(ALL, using="planned", name="all")
    for disturb in ("SET LOCAL TIME ZONE 'Asia/Tokyo'", "ALTER TABLE plans ADD c int"):
        wrapper.set_autocommit(False)
        run(wrapper, disturb)
        run(wrapper, ALL, [1])
        hits = row("all").hits
        wrapper.rollback()
        wrapper.set_autocommit(True)
        run(wrapper, ALL, [1])
        assert row("all").hits == hits + 1, disturb
    for disturb, end in [
        (TOKYO, wrapper.close),
        ("SET DateStyle = 'ISO, DMY'", lambda: run(wrapper, "RESET DateStyle")),
        ("CREATE TEMP TABLE other (a int)", wrapper.close),
    ]:
        run(wrapper, disturb)
        run(wrapper, ALL, [1])
        hits = row("all").hits
        end()
        run(wrapper, ALL, [1])
        assert row("all").hits == hits + 1, disturb


def test_a_setting_that_was_rolled_back(add, table):
    wrapper = add()
    relet.prepare(ALL, using="planned", name="all")
    run(wrapper, ALL, [1])
    wrapper.set_autocommit(False)
    run(wrapper, TOKYO)
    run(wrapper, ALL, [1])
    assert row("all").hits == 1
    wrapper.rollback()
    wrapper.set_autocommit(True)
    run(wrapper, ALL, [1])
    assert row("all").hits == 2


def test_a_setting_that_no_text_shows(add, observer):
    """A function makes it, or code that has the driver's connection."""
    observer.execute(
        "CREATE FUNCTION to_tokyo() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN "
        "PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $f$"
    )
    wrapper, in_utc = add(OPTIONS=EAGER), [(1767225600,)]
    try:
        for change in (
            lambda: run(wrapper, "SELECT to_tokyo()"),
            lambda: driver.execute(wrapper.connection, TOKYO),
        ):
            assert run(wrapper, *ZONE) == in_utc
            with relet.hold("planned"):
                run(wrapper, *ZONE)
                change()
                assert run(wrapper, *ZONE) == [(1767225600 - 9 * 3600,)]
            wrapper.close()
            assert run(wrapper, *ZONE) == in_utc
    finally:
        wrapper.close()
        observer.execute("DROP FUNCTION to_tokyo()")


def test_other_settings_disturb_nothing(add, table):
    wrapper = add()
    relet.prepare(ALL, using="planned", name="all")
    wrapper.set_autocommit(False)
    for sql in (
        "SET LOCAL work_mem = '5MB'",
        "SELECT set_config('app.tenant', 'x', true)",
        "CREATE INDEX ON plans (a)",
        "UPDATE plans SET b = 'two'",
    ):
        run(wrapper, sql)
    run(wrapper, ALL, [1])
    assert row("all").hits == 1
    wrapper.rollback()
    wrapper.set_autocommit(True)


def test_a_failure_of_the_moment_is_no_refusal(add, make, table):
    """A lock that does not come free: it is waited for once, and the target stays one."""
    wrapper, other = add(), make("other")
    relet.prepare(ALL, using="planned", name="all")
    for atomic in (False, True):
        other.set_autocommit(False)
        run(other, "LOCK TABLE plans")
        if atomic:
            wrapper.set_autocommit(False)
        run(wrapper, "SET lock_timeout = '300ms'")
        try:
            with pytest.raises(DatabaseError, match="lock timeout"):
                run(wrapper, ALL, [1])
        finally:
            other.rollback()
            other.set_autocommit(True)
            if atomic:
                wrapper.rollback()
                wrapper.set_autocommit(True)
            wrapper.close()
    assert run(wrapper, ALL, [1]) == [(1, "one")]
    assert (row("all").hits, row("all").problem) == (1, "")


def test_a_statement_is_cancelled_once(add, make, table, observer):
    wrapper, other = add(), make("other")
    relet.prepare(ALL, using="planned", name="all")
    ((pid,),) = run(wrapper, "SELECT pg_backend_pid()")
    other.set_autocommit(False)
    run(other, "LOCK TABLE plans")
    thread = Thread()
    wrapper.inc_thread_sharing()
    try:
        thread.begin(lambda: run(wrapper, ALL, [1]))
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
        until(lambda: observer.execute(waits, [pid]).fetchone()[0])
        observer.execute("SELECT pg_cancel_backend(%s)", [pid])
        with pytest.raises(DatabaseError, match="cancel"):
            thread.result()
    finally:
        other.rollback()
        other.set_autocommit(True)
        thread.end()
        wrapper.dec_thread_sharing()
    assert run(wrapper, ALL, [1]) == [(1, "one")]
    assert (row("all").hits, row("all").problem) == (1, "")


@pytest.mark.skipif(driver.NAME != "psycopg", reason="the driver prepares nothing by itself")
def test_the_drivers_own_statements(add, table):
    """psycopg drops all that a session has prepared after each ROLLBACK, to drop its own."""
    wrapper = add(OPTIONS={"server_side_binding": True, "prepare_threshold": 0})
    relet.prepare(ALL, using="planned", name="all")
    for _ in range(3):
        assert run(wrapper, ALL, [1]) == [(1, "one")]
        wrapper.set_autocommit(False)
        for number in range(3):
            run(wrapper, "SELECT %s::int + 2", [number])
        wrapper.rollback()
        run(wrapper, "SELECT 1")
        assert run(wrapper, ALL, [1]) == [(1, "one")]
        wrapper.rollback()
        wrapper.set_autocommit(True)
    assert (row("all").hits, row("all").healed, row("all").problem) == (6, 0, "")


# What a first execution leaves behind: its plan, and nothing else.


@pytest.fixture
def fails_once(make):
    owner = make("owner")
    run(owner, "CREATE SEQUENCE once")
    run(
        owner,
        "CREATE FUNCTION fails_once(t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN "
        "IF nextval('once') = 1 THEN RAISE undefined_table; END IF; RETURN t; END $$",
    )
    run(owner, "CREATE TABLE written (a int)")
    yield
    run(owner, "DROP TABLE written; DROP FUNCTION fails_once; DROP SEQUENCE once")


def test_no_savepoint_outlives_its_statement(add, fails_once):
    """A later one would undo what was written in between, and say nothing."""
    wrapper = add()
    relet.prepare("SELECT %s || 'a'", using="planned")
    relet.prepare("SELECT fails_once(%s)", using="planned")
    wrapper.set_autocommit(False)
    with pytest.raises((UnicodeEncodeError, DatabaseError)):
        run(wrapper, "SELECT %s || 'a'", ["\ud800"])  # it cannot be sent
    run(wrapper, "INSERT INTO written VALUES (1)")
    with pytest.raises(DatabaseError):
        run(wrapper, "SELECT fails_once(%s)", ["x"])
    wrapper.rollback()
    assert run(wrapper, "SELECT fails_once(%s)", ["x"]) == [("x",)]
    wrapper.rollback()
    wrapper.set_autocommit(True)


def test_a_value_that_python_has_not(add):
    """The statement has run, so its transaction goes on."""
    wrapper = add()
    sql = "SELECT d + %s FROM (VALUES ('infinity'::date)) AS t (d)"
    relet.prepare(sql, using="planned", name="infinite")
    for _ in range(2):
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1")
        with pytest.raises(DataError):
            run(wrapper, sql, [1])
        assert run(wrapper, "SELECT 2") == [(2,)]
        wrapper.rollback()
        wrapper.set_autocommit(True)
    assert row("infinite").problem == ""
    assert row("infinite").connections == 1


@pytest.mark.parametrize("atomic", [False, True])
def test_the_server_keeps_no_values(add, atomic):
    """The session is for others, too, and for long."""
    wrapper = add()
    sql = "SELECT length(%s)"
    relet.prepare(sql, using="planned", name="length")
    wrapper.set_autocommit(not atomic)
    assert run(wrapper, sql, ["secret" * 1_000]) == [(6_000,)]
    kept = "SELECT string_agg(statement, ' ') FROM pg_prepared_statements"
    ((text,),) = run(wrapper, kept)
    if atomic:
        wrapper.rollback()
        wrapper.set_autocommit(True)
    assert "length" in text
    assert "secret" not in text
    assert row("length").hits == 1


@pytest.mark.parametrize("atomic", [False, True])
def test_a_refusal_undoes_nothing_else(add, table, atomic):
    wrapper = add()
    relet.prepare("SELECT now() - INTERVAL %s", using="planned", name="interval")
    wrapper.set_autocommit(not atomic)
    run(wrapper, "INSERT INTO plans VALUES (7, 'seven')")
    run(wrapper, "SELECT now() - INTERVAL %s", ["1 day"])
    assert run(wrapper, ALL, [7]) == [(7, "seven")]
    if atomic:
        wrapper.rollback()
        wrapper.set_autocommit(True)
    assert "refuses to prepare it" in row("interval").problem


@pytest.fixture
def hstore(observer):
    """Registered by each new connection."""
    known = "SELECT oid::int, typarray::int FROM pg_type WHERE typname = 'hstore'"

    def receive(connection, **kwargs):
        raw = connection.connection
        ((oid, array),) = driver.execute(raw, known).fetchall()
        if hasattr(raw, "wire"):
            raw.wire.values.register("hstore", oid, array)
        else:
            from psycopg.types import TypeInfo
            from psycopg.types.hstore import register_hstore

            register_hstore(TypeInfo("hstore", oid, array), raw)

    observer.execute("CREATE EXTENSION hstore; CREATE TABLE texts (a hstore)")
    connection_created.connect(receive)
    yield
    connection_created.disconnect(receive)
    observer.execute("DROP EXTENSION hstore CASCADE; DROP TABLE texts")


def test_dicts_that_are_hstore(add, hstore):
    wrapper, value = add(), {"a": "b"}
    for sql in ("SELECT pg_typeof(%s)::text", "INSERT INTO texts VALUES (%s) RETURNING a"):
        expected = run(wrapper, sql, [value])
        relet.prepare(sql, using="planned", name=sql)
        for _ in range(2):
            assert run(wrapper, sql, [value]) == expected
        assert (row(sql).hits, row(sql).problem) == (2, "")


@pytest.mark.parametrize(
    "disturb",
    [
        "SET LOCAL search_path = public",
        "CREATE TEMP TABLE other (a int) ON COMMIT DROP",
        "ALTER TABLE plans ADD d int",
        "DO $$ BEGIN EXECUTE 'SELECT 1'; END $$",
    ],
)
def test_targets_are_prepared_again_where_all_is_in_transactions(add, table, disturb):
    wrapper = add()
    relet.prepare(ALL, using="planned", name="all")

    def in_transaction(*statements):
        wrapper.set_autocommit(False)
        for sql, params in statements:
            run(wrapper, sql, params)
        wrapper.commit()
        wrapper.set_autocommit(True)
        wrapper.close()

    in_transaction((ALL, [1]))
    in_transaction((disturb, None))
    for plain in "SELECT 1", None:
        hits = row("all").hits
        in_transaction(*([(plain, None)] if plain else []), (ALL, [1]))
        assert row("all").hits == hits + 1


def test_a_role_that_changes_where_names_are_found(add, make, observer):
    roles = ["relet_ta", "relet_tb"]
    for role in roles:
        observer.execute(f"""
            CREATE ROLE {role};
            CREATE SCHEMA AUTHORIZATION {role};
            CREATE TYPE {role}.mood AS ENUM ('new');
            CREATE TABLE {role}.ord (id int, s {role}.mood);
            INSERT INTO {role}.ord VALUES (1, 'new');
            GRANT ALL ON {role}.ord TO {role};
        """)
    wrapper = add(OPTIONS=EAGER)
    try:
        for role in roles * 3:
            wrapper.set_autocommit(False)
            run(wrapper, f"SET LOCAL ROLE {role}")
            assert run(wrapper, "SELECT id FROM ord WHERE s = %s", ["new"]) == [(1,)]
            wrapper.rollback()
            wrapper.set_autocommit(True)
            wrapper.close()
    finally:
        wrapper.close()
        for role in roles:
            observer.execute(f"DROP SCHEMA {role} CASCADE")
            observer.execute(f"DROP ROLE {role}")


def test_an_error_of_code_that_has_run_is_the_statements_own(add, observer):
    observer.execute("""
        CREATE SEQUENCE relet_calls;
        CREATE FUNCTION relet_charge(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        PERFORM nextval('relet_calls');
        IF $1 = 2 THEN RAISE 'no voucher' USING ERRCODE = 'undefined_object'; END IF;
        RETURN 1; END $$
    """)
    wrapper = add(OPTIONS=EAGER)
    sql = "SELECT relet_charge(%s)"
    try:
        run(wrapper, sql, [1])
        for params in [2], [2]:
            with pytest.raises(DatabaseError, match="no voucher"):
                run(wrapper, sql, params)
        with pytest.raises(DatabaseError, match=r"app\.relet_none"):
            run(wrapper, "SELECT current_setting('app.relet_none') WHERE 1 = %s", [1])
        assert observer.execute("SELECT last_value FROM relet_calls").fetchone()[0] == 3
        assert sum(each.healed for each in relet.plans().rows) == 0
    finally:
        wrapper.close()
        observer.execute("DROP FUNCTION relet_charge; DROP SEQUENCE relet_calls")
