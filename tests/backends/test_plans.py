"""Prepared plans: which statements are prepared, and that they mean what they meant."""

import datetime
import decimal
import itertools
import json
import re
import threading
import uuid

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)
from django.test.utils import CaptureQueriesContext
from testapp.models import Item

import relet
from relet.backends.plans import declared
from relet.backends.wrapper.cursor import LeasedCursor
from relet.core import ConfigurationError
from relet.core.plans import PlanBook

from ..support import driver
from ..support.driver import execute
from ..support.forks import child_of, needs_fork
from ..support.pools import borrowed
from ..support.threads import Thread
from ..support.waiting import until
from .test_observation import instructions

pytestmark = pytest.mark.skipif(driver.NAME == "psycopg2", reason="psycopg2 cannot prepare")

SQL = "SELECT %s + 1"


@pytest.fixture(autouse=True)
def fresh(database):
    """Forget the targets of other tests."""
    yield
    declared._targets.clear()
    declared._Blocks.used = False


@pytest.fixture
def add(make):
    """Make a wrapper, and put it where `relet.prepare` looks for aliases."""

    def add(alias="planned", **settings):
        settings = {"OPTIONS": {"observe": False, **settings.pop("OPTIONS", {})}, **settings}
        connections[alias] = wrapper = make(alias, **settings)
        connections.settings[alias] = wrapper.settings_dict
        added.append(alias)
        return wrapper

    added = []
    yield add
    for alias in added:
        del connections[alias], connections.settings[alias]


def run(wrapper, sql, params=None):
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def prepared(wrapper):
    """What the session of the only connection has prepared."""
    sql = "SELECT name, statement, generic_plans, custom_plans FROM pg_prepared_statements"
    return run(wrapper, f"{sql} WHERE name LIKE 'relet_plan%%' ORDER BY prepare_time", [])


def row(name):
    return next(row for row in relet.plans().rows if row.name == name)


def test_a_target_is_prepared_when_it_is_first_run(add):
    wrapper = add()
    relet.prepare(SQL, using="planned", name="plus")
    assert not prepared(wrapper)
    assert run(wrapper, SQL, [1]) == [(2,)]
    ((_, statement, *_),) = prepared(wrapper)
    assert "SELECT $1 + 1" in statement
    for number in range(10):
        assert run(wrapper, SQL, [number]) == [(number + 1,)]
    assert row("plus").hits == 11
    assert row("plus").connections == 1
    assert len(prepared(wrapper)) == 1


def test_another_name_for_a_target_is_logged(add, caplog):
    add()
    for name in "plus", "plus", None:
        relet.prepare(SQL, using="planned", name=name)
    assert caplog.text == ""
    relet.prepare(SQL, using="planned", name="minus")
    assert "calls a statement 'minus' which was called 'plus' before" in caplog.text
    assert row("minus").alias == "planned"


def test_a_name_for_a_target_without_one_is_not_logged(add, caplog):
    add()
    relet.prepare(SQL, using="planned")
    relet.prepare(SQL, using="planned", name="plus")
    assert caplog.text == ""
    assert row("plus").alias == "planned"


def test_what_raw_returns_is_a_target(add):
    wrapper = add()
    rows = Item.objects.using("planned").raw(f"SELECT %s AS id FROM ({SQL}) AS x", ["secret", 1])
    relet.prepare(rows, name="raw")
    assert run(wrapper, rows.raw_query, ["5", 1]) == [("5",)]
    assert row("raw").alias == "planned"
    assert row("raw").hits == 1


def test_a_target_may_begin_with_comments(add):
    wrapper = add()
    sql = f"/* route='x' */ -- by the project\n{SQL}"
    relet.prepare(sql, using="planned", name="tagged")
    for text in (sql, SQL):
        assert run(wrapper, text, [1]) == [(2,)]
    assert row("tagged").hits == 2


@needs_fork
def test_a_child_keeps_targets_and_counts_anew(add):
    wrapper = add()
    relet.prepare(SQL, using="planned", name="plus")
    for number in range(3):
        run(wrapper, SQL, [number])
    assert row("plus").hits == 3

    def child():
        assert row("plus").hits == 0
        assert run(wrapper, SQL, [1]) == [(2,)]
        assert (row("plus").hits, row("plus").connections) == (1, 1)

    assert child_of(child) == 0
    assert row("plus").hits == 3


# What it means.

DAY = datetime.date(2026, 3, 1)
MEANINGS = [
    ("SELECT %s", [1]),
    ("SELECT %s / 2, %s / 2.0", [5, 5]),
    ("SELECT %s", [2**31 - 1]),
    ("SELECT %s", [-(2**31)]),
    ("SELECT %s", [2**31]),
    ("SELECT %s", [2**63]),
    ("SELECT pg_typeof(%s)::text", [5]),
    ("SELECT pg_typeof(%s)::text", [2**40]),
    ("SELECT pg_typeof(%s)::text", [2**70]),
    ("SELECT pg_typeof(%s)::text", [1.5]),
    ("SELECT pg_typeof(%s)::text", [float("inf")]),
    ("SELECT pg_typeof(%s)::text", [decimal.Decimal(5)]),
    ("SELECT pg_typeof(%s)::text", [decimal.Decimal("5.0")]),
    ("SELECT pg_typeof(%s)::text", [True]),
    ("SELECT pg_typeof(%s)::text", [DAY]),
    ("SELECT pg_typeof(%s)::text", [[1, 2]]),
    ("SELECT pg_typeof(%s)::text", [uuid.UUID(int=5)]),
    ("SELECT pg_typeof(%s)::text", [datetime.timedelta(3)]),
    ("SELECT pg_typeof(%s)::text", [None]),
    ("SELECT pg_typeof(%s)::text", ["text"]),
    ("SELECT %s::int2", [7]),
    ("SELECT %s::text", [b"bytes"]),
    ("SELECT %s", ["it's %s \\ 100%"]),
    ("SELECT '%%' || %s", ["x"]),
    ("SELECT %(a)s + %(b)s + %(a)s", {"a": 1, "b": 2}),
    ("SELECT 1 WHERE %s IN (%s, %s, %s)", [2, 1, 2, 3]),
    ("SELECT 1 WHERE 2 = ANY(%s)", [[1, 2]]),
    ("SELECT 'b' = ANY(%s)", [["a", "b"]]),
    ("SELECT %s IS NULL", [None]),
    ("SELECT COALESCE(%s, %s)", [None, "x"]),
    ("SELECT CASE WHEN %s THEN %s ELSE %s END", [True, "yes", "no"]),
    ("SELECT %s::jsonb -> %s", [json.dumps({"a": [1]}), "a"]),
    ("SELECT jsonb_build_object(%s, %s)", ["a", 1]),
    ("SELECT to_jsonb(%s::text)", ["a"]),
    ("SELECT DATE %s", ["2026-03-01"]),
    ("SELECT INTERVAL %s", ["1 day"]),
    ("SELECT EXTRACT(%s FROM now()) > 0", ["year"]),
    ("SELECT date_trunc(%s, TIMESTAMP '2026-03-05')", ["month"]),
    ("SELECT TIMESTAMPTZ '2026-03-05' AT TIME ZONE %s", ["UTC"]),
    ("SELECT %s || %s", ["a", "b"]),
    ("SELECT substring(%s, %s, %s)", ["abcdef", 2, 3]),
    ("SELECT round(%s, %s)", [decimal.Decimal("2.345"), 2]),
    ("SELECT power(%s, %s)", [2, 0.5]),
    ("SELECT %s UNION SELECT %s ORDER BY 1", ["a", "b"]),
    ("SELECT * FROM generate_series(%s, %s) LIMIT %s OFFSET %s", [1, 9, 2, 3]),
    ("SELECT a FROM (VALUES (2, 1), (1, 2)) AS v (a, b) ORDER BY %s", [2]),
    ("SELECT a FROM (VALUES (2, 1), (1, 2)) AS v (a, b) ORDER BY a, %s", [2]),
    ("SELECT a + %s FROM (VALUES (2), (1)) AS v (a) GROUP BY a + %s ORDER BY 1", [2, 2]),
    ("SELECT DISTINCT ON (%s) a FROM (VALUES (2), (1)) AS v (a) ORDER BY 1", [1]),
    ("SELECT 'x' LIKE %s", ["%x%"]),
    ("SELECT '2026-03-01'::date = %s", [DAY]),
    ("SELECT %s::date + %s", [DAY, 1]),
    ("SELECT %s + %s", [DAY, datetime.timedelta(1)]),
    ("VALUES (%s, %s)", [1, "a"]),
    ("WITH x AS (SELECT %s AS a) SELECT a FROM x", ["a"]),
    ("SELECT array[%s, %s]", [1, 2]),
    ("SELECT row(%s, %s)::text", [1, "a"]),
    ("SELECT %s = 'x'::name", ["x"]),
    ("SELECT format(%s, %s)", ["%s!", "a"]),
    ("SELECT 1 -- %s\n", ["a"]),
    ("SELECT %s; SELECT %s", [1, 2]),
    ("SELECT '%s'", [5]),
    ("SELECT %(a)s::int, %(a)s::text", {"a": "05"}),
    ("SELECT %(a)s::date, %(a)s::timestamp", {"a": "2026-01-01 15:00"}),
    ("SELECT %(a)s || 'x' GROUP BY %(a)s || 'x'", {"a": "b"}),
    ("SELECT %s, %(a)s", {"a": 1}),
    ("SELECT %s, 10 % 3", [1]),
    ("SELECT %s::interval hour", ["1"]),
    ("SELECT CAST(%s AS interval minute)", ["90"]),
    ("SELECT pg_typeof(%s)::text", [decimal.Decimal("NaN")]),
    ("SELECT %s", [decimal.Decimal("NaN").copy_abs()]),
    ("SELECT pg_typeof(%s)::text", [float("-inf")]),
    ("SELECT row_to_json(x)::text FROM (SELECT 1 AS x%s) AS x", [5]),
    ("SELECT 'int4'::regtype::text, %s", [1]),
]


def outcome(wrapper, sql, params):
    try:
        rows = run(wrapper, sql, params)
    except Exception as error:
        return type(error)
    # As text, because what is no number does not equal itself.
    return [[(type(value), str(value)) for value in row] for row in rows or ()]


def test_a_statement_means_what_it_meant(add, make):
    plain = make("plain")
    wrapper = add(OPTIONS={"prepare": {"mode": "auto", "after": 0}})
    for sql, params in MEANINGS:
        expected = outcome(plain, sql, params)
        for _ in range(7):
            assert outcome(wrapper, sql, params) == expected, sql
    assert len(prepared(wrapper)) > len(MEANINGS) / 2


def test_a_statement_means_what_it_meant_in_a_transaction(add, make):
    plain = make("plain")
    wrapper = add(OPTIONS={"prepare": {"mode": "auto", "after": 0}})
    for sql, params in MEANINGS:
        expected = outcome(plain, sql, params)
        for _ in range(2):
            wrapper.set_autocommit(False)
            try:
                run(wrapper, "SELECT 'before'")
                assert outcome(wrapper, sql, params) == expected, sql
                if isinstance(expected, list):
                    assert run(wrapper, "SELECT 'after'") == [("after",)]
            finally:
                wrapper.rollback()
                wrapper.set_autocommit(True)
    assert len(prepared(wrapper)) > len(MEANINGS) / 2


@pytest.mark.skipif(driver.NAME != "psycopg", reason="the driver writes all parameters as literals")
def test_it_means_what_it_means_with_parameters_that_the_server_binds(add, make):
    plain = make("plain", OPTIONS={"server_side_binding": True})
    wrapper = add(OPTIONS={"server_side_binding": True, "prepare": {"mode": "auto", "after": 0}})
    for value in (5, 70_000, 2**40, 2.5, decimal.Decimal("2.5"), "x", DAY, None, [1, 2], True):
        expected = outcome(plain, "SELECT pg_typeof(%s)::text", [value])
        for _ in range(3):
            assert outcome(wrapper, "SELECT pg_typeof(%s)::text", [value]) == expected
    assert len(prepared(wrapper)) > 3


# Who prepares nothing.


def test_without_targets_it_is_the_code_of_before(make):
    """Counted by instructions: neither settings nor another alias' targets make a difference."""
    wrapper = make("off", OPTIONS={"observe": False})
    for _ in range(3):
        run(wrapper, "SELECT 1")
    pool = wrapper._runner.handle.pool
    assert pool.plans is None
    assert "new_cursor" not in vars(pool)
    found = instructions(lambda: run(wrapper, "SELECT 1"))
    files = {code.co_filename.rpartition("/relet/")[2] for code, _ in found}
    assert "backends/wrapper/cursor.py" in files
    assert not [file for file in files if "plans" in file]
    with wrapper.cursor() as cursor:
        assert type(cursor.cursor) is LeasedCursor


def test_others_than_the_alias_of_a_target_run_the_code_of_before(add, make):
    other = make("other", OPTIONS={"observe": False})
    run(other, "SELECT 1")
    before = instructions(lambda: run(other, "SELECT 1"))
    wrapper = add()
    relet.prepare(SQL, using="planned")
    run(wrapper, SQL, [1])
    assert instructions(lambda: run(other, "SELECT 1")) == before


# Targets.


def test_a_queryset_is_a_target_whatever_its_values(add):
    wrapper = add()
    items = Item.objects.using("planned")
    relet.prepare(items.filter(pk__in=[1], name="x").order_by("name"), name="items")
    list(items.filter(pk__in=[4, 5], name="y").order_by("name"))
    list(items.filter(pk__in=[1, 2, 3], name="z").order_by("name"))
    assert row("items").hits == 2
    with pytest.raises(Item.DoesNotExist):
        items.filter(pk__in=[4, 5], name="y").get()
    assert row("items (get)").hits == 1
    items.filter(pk__in=[4, 5], name="y").order_by("name").first()
    assert row("items (first)").hits == 1
    list(items.filter(pk__in=[4, 5]))
    assert len(prepared(wrapper)) == 4


def test_a_queryset_that_locks_rows(add):
    add()
    items = Item.objects.using("planned").select_for_update().filter(name="x")
    relet.prepare(items, name="locked")
    with transaction.atomic(using="planned"):
        list(items.filter(name="x"))
        assert items.first() is None
    assert [row(name).hits for name in ("locked", "locked (first)")] in ([1, 1], [0, 1], [1, 0])


def test_targets_of_an_open_pool(add):
    wrapper = add()
    run(wrapper, SQL, [1])
    relet.add_prepare_target(SQL, using="planned", name="plus")
    run(wrapper, SQL, [1])
    assert row("plus").hits == 1


def test_it_takes_no_connection(add):
    wrapper = add(HOST="127.0.0.1", PORT="1")
    relet.prepare(Item.objects.using("planned").filter(name="x"))
    relet.prepare(SQL, using="planned")
    with pytest.raises(OperationalError):
        run(wrapper, SQL, [1])


def test_all_statements_of_a_block(add):
    wrapper = add()
    run(wrapper, SQL, [1])
    with relet.prepared():
        run(wrapper, SQL, [1])
        run(wrapper, "SELECT %s", ["x"])
    run(wrapper, SQL, [1])
    run(wrapper, "SELECT %s, 1", ["x"])
    assert sorted(row.hits for row in relet.plans().rows) == [1, 2]


def test_statements_that_are_run_often(add):
    wrapper = add(OPTIONS={"prepare": {"mode": "auto", "after": 2}})
    for _ in range(5):
        run(wrapper, SQL, [1])
        run(wrapper, "SET LOCAL work_mem = '4MB'")
    assert [row.hits for row in relet.plans().rows] == [3]


def test_a_connection_keeps_at_most_so_many(add):
    wrapper = add(OPTIONS={"prepare": {"mode": "auto", "after": 0, "max": 3}})
    for number in range(8):
        run(wrapper, f"SELECT %s AS number_{number}", ["x"])
        run(wrapper, "SELECT %s AS often", ["x"])
    kept = [found[1] for found in prepared(wrapper)]
    assert len(kept) <= 3
    report = relet.plans()
    assert sum(row.connections for row in report.rows) == 3
    assert {row.hits for row in report.rows if "often" in row.sql} == {8}
    assert [row.hits for row in report.rows if "number_" in row.sql] == [1] * 8


def test_the_report(add):
    wrapper = add()
    relet.prepare("SELECT 'secret' WHERE %s = 1", using="planned", name="report")
    for _ in range(8):
        run(wrapper, "SELECT 'secret' WHERE %s = 1", [1])
    report = relet.plans("planned")
    assert "secret" not in str(report) + json.dumps(report.as_dict())
    (found,) = report.rows
    assert (found.plan, found.hits, found.connections, found.healed) == ("auto", 8, 1, 0)
    assert found.custom > 0
    assert found.generic > 0
    wrapper.close_pool()
    assert row("report").connections == 0


def test_more_combinations_of_types_than_are_prepared(add):
    wrapper = add()
    relet.prepare("SELECT %s, %s, %s, %s", using="planned", name="four")
    values = ([None if number >> bit & 1 else bit for bit in range(4)] for number in range(16))
    for params in values:
        assert run(wrapper, "SELECT %s, %s, %s, %s", params) == [tuple(params)]
    assert "more than 8 combinations of types" in row("four").problem


# Settings.


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("autos", r"it is 'autos'; it must be 'targets' or 'auto' \(did you mean 'auto'\?\)"),
        (True, "it is True; it must be 'targets' or 'auto', or a dict"),
        ({"mod": "auto"}, r"unknown 'mod' \(did you mean 'mode'\?\)"),
        ({"mode": "all"}, "'mode' is 'all'; it must be 'targets' or 'auto'"),
        ({"after": -1}, "'after' is -1; it must be a whole number of at least 0"),
        ({"max": 0}, "'max' is 0; it must be a whole number of at least 1"),
    ],
)
def test_a_wrong_setting(make, setting, says):
    wrapper = make("wrong", OPTIONS={"prepare": setting})
    before = connections["default"]
    connections["default"] = wrapper
    try:
        (found,) = [check for check in run_checks() if check.id == "relet.E013"]
    finally:
        connections["default"] = before
    assert re.search(says, found.msg)
    assert "DATABASES['wrong']['OPTIONS']['prepare']" in found.msg
    with pytest.raises(ImproperlyConfigured, match=says):
        run(wrapper, "SELECT 1")


def test_a_wrong_target(add):
    add()
    for target, says in [
        (5, "takes a queryset or SQL, not int"),
        ("SET work_mem = %s", "only queries and changes of rows can be"),
        ("SELECT 1; SELECT 2", "its text is not one statement"),
        ("SELECT 'now'::timestamp", "the present time"),
        ("SELECT 1 ORDER BY %s", "where a number is a position"),
        ("SELECT 'f'::regproc", "the name of an object as a constant"),
        ("SELECT %s::interval year", "an interval with fields"),
        ("SELECT 1 AS x%s", "right after a word or a quote"),
        ("SELECT %s, %(a)s", "not all of one kind"),
        ("SELECT %s, 5 % 3", "a percent sign is not doubled"),
        (Item.objects.using("planned").none(), "it has no rows, whatever is in the database"),
    ]:
        with pytest.raises(ConfigurationError, match=says):
            relet.prepare(target, using="planned")
    with pytest.raises(ConfigurationError, match=r"did you mean 'planned'\?"):
        relet.prepare(SQL, using="plannd")
    for alias in ("", [], 5):
        with pytest.raises(ConfigurationError, match="DATABASES has 'default', 'planned'"):
            relet.prepare(SQL, using=alias)
    for name in ("", 5, b"name"):
        with pytest.raises(ConfigurationError, match="it must be a str, or None"):
            relet.prepare(SQL, using="planned", name=name)
    with pytest.raises(ConfigurationError, match=r"did you mean 'generic'\?"):
        relet.prepare(SQL, using="planned", plan="generics")


def test_a_driver_that_cannot(add, make, monkeypatch):
    wrapper = add()
    monkeypatch.setattr(
        wrapper.adapter_class, "cannot_prepare", classmethod(lambda cls: "it is too old")
    )
    with pytest.raises(ConfigurationError, match="cannot prepare: it is too old"):
        relet.prepare(SQL, using="planned")
    with relet.prepared():
        assert run(wrapper, SQL, [1]) == [(2,)]
    asked = make("asked", OPTIONS={"prepare": "auto"})
    with pytest.raises(ImproperlyConfigured, match="this engine cannot prepare: it is too old"):
        run(asked, SQL, [1])


# ROLLBACK.


def test_plans_survive_a_rollback(add):
    wrapper = add()
    relet.prepare(SQL, using="planned", name="plus")
    for _ in range(3):
        wrapper.set_autocommit(False)
        run(wrapper, SQL, [1])
        run(wrapper, "SAVEPOINT s")
        run(wrapper, SQL, [1])
        run(wrapper, "ROLLBACK TO SAVEPOINT s")
        run(wrapper, SQL, [1])
        wrapper.rollback()
        wrapper.set_autocommit(True)
    assert len(prepared(wrapper)) == 1
    assert (row("plus").hits, row("plus").healed) == (9, 0)


def test_plans_survive_that_session_state_is_undone(add):
    wrapper = add()
    relet.prepare(SQL, using="planned")
    run(wrapper, SQL, [1])
    assert wrapper._runner.lease.connection is None  # it does not pin
    before = prepared(wrapper)
    run(wrapper, "SET work_mem = '5MB'")
    run(wrapper, "PREPARE own AS SELECT 1")
    wrapper.close()
    assert prepared(wrapper) == before


def test_plans_survive_that_other_code_borrows_the_connection(add):
    wrapper = add()
    relet.prepare(SQL, using="planned")
    run(wrapper, SQL, [1])
    before = prepared(wrapper)
    with borrowed(wrapper) as raw:
        execute(raw, "SET work_mem = '5MB'")
        execute(raw, "PREPARE own AS SELECT 1")
    assert prepared(wrapper) == before
    with borrowed(wrapper) as raw:
        execute(raw, "DEALLOCATE ALL")
    assert run(wrapper, SQL, [1]) == [(2,)]


def to_a_borrower(wrapper, sql):
    with borrowed(wrapper) as raw:
        execute(raw, sql)


def in_a_lease(wrapper, sql):
    with wrapper.cursor() as cursor:
        execute(cursor.connection, sql)


def in_hold(wrapper, sql):
    wrapper.hold()
    run(wrapper, "SELECT 1")
    execute(wrapper.connection, sql)
    wrapper.release_hold()


@pytest.mark.parametrize("sql", ["DEALLOCATE ALL", "DISCARD ALL"])
@pytest.mark.parametrize("drop", [to_a_borrower, in_a_lease, in_hold])
def test_no_transaction_fails_for_plans_that_unseen_code_has_dropped(add, drop, sql):
    wrapper = add()
    relet.prepare(SQL, using="planned")
    run(wrapper, SQL, [1])
    drop(wrapper, sql)
    wrapper.close()
    for _ in range(3):
        with transaction.atomic("planned"):
            assert run(wrapper, SQL, [1]) == [(2,)]
    assert prepared(wrapper)


# Healing.


@pytest.fixture
def table(make):
    owner = make("owner")
    run(owner, "CREATE TABLE plans (a int, b text)")
    run(owner, "INSERT INTO plans VALUES (1, 'one')")
    yield lambda sql: run(owner, sql)
    run(owner, "DROP TABLE plans")


ALL = "SELECT * FROM plans WHERE a = %s"


def test_a_changed_table(add, table):
    wrapper = add()
    relet.prepare(ALL, using="planned", name="all")
    assert run(wrapper, ALL, [1]) == [(1, "one")]
    table("ALTER TABLE plans ADD c int DEFAULT 3")
    assert run(wrapper, ALL, [1]) == [(1, "one", 3)]
    assert run(wrapper, ALL, [1]) == [(1, "one", 3)]
    assert row("all").healed == 1
    assert len(prepared(wrapper)) == 1


def test_a_changed_table_in_a_transaction(add, table):
    wrapper = add()
    relet.prepare(ALL, using="planned", name="all")
    run(wrapper, ALL, [1])
    table("ALTER TABLE plans ADD c int DEFAULT 3")
    wrapper.set_autocommit(False)
    with pytest.raises(NotSupportedError, match="target 'all' is no longer valid") as e:
        run(wrapper, ALL, [1])
    assert "run the whole transaction again" in str(e.value)
    assert e.value.__cause__.sqlstate == "0A000"
    with pytest.raises(DatabaseError, match="current transaction is aborted"):
        run(wrapper, ALL, [1])
    wrapper.rollback()
    assert run(wrapper, ALL, [1]) == [(1, "one", 3)]
    wrapper.rollback()
    wrapper.set_autocommit(True)
    assert row("all").healed == 0
    assert "cached plan" in row("all").problem


@pytest.mark.parametrize("how", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_a_session_that_has_dropped_its_plans(add, how):
    wrapper = add()
    relet.prepare(SQL, using="planned", name="plus")
    run(wrapper, SQL, [1])
    run(wrapper, how)
    assert run(wrapper, SQL, [1]) == [(2,)]
    wrapper.close()
    run(wrapper, SQL, [1])
    # Out of relet's sight.
    with wrapper.cursor() as cursor:
        driver.execute(cursor.connection, how)
    assert run(wrapper, SQL, [1]) == [(2,)]
    assert row("plus").healed <= 1


def test_writes_are_done_once(add, table):
    wrapper = add()
    sql = "INSERT INTO plans (a) VALUES (%s) RETURNING *"
    relet.prepare(sql, using="planned", name="write")
    run(wrapper, sql, [5])
    table("ALTER TABLE plans ADD c int")
    assert run(wrapper, sql, [5]) == [(5, None, None)]
    assert row("write").healed == 1
    assert run(wrapper, "SELECT count(*) FROM plans WHERE a = 5") == [(2,)]


def test_a_migration_renews_all_plans(add):
    wrapper = add()
    relet.prepare(SQL, using="planned", name="plus")
    run(wrapper, SQL, [1])
    (before,) = prepared(wrapper)
    declared._migrated(using="planned")
    run(wrapper, SQL, [1])
    (after,) = prepared(wrapper)
    assert before[0] != after[0]


def test_an_error_of_the_statement_is_no_error_of_its_plan(add, table):
    wrapper = add()
    sql = "SELECT 1 / (a - %s) FROM plans"
    relet.prepare(sql, using="planned", name="divide")
    for _ in range(2):
        with pytest.raises(DataError):
            run(wrapper, sql, [1])
    assert run(wrapper, sql, [0]) == [(1,)]
    assert len(prepared(wrapper)) == 1
    sql = "SELECT missing FROM plans WHERE a = %s"
    relet.prepare(sql, using="planned", name="missing")
    for _ in range(2):
        with pytest.raises(ProgrammingError, match="missing"):
            run(wrapper, sql, [1])
    table("ALTER TABLE plans ADD missing int DEFAULT 7")
    assert run(wrapper, sql, [1]) == [(7,)]
    assert row("missing").hits == 1


def test_what_the_server_refuses_to_prepare(add, caplog):
    wrapper = add()
    sql = "SELECT INTERVAL %s"
    relet.prepare(sql, using="planned", name="interval")
    for _ in range(3):
        assert run(wrapper, sql, ["1 day"]) == [(datetime.timedelta(1),)]
    assert row("interval").hits == 0
    problem = row("interval").problem
    assert "not prepared: the server refuses to prepare it" in problem
    assert "42601" in problem
    until(lambda: "target 'interval': not prepared" in caplog.text)
    assert caplog.text.count("interval") == 1
    assert "1 day" not in caplog.text


# On the wire.


@pytest.fixture
def round_trips(watched, wire, monkeypatch):
    """How often the server is asked for a statement, and by which messages."""

    def round_trips(sql, params):
        run(watched, "SELECT 1")
        wire.forget()
        sends.clear()
        run(watched, sql, params)
        return len(sends) if driver.NAME == "pg8000" else wire.round_trips(), wire.sent()

    sends = []
    if driver.NAME == "pg8000":
        # It sends several messages at once, and the first may be answered before the last is seen.
        from relet.adapters.pg8000.wire import Wire

        send = Wire._send_queries

        def counted(self, messages):
            sends.append(messages)
            send(self, messages)

        monkeypatch.setattr(Wire, "_send_queries", counted)
    return round_trips


def test_each_execution_is_one_round_trip(watched, wire, round_trips, monkeypatch):
    monkeypatch.setitem(connections.settings, "watched", watched.settings_dict)
    relet.prepare(SQL, using="watched")
    run(watched, SQL, [1])  # the first of a pool asks whether there is a pooler
    later = {"B": 1, "D": 1, "E": 1, "S": 1}
    first = {"P": 1, **later}
    if driver.NAME == "pg8000":
        first, later = {"Q": 2}, {"Q": 1}
    for sql in (f"{SQL} + 1", f"{SQL} + 2"):
        relet.prepare(sql, using="watched")
        assert round_trips(sql, [1]) == (1, first)
        assert round_trips(sql, [1]) == (1, later)
        watched.set_autocommit(False)
        assert round_trips(sql, [1]) == (1, later)
        sql += " + 1"
        relet.prepare(sql, using="watched")
        assert round_trips(sql, [1])[0] == 1
        assert round_trips(sql, [1]) == (1, later)
        watched.rollback()
        watched.set_autocommit(True)


# The choice of a plan.


SKEWED = "SELECT count(*) FROM plans WHERE a = %s"


def test_a_plan_can_be_forced(add, table):
    wrapper = add()
    for plan in ("generic", "custom"):
        sql = f"{SKEWED} AND {plan == 'generic'}"
        relet.prepare(sql, using="planned", plan=plan, name=plan)
        for _ in range(3):
            run(wrapper, sql, [1])
        wrapper.set_autocommit(False)
        run(wrapper, "SET LOCAL plan_cache_mode = force_generic_plan")
        for _ in range(3):
            run(wrapper, sql, [1])
        assert run(wrapper, "SHOW plan_cache_mode") == [("force_generic_plan",)]
        wrapper.rollback()
        wrapper.set_autocommit(True)
        assert run(wrapper, "SHOW plan_cache_mode") == [("auto",)]
    counts = [found[2:] for found in prepared(wrapper)]
    assert counts == [(6, 0), (0, 6)]


def run_slowly(wrapper, sql, params, monkeypatch):
    """Run a statement that takes 1 ms with a plan for its values, and 10 ms with any other."""
    real = PlanBook.executed

    def executed(book, prepared, target, mode, seconds):
        custom = mode == "custom" or prepared.counts.runs < 5
        real(book, prepared, target, mode, 0.001 if custom else slow[0])

    slow = [0.010]
    monkeypatch.setattr(PlanBook, "executed", executed)
    for _ in range(25):
        run(wrapper, sql, params)
    return slow


def test_a_generic_plan_that_is_slower_is_given_up(add, table, caplog, monkeypatch):
    wrapper = add()
    relet.prepare(SKEWED, using="planned", name="skewed")
    run_slowly(wrapper, SKEWED, [1], monkeypatch)
    assert row("skewed").plan == "auto"
    for _ in range(30):  # the trial
        run(wrapper, SKEWED, [1])
    assert row("skewed").plan == "custom"
    until(lambda: "target 'skewed': its generic plan takes 10 ms" in caplog.text)
    before = prepared(wrapper)[0][3]
    run(wrapper, SKEWED, [1])
    assert prepared(wrapper)[0][3] == before + 1


def test_a_generic_plan_that_only_seemed_to_be_slower_is_kept(add, table, caplog, monkeypatch):
    wrapper = add()
    relet.prepare(SKEWED, using="planned", name="skewed")
    slow = run_slowly(wrapper, SKEWED, [1], monkeypatch)
    slow[0] = 0.001  # the machine is as quiet as it was
    for _ in range(80):
        run(wrapper, SKEWED, [1])
    assert row("skewed").plan == "auto"
    (_, _, generic, custom) = prepared(wrapper)[0]
    assert generic + custom == 105
    assert custom == 5 + 15


# What is seen of it.


def test_the_query_log_has_the_values(add):
    wrapper = add()
    relet.prepare("SELECT %s", using="planned")
    run(wrapper, "SELECT %s", ["first"])
    with CaptureQueriesContext(wrapper) as captured:
        for value in "x", "it's":
            run(wrapper, "SELECT %s", [value])
    assert [query["sql"] for query in captured] == ["SELECT 'x'", "SELECT 'it''s'"]


def test_an_error_at_commit_is_raised(add, table):
    """It comes after the result of the statement, when that is a transaction of its own."""
    wrapper = add()
    table("ALTER TABLE plans ADD UNIQUE (a) DEFERRABLE INITIALLY DEFERRED")
    sql = "INSERT INTO plans (a) VALUES (%s)"
    for plan in ("auto", "custom"):
        wrapper._runner.handle and wrapper._runner.handle.pool.plans.renew()
        relet.prepare(sql, using="planned", plan=plan)
        for _ in range(2):
            with pytest.raises(IntegrityError, match="duplicate key"):
                run(wrapper, sql, [1])
    assert table("SELECT a FROM plans") == [(1,)]


def test_statements_are_observed(add):
    wrapper = add(OPTIONS={"observe": True})
    relet.prepare("SELECT %s AS observed", using="planned")
    for _ in range(3):
        run(wrapper, "SELECT %s AS observed", [1])
    (found,) = [row for row in relet.queries(limit=None).rows if "observed" in row.sql]
    assert (found.calls, found.rows) == (3, 3)


# Under load.


def test_tables_change_under_load(add, table):
    """No error outside of transactions, nothing lost or doubled; one error at most in each."""
    add(size=3)
    read, write = ALL, "INSERT INTO plans (a, b) VALUES (%s, %s) RETURNING *"
    relet.prepare(read, using="planned")
    relet.prepare(write, using="planned")
    written, again, done = [], [], threading.Event()

    def atomically(wrapper, value):
        with transaction.atomic("planned"):
            run(wrapper, read, [1])
            run(wrapper, write, [value, "x"])

    def work(first):
        wrapper = connections["planned"]
        for value in itertools.count(first):
            assert run(wrapper, write, [value, "x"])[0][0] == value
            written.append(value)
            assert run(wrapper, read, [value])[0][:2] == (value, "x")
            try:
                atomically(wrapper, -value)
            except NotSupportedError as error:
                again.append(str(error))
                atomically(wrapper, -value)
            written.append(-value)
            if done.is_set():
                break
        wrapper.close()

    threads = [Thread() for _ in range(3)]
    try:
        for number, thread in enumerate(threads, 1):
            thread.begin(lambda first=number * 1_000_000: work(first))
        for number in range(12):
            enough = len(written) + 12
            until(lambda enough=enough: len(written) > enough or done.is_set())
            table(f"ALTER TABLE plans ADD c{number} int DEFAULT 1")
    finally:
        done.set()
        for thread in threads:
            thread.result()
            thread.end()
    assert sorted(written) == sorted(row[0] for row in table("SELECT a FROM plans WHERE a <> 1"))
    assert all("run the whole transaction again" in said for said in again)
    assert sum(row.healed for row in relet.plans("planned").rows) > 0


@pytest.mark.parametrize("wrong", ["default", print, 3])
def test_prepared_takes_nothing(wrong):
    with pytest.raises(TypeError, match=r"takes no argument, not .*decorate with @prepared\(\)"):
        relet.prepared(wrong)
