"""Which texts are prepared, with which types, and what a session has prepared."""

import pytest

from relet.core.plans import Disturbance, PlanBook, SessionPlans, Shape, Target, Targets, Text
from relet.core.plans.disturbances import NOTHING, disturbance
from relet.core.plans.eligible import is_preparable, refusal
from relet.core.plans.numbers import INT4, INT8, NUMERIC, literal_type
from relet.core.plans.placeholders import Native, Unfit
from relet.core.plans.trial import Trial, is_slower


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT %s", ""),
        ("SELECT %s;", ""),
        ("SELECT '%%', %s -- a comment", ""),
        ("SELECT %(a)s, %(a)s", ""),
        ("SELECT a FROM t ORDER BY a + %s, b", ""),
        ("SELECT f(a, %s) FROM t ORDER BY f(a, %s), b", ""),
        ("SELECT a FROM t ORDER BY a LIMIT %s", ""),
        ("SELECT a FROM t WHERE a IN (%s, %s) ORDER BY a", ""),
        ("SELECT 'nowhere', 'today''s' IS NULL", "present time"),
        ("SELECT now(), today FROM t", ""),
        ("SELECT 'nowhere'", ""),
        ("SELECT 'NOW'::timestamptz", "present time"),
        ("SELECT date 'tomorrow'", "present time"),
        ("SELECT '%s'", "inside of quotes"),
        ("SELECT 1 /* %s */", "inside of quotes or a comment"),
        ("SELECT 1; SELECT 2", "not one statement"),
        ("SELECT a FROM t ORDER BY %s", "a position"),
        ("SELECT a FROM t ORDER BY a, %s DESC", "a position"),
        ("SELECT a FROM t GROUP BY %s HAVING true", "a position"),
        ("SELECT DISTINCT ON (%s) a FROM t", "a position"),
        ("SELECT (SELECT a FROM t ORDER BY %s)", "a position"),
        ("SELECT 'a\\' || %s", "backslash"),
        ("SELECT name FROM pg_catalog.pg_cursors", "see itself"),
        ("INSERT INTO t VALUES (%s) ON CONFLICT (a) WHERE b = %s DO NOTHING", "for all of its"),
        ("INSERT INTO t VALUES (%s) ON CONFLICT (a) DO UPDATE SET b = 1 WHERE t.b = %s", ""),
        ("SELECT 1 FROM t FULL JOIN u ON t.a = u.a OR %s", "for all of its"),
        ("SELECT 1 FROM t LEFT JOIN u USING (a) WHERE u.b = 1 OR %s FOR UPDATE", "for all of its"),
        ("SELECT 1 FROM t LEFT JOIN u USING (a) WHERE u.b = 1 OR %s", ""),
        ("SELECT 1 FROM t LEFT JOIN u USING (a) WHERE t.b = %s FOR UPDATE", ""),
    ],
)
def test_what_is_refused(sql, reason):
    assert is_preparable(sql)
    assert reason in refusal(sql)
    assert bool(reason) == bool(refusal(sql))


def test_what_is_preparable():
    for sql in ("select 1", " (SELECT 1)", "INSERT INTO t", "with x as", "VALUES (1)", "MERGE"):
        assert is_preparable(sql)
    for sql in ("-- a\nselect 1", "--\rselect", "/**/select", "/* a*b/c */(/***/ select 1)"):
        assert is_preparable(sql)
    for sql in ("SET a = 1", "CREATE TABLE t", "EXPLAIN SELECT 1", "selects", "", "-- select"):
        assert not is_preparable(sql)
    for sql in ("/* select */ SET a = 1", "/* select", "/*/ select", "/* /* */ select */ SET a"):
        assert not is_preparable(sql)


def test_placeholders():
    native = Native("SELECT '%%', %s, %b")
    assert (native.sql, native.names, native.count) == ("SELECT '%', $1, $2", None, 2)
    assert native.values([1, 2]) == [1, 2]
    native = Native("SELECT %(a)s, %(b)s, %(a)s")
    assert (native.sql, native.names) == ("SELECT $1, $2, $3", ("a", "b", "a"))
    assert native.count == 3
    assert native.values({"b": 2, "a": 1, "c": 3}) == [1, 2, 1]
    for params in ([1, 2], {"a": 1}, None, "ab"):
        with pytest.raises(Unfit):
            native.values(params)
    with pytest.raises(Unfit):
        Native("SELECT %s").values([1, 2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0", INT4),
        (b"2147483647", INT4),
        (b"2147483648", INT8),
        (b"-2147483647", INT4),
        (b"-2147483648", INT4),  # the minus is a part of it
        (b"-2147483649", INT8),
        (b"-9223372036854775808", INT8),
        (b"-9223372036854775809", NUMERIC),
        (b"9223372036854775807", INT8),
        (b"9223372036854775808", NUMERIC),
        (b"99999999999999999999999", NUMERIC),
        (b"1.0", NUMERIC),
        (b"1e+20", NUMERIC),
        (b"NaN", NUMERIC),
    ],
)
def test_numbers_have_the_types_of_literals(text, expected):
    assert literal_type(text) == expected


def test_a_target_is_a_shape():
    targets = Targets("default")
    target = targets.add("SELECT a FROM t WHERE b IN (%s) AND c = 5", "name", "auto")
    assert targets.find("SELECT a FROM t WHERE b IN (%s, %s, %s) AND c = 7") is target
    assert targets.find("SELECT a FROM t WHERE b IN (%s)") is None
    assert targets.add("SELECT a FROM t WHERE b IN (%s, %s) AND c = 1", None, "custom") is target
    assert (target.name, target.mode) == ("name", "custom")
    assert len(targets) == 1


class Connection:
    """Stands for a driver's connection, of which only the identity matters."""


def test_a_session_keeps_what_was_used_last_and_its_counts():
    book = PlanBook(Targets("default"), after=0, most=2)
    raw = Connection()
    session = book.new_session(raw)
    shapes = [book.find(f"SELECT {name}").shape(()) for name in "abc"]
    for shape in shapes[:2]:
        session.add(shape, session.next_name(shape)).counts.add_run("auto", 0.5)
    assert session.find(shapes[0]) is not None
    book.make_room(session)
    session.add(shapes[2], session.next_name(shapes[2]))
    assert list(session.prepared) == [shapes[0], shapes[2]]
    assert len(session.stale) == 1
    assert session.stale[0].endswith("_2")
    assert shapes[1].target.ended.runs == 1
    book.renew()
    book.expired(session)
    assert not session.prepared
    assert len(session.stale) == 3
    assert book.counts(shapes[0].target)[1] == 0
    assert shapes[0].target.ended.runs == 1
    session.add(shapes[0], session.next_name(shapes[0])).counts.add_run("auto", 0.5)
    del raw
    book.new_session(other := Connection())
    assert shapes[0].target.ended.runs == 2
    assert len(book.prepared_by()) == 1
    del other


def test_a_trial_goes_by_medians():
    trial = Trial()
    for number in range(30):
        mode = trial.next_mode()
        trial.add(mode, (0.001 if mode == "custom" else 0.002) + (number == 7))
    assert trial.ended
    assert trial.medians == (0.001, 0.002)
    assert is_slower(0.002, 0.001)
    assert not is_slower(0.0012, 0.001)
    assert not is_slower(0.00002, 0.00001)


# What disturbs plans.

FORGETS, SETS, SETS_LOCALLY = Disturbance.FORGETS, Disturbance.SETS, Disturbance.SETS_LOCALLY
DEFINES, DEFINES_HERE = Disturbance.DEFINES, Disturbance.DEFINES_HERE


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1", NOTHING),
        ("UPDATE t SET a = 1", NOTHING),
        ("INSERT INTO t SELECT 1", NOTHING),
        ("WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM x", NOTHING),
        ("SELECT 'create table t'", NOTHING),
        ("CREATE UNIQUE INDEX CONCURRENTLY ON t (a)", NOTHING),
        ("ALTER ROLE r SET app.x = 1", NOTHING),
        ("SET LOCAL work_mem = '5MB'", NOTHING),
        ("SET app.tenant = 1; SET SESSION application_name = 'x'", NOTHING),
        ("SELECT set_config('app.tenant', %s, true)", NOTHING),
        ("DEALLOCATE own", NOTHING),
        ("DISCARD PLANS", NOTHING),
        ("DO $$ BEGIN PERFORM 1; END $$", NOTHING),
        ("deallocate /* x */ all", FORGETS),
        ("DEALLOCATE PREPARE ALL", FORGETS),
        ("DISCARD ALL", FORGETS | SETS | DEFINES_HERE),
        ("DISCARD TEMP", DEFINES_HERE),
        ("CREATE TABLE t (a int)", DEFINES),
        ("create or replace function f() returns int language sql as $$ select 1 $$", DEFINES),
        ("ALTER TYPE mood RENAME VALUE 'x' TO 'y'", DEFINES),
        ("DROP VIEW v", DEFINES),
        ("SELECT a INTO t FROM u", DEFINES),
        ("CREATE TEMP TABLE t (a int)", DEFINES_HERE),
        ("CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1", DEFINES_HERE),
        ("SELECT a INTO TEMPORARY TABLE t FROM u", DEFINES_HERE),
        ("CREATE TABLE pg_temp.t (a int)", DEFINES_HERE),
        ("SET TIME ZONE 'UTC'", SETS),
        ("SET SESSION search_path TO a, b", SETS),
        ('SET "DateStyle" = ISO', SETS),
        ("SET LOCAL search_path = a", SETS_LOCALLY),
        ("SET SCHEMA 'a'", SETS),
        ("RESET ALL", SETS),
        ("RESET IntervalStyle", SETS),
        ("SELECT pg_catalog.set_config('Search_Path', %s, false)", SETS),
        ("SELECT set_config('TimeZone', %s, true)", SETS_LOCALLY),
        ("SELECT set_config(%s, %s, true)", SETS_LOCALLY),
        ("SELECT set_config(%s, %s, %s)", SETS),
        ("SELECT 1; CREATE TABLE t (a int); SET LOCAL TIME ZONE 'UTC'", DEFINES | SETS_LOCALLY),
        ("DO $$ BEGIN EXECUTE 'x'; END $$", DEFINES | SETS_LOCALLY),
        ("SET ROLE a", SETS),
        ("SET LOCAL SESSION AUTHORIZATION a", SETS_LOCALLY),
        ("DROP RULE r ON t", DEFINES),
    ],
)
def test_disturbances(sql, found):
    assert disturbance(sql) == found


def test_a_session_has_plans_for_each_of_its_settings():
    session, text = SessionPlans(0), Text("SELECT %s", Target("default", "x", "SELECT %s"))
    shapes = [Shape(text, text.target, (number,)) for number in range(4)]
    for number, shape in enumerate(shapes):
        session.change_settings(number % 2)
        session.add(shape, f"name {number}")
    assert [*session.prepared] == [shapes[1], shapes[3]]
    session.change_settings(0)
    assert [*session.prepared] == [shapes[0], shapes[2]]
    assert len(session) == 4
    session.find(shapes[0])
    assert [stale.shape for stale in session.evict(4)] == [shapes[1]]
    assert [stale.shape for stale in session.evict(3)] == [shapes[2]]
    session.change_settings(1)
    assert [*session.prepared] == [shapes[3]]
    session.doubt(SETS)
    assert {stale.shape for stale in session.drop(7, gone=False)} == {shapes[0], shapes[3]}
    assert session.stale == ["name 1", "name 2", "name 3", "name 0"]
    assert session.doubtful
    assert session.settle() == SETS
    assert (session.epoch, len(session)) == (7, 0)


@pytest.mark.slow
def test_texts_that_are_remembered_have_a_limit():
    texts = PlanBook(Targets("default"), after=5).texts
    for number in range(1000):
        texts[f"SELECT {number} -- {'x' * 15_000}"]
        assert sum(map(len, texts)) <= 8_000_000
    assert len(texts) > 10
