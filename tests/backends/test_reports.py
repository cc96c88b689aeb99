"""What relet.queries, relet.routes and relet.pools say."""

import copy
import json
import threading
from contextlib import suppress

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.signals import connection_created
from testapp.models import Item

import relet
from relet.backends.observe import collection
from relet.backends.reports.report import width_of

from ..support import driver
from ..support.aliases import Aliases
from ..support.engine import put_small_pool
from ..support.pools import backend_pid, stats
from ..support.sessions import kill
from ..support.threads import in_thread
from ..support.waiting import until

copies = driver.needs("psycopg", "cursor.copy()")
streams = driver.needs("psycopg", "cursor.stream()")


@pytest.fixture(autouse=True)
def fresh(db):  # which ends what an earlier test has left
    relet.queries.reset()
    relet.routes.reset()


@pytest.fixture
def add(database):
    """Add an alias to the settings, with a pool of one connection."""

    def add(alias, *, timeout=5, **options):
        settings = copy.deepcopy(connections["default"].settings_dict)
        put_small_pool(settings, timeout=timeout)
        settings["OPTIONS"].update(options)
        return aliases.add(alias, settings)

    with Aliases() as aliases:
        yield add


def run(wrapper, sql, params=None):
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def query(sql):
    """The row of *sql*, which must be there."""
    return next(row for row in relet.queries(limit=None).rows if row.sql == sql)


def route(name):
    return next(row for row in relet.routes(limit=None).rows if row.route == name)


# Queries.


def test_statements_that_differ_in_values_only_are_one(db):
    for number in range(3):
        run(db, f"SELECT {number}, 'a{number}'")
    row = query("SELECT ?, ?")
    assert (row.calls, row.rows, row.errors) == (3, 3, 0)
    assert 0 < row.mean == row.total / 3 <= row.max <= row.total
    assert row.p95 <= row.max
    assert row.route == "(thread MainThread)"


def test_lists_of_any_length_are_one(db):
    for count in (1, 2, 50):
        list(Item.objects.filter(pk__in=range(count)))
    [row] = [row for row in relet.queries().rows if "IN (%s, ...)" in row.sql]
    assert row.calls == 3


@pytest.mark.parametrize("release", ["statement", "cursor", "request"])
def test_statements_of_each_release_mode_are_counted(make, release):
    wrapper = make(policy={"release": release})
    for _ in range(3):
        run(wrapper, "SELECT 1 AS one")
    with relet.label("atomic"):
        wrapper.set_autocommit(False)
        run(wrapper, "SELECT 1 AS one")
        run(wrapper, "SELECT 1 AS one")
        wrapper.rollback()
        wrapper.set_autocommit(True)
    wrapper.close()
    row = query("SELECT ? AS one")
    assert (row.calls, row.rows) == (5, 5)
    leases = sum(row.leases for row in relet.routes().rows)
    assert leases == {"statement": 4, "cursor": 4, "request": 1}[release]
    for row in relet.routes().rows:
        assert row.held >= row.longest
        assert row.idle == pytest.approx(row.held - row.ran) or row.idle == 0


def test_errors_are_counted(db):
    for _ in range(2):
        with pytest.raises(DatabaseError):
            run(db, "SELECT 1/0 AS wrong")
    row = query("SELECT ?/? AS wrong")
    assert (row.calls, row.errors, row.rows) == (2, 2, 0)


def test_errors_in_a_transaction_are_counted(db):
    with suppress(ZeroDivisionError), transaction.atomic():
        run(db, "SELECT 1 AS fine")
        with pytest.raises(DatabaseError), transaction.atomic():
            run(db, "SELECT 1/0 AS wrong")
        raise ZeroDivisionError
    assert query("SELECT ?/? AS wrong").errors == 1
    # Django's names of savepoints are never the same.
    assert query("SAVEPOINT ?").calls == 1


def test_executemany_is_counted(db):
    with db.cursor() as cursor:
        cursor.executemany(
            "UPDATE testapp_item SET name = %s WHERE id = %s", [("a", -1), ("b", -2)]
        )
    assert query("UPDATE testapp_item SET name = %s WHERE id = %s").calls == 1


def test_statements_with_session_state_are_counted(db):
    with relet.hold():
        run(db, "SET statement_timeout = '7s'")
        run(db, "SELECT 1 AS one")
    assert query("SET statement_timeout = ?").calls == 1
    assert query("SELECT ? AS one").calls == 1
    assert sum(row.leases for row in relet.routes().rows) == 1
    [pool] = [row for row in relet.pools().rows if row.alias == "default"]
    assert pool.reset > 0


def test_server_side_cursors_are_counted(db):
    Item.objects.bulk_create([Item(name=name) for name in "abc"])
    relet.queries.reset()
    relet.routes.reset()
    with transaction.atomic():
        assert len([*Item.objects.iterator(chunk_size=2)]) >= 3
    [row] = [row for row in relet.queries().rows if row.sql.startswith("SELECT")]
    assert (row.calls, row.errors) == (1, 0)
    assert route("(thread MainThread)").leases == 1
    Item.objects.all().delete()


@copies
def test_copy_is_counted(db):
    with db.cursor() as cursor:
        with cursor.copy("COPY (SELECT generate_series(1, 3)) TO STDOUT") as copy:
            assert len([*copy]) == 3
        with (
            pytest.raises(DatabaseError),
            db.wrap_database_errors,
            cursor.copy("COPY nothing TO STDOUT"),
        ):
            raise AssertionError("not reached")
    assert (query("COPY (SELECT generate_series(?, ...)) TO STDOUT")).calls == 1
    assert query("COPY nothing TO STDOUT").errors == 1


@streams
def test_streams_are_counted(db):
    with db.cursor() as cursor:
        assert len([*cursor.stream("SELECT generate_series(1, 3) AS n")]) == 3
        rows = cursor.stream("SELECT generate_series(1, 9) AS n")
        next(rows)
        rows.close()
    row = query("SELECT generate_series(?, ...) AS n")
    assert (row.calls, row.errors) == (2, 0)


def test_bytes_and_composed_statements_are_counted(db):
    if driver.NAME == "pg8000":
        run(db, b"SELECT 1 AS one")
    else:
        run(db, driver.sql.SQL("SELECT {} AS one").format(driver.sql.Literal("secret")))
    assert query("SELECT ? AS one").calls == 1


def test_queries_by(db):
    for _ in range(3):
        run(db, "SELECT 1 AS often")
    run(db, "SELECT 1 AS slow, pg_sleep(0.05)")
    for by in ("total", "mean", "p95", "max"):
        assert "slow" in relet.queries(by=by, limit=1).rows[0].sql
    assert "often" in relet.queries(by="calls", limit=1).rows[0].sql
    assert relet.queries(limit=0).rows == ()


@pytest.mark.parametrize("report", [relet.queries, relet.routes])
def test_arguments_are_checked(report):
    with pytest.raises(ValueError, match=r"relet\.\w+\(by='sum'\): it can be 'total'|'idle'"):
        report(by="sum")
    for limit in (-1, "20", 1.5):
        with pytest.raises(ValueError, match="must be a number of rows, or None for all"):
            report(limit=limit)


def test_reset(db):
    run(db, "SELECT 1 AS one")
    relet.queries.reset()
    assert relet.queries().rows == ()
    assert relet.routes().rows != ()
    relet.routes.reset()
    assert relet.routes().rows == ()
    run(db, "SELECT 1 AS one")
    assert query("SELECT ? AS one").calls == 1


def test_what_is_counted_by_pool_is_not_reset(db):
    def operations():
        return collection.totals().pools["default"].operations.count

    before = operations()
    run(db, "SELECT 1")
    relet.queries.reset()
    relet.routes.reset()
    assert operations() == before + 1


def test_any_number_of_texts_is_bounded(db):
    for number in range(1_300):
        run(db, f"SELECT 1 AS a{number}")
    rows = relet.queries(limit=None).rows
    assert len(rows) == 1_001
    assert rows[-1].sql == "(other)"
    assert sum(row.calls for row in rows) == 1_300


# Routes.


def test_a_kept_lease_is_held_and_idle(db):
    with relet.label("export"), transaction.atomic():
        run(db, "SELECT 1")
        threading.Event().wait(0.05)
        run(db, "SELECT 1")
    row = route("export")
    assert row.leases == 1
    assert row.held == row.longest >= row.idle >= 0.05
    assert row.idle == pytest.approx(row.held - row.ran)


def test_labels_nest(db):
    with relet.label("outer"):
        run(db, "SELECT 1 AS a")
        with relet.label("inner"):
            run(db, "SELECT 1 AS b")
        run(db, "SELECT 1 AS c")
    run(db, "SELECT 1 AS d")
    assert {row.sql[-1]: row.route for row in relet.queries().rows} == {
        "a": "outer",
        "b": "inner",
        "c": "outer",
        "d": "(thread MainThread)",
    }


def test_a_label_decorates(db):
    @relet.label("decorated")
    def function():
        run(db, "SELECT 1")

    function()
    function()
    assert route("decorated").leases == 2


@pytest.mark.parametrize("wrong", [None, 1, "", print])
def test_a_label_is_a_text(wrong):
    with pytest.raises(TypeError, match="takes a str"):
        relet.label(wrong)


def test_ten_thousand_routes_are_bounded(db):
    for number in range(700):
        with relet.label(f"user {number}"):
            run(db, "SELECT 1")
    rows = relet.routes(limit=None).rows
    assert len(rows) == 501
    assert rows[-1].route == "(other)"
    assert sum(row.leases for row in rows) == 700


def test_who_waits_and_who_blocks(add):
    wrapper = add("contended")

    def cart():
        with relet.label("cart"):
            try:
                run(connections["contended"], "SELECT 1 AS cart")
            finally:
                connections["contended"].close()

    with relet.label("export"), transaction.atomic("contended"):
        run(wrapper, "SELECT 1")
        thread = threading.Thread(target=cart)
        thread.start()
        until(lambda: stats(wrapper).waiting)
        threading.Event().wait(0.05)
    thread.join()
    waited = query("SELECT ? AS cart").waited
    assert waited >= 0.05
    assert query("SELECT ? AS cart").total < waited
    assert route("cart").waited == waited
    assert route("export").blocked == pytest.approx(waited, rel=0.5)
    assert route("cart").blocked < waited / 2
    [pool] = [row for row in relet.pools().rows if row.alias == "contended"]
    assert pool.longest_wait >= waited * 0.99
    # Opening the first connection may have been another wait.
    assert pool.waits_histogram[-1][1] in (1, 2)


def test_the_first_statement_waits_for_its_connection(add):
    """The pool is opened for it, which may take as long as a connection that nobody gives back."""
    asked = threading.Event()

    def parameters(settings):
        asked.wait(0.2)
        return {}

    wrapper = add("slow", connection_parameters=parameters)
    run(wrapper, "SELECT 1 AS first")
    row = query("SELECT ? AS first")
    assert row.waited >= 0.15
    assert row.total < row.waited
    [pool] = [row for row in relet.pools().rows if row.alias == "slow"]
    assert pool.waits == 1
    assert min(pool.waited, pool.longest_wait) >= 0.15


def test_a_wait_is_not_of_what_receivers_run(add, observer):
    """The connection that comes free is a new one, whose receivers run before the statement."""
    wrapper = add("initialized")

    def configure(connection, **kwargs):
        if connection.alias == "initialized":
            run(connection, "SELECT 1 AS configured")

    def wait():
        run(connections["initialized"], "SELECT 1 AS waiter")
        connections["initialized"].close()

    connection_created.connect(configure)
    try:
        with pytest.raises(DatabaseError), transaction.atomic("initialized"):
            pid = backend_pid(wrapper)
            thread = threading.Thread(target=wait)
            thread.start()
            until(lambda: stats(wrapper).waiting)
            kill(observer, pid)
            run(wrapper, "SELECT 1")
        thread.join()
    finally:
        connection_created.disconnect(configure)
    assert query("SELECT ? AS configured").waited == 0
    assert query("SELECT ? AS waiter").waited > 0


def test_rows_of_server_side_cursors_are_counted_as_they_are_fetched(db):
    sql = "SELECT generate_series(1, 9) AS n"
    with transaction.atomic(), db.chunked_cursor() as cursor:
        cursor.execute(sql)
        assert query("SELECT generate_series(?, ...) AS n").rows == 0
        assert cursor.fetchone() == (1,)
        assert len(cursor.fetchmany(3)) == 3
        assert len([row for row, _ in zip(cursor, range(2), strict=False)]) == 2
        before = query("SELECT generate_series(?, ...) AS n").rows
        rest = len(cursor.fetchall())
        assert cursor.fetchone() is None
    row = query("SELECT generate_series(?, ...) AS n")
    assert (row.calls, row.rows) == (1, before + rest)
    assert before >= 6


def test_a_timeout_is_counted(add):
    wrapper = add("short", timeout=1)

    def other():
        try:
            with pytest.raises(OperationalError):
                run(connections["short"], "SELECT 1 AS never")
        finally:
            connections["short"].close()

    with transaction.atomic("short"):
        run(wrapper, "SELECT 1")
        ran = collection.pools()["short"].operations.count
        in_thread(other)
    row = query("SELECT ? AS never")
    assert (row.calls, row.errors) == (1, 1)
    assert row.waited >= 0.9
    assert row.total == 0
    # It has no duration, not even a short one.
    assert (row.mean, row.p95) == (0, 0)
    assert collection.pools()["short"].operations.count == ran
    [pool] = [row for row in relet.pools().rows if row.alias == "short"]
    assert pool.timeouts == 1


@copies
def test_a_copy_does_not_run_while_it_waits(add):
    wrapper = add("short", timeout=1)

    def other():
        try:
            with pytest.raises(OperationalError), connections["short"].cursor() as cursor:
                cursor.copy("COPY (SELECT 1 AS never) TO STDOUT").__enter__()
        finally:
            connections["short"].close()

    with transaction.atomic("short"):
        run(wrapper, "SELECT 1")
        in_thread(other)
    row = query("COPY (SELECT ? AS never) TO STDOUT")
    assert (row.calls, row.errors, row.total) == (1, 1, 0)
    assert row.waited >= 0.9


# Pools.


def test_pools(make):
    wrapper = make("counted")
    run(wrapper, "SELECT 1")
    with pytest.raises(DatabaseError):
        run(wrapper, "SELECT pg_terminate_backend(pg_backend_pid())")
    run(wrapper, "SELECT 1")
    [row] = [row for row in relet.pools().rows if row.alias == "counted"]
    assert row.max_size == 1
    assert row.created == 2
    assert row.discarded == 1
    assert row.in_use == 0


# What all of them have in common.


@pytest.mark.parametrize("report", [relet.queries, relet.routes, relet.pools, relet.connections])
def test_each_report_is_a_table_and_json(db, report):
    with transaction.atomic():
        run(db, "SELECT 1 AS one, 'x' AS two\n\tFROM generate_series(1, 3) -- \x1b[31m")
        found = report()
    assert found.rows
    assert str(found) == found.as_table()
    for width in (60, 80, 200):
        lines = found.as_table(width=width).splitlines()
        assert len(lines) == 1 + len(found.rows)
        assert max(map(len, lines)) <= width
        assert "\x1b" not in "".join(lines)
    read = json.loads(json.dumps(found.as_dict()))
    assert len(read["rows"]) == len(found.rows)
    for row in found.rows:
        with pytest.raises(AttributeError):
            row.new = 1
    assert repr(found)


@pytest.mark.parametrize("width", [1, 20, 30, 60, 120])
def test_letters_that_take_two_columns(db, width):
    """Tables stay aligned, whatever a terminal makes of the letters in them."""
    for name in ("日本語のラベル" * 4, "cafe\u0301", "plain"):
        with relet.label(name):
            run(db, "SELECT 1")
    lines = relet.routes(by="leases").as_table(width=width).splitlines()
    assert max(map(width_of, lines)) <= width
    if width >= 60:
        ends = {width_of(line[: line.index("  1")]) for line in lines[1:]}
        assert len(ends) == 1
        assert width_of("cafe\u0301 日本") == 9


@pytest.mark.parametrize("report", [relet.queries, relet.routes])
@pytest.mark.parametrize("limit", [-1, True, 1.5, "3"])
def test_a_wrong_limit(report, limit):
    with pytest.raises(ValueError, match=f"limit={limit!r}.*a number of rows, or None for all"):
        report(limit=limit)


def test_what_is_not_counted_is_told(make):
    """A 0 would be believed."""
    wrapper = make("unseen", OPTIONS={"observe": False})
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    for report in relet.pools(), relet.queries(), relet.routes():
        [note] = [note for note in report.notes if "'unseen'" in note]
        assert note.endswith("not counted, because OPTIONS['observe'] is False.")
        assert note in str(report)


@pytest.mark.parametrize(
    ("kind", "report", "other"),
    [("queries", relet.queries, relet.routes), ("routes", relet.routes, relet.queries)],
)
def test_a_kind_that_is_not_counted_is_told(make, kind, report, other):
    wrapper = make("partly", OPTIONS={"observe": {kind: False}})
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    [note] = [note for note in report().notes if "'partly'" in note]
    assert note.endswith(f"not counted, because OPTIONS['observe']['{kind}'] is False.")
    assert not [note for note in other().notes + relet.pools().notes if "'partly'" in note]
