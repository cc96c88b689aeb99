"""What relet.connections says: who has the connections, where, and for how long."""

import asyncio
import contextlib
import copy
import inspect
import selectors
import socket
import ssl
import threading
import weakref
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections, transaction
from testapp.models import Item

import relet
from relet.backends.observe import stacks

from ..support import driver
from ..support.aliases import Aliases
from ..support.engine import backend, put_small_pool
from ..support.holder import staying
from ..support.pools import backend_pid, stats
from ..support.sessions import kill
from ..support.threads import in_thread
from ..support.waiting import until

HERE = str(Path(__file__))


def run(wrapper, sql, params=None):
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def only(alias="default", **options):
    [row] = relet.connections(alias, **options).rows
    return row


def line_of(text):
    """The line of this file that ends with the comment *text*."""
    lines = Path(HERE).read_text().splitlines()
    [number] = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    return number


# States.


def test_idle(db):
    pid = backend_pid(db)
    row = only()
    assert (row.alias, row.pid, row.state) == ("default", pid, "idle")
    assert row.leased_seconds is None
    assert row.seconds >= 0
    assert (row.thread, row.task, row.route, row.sql) == (None, None, None, None)
    assert (row.leased_at, row.cursor_at, row.ran_at, row.now_at) == ((), (), (), ())


def test_idle_in_transaction(db):
    with transaction.atomic():
        pid = backend_pid(db)
        row = only()
    assert (row.pid, row.state) == (pid, "idle in transaction")
    assert row.thread == "MainThread"
    assert row.route == "(thread MainThread)"
    assert row.leased_seconds >= row.seconds >= 0


@driver.needs("psycopg", "cursor.stream()")
def test_a_stream_is_no_idle_time(db):
    with transaction.atomic(), db.cursor() as cursor:
        assert len(list(cursor.stream("SELECT pg_sleep(0.3)"))) == 1
        row = only()
    assert row.leased_seconds - row.seconds >= 0.3


def test_the_thread_is_its_own_again_after_others_have_used_it(db):
    db.inc_thread_sharing()
    in_thread(lambda: run(db, "SELECT 1"))
    db.dec_thread_sharing()
    with transaction.atomic():
        run(db, "SELECT 1")
        assert only().thread == "MainThread"


def test_aborted(db):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        with pytest.raises(DatabaseError), transaction.atomic():
            run(db, "SELECT 1/0")
        with pytest.raises(DatabaseError):
            run(db, "SELECT 1/0")
        assert only().state == "idle in transaction (aborted)"
        raise ZeroDivisionError


def test_broken(db, observer):
    with pytest.raises(driver.CONNECTION_LOST), transaction.atomic():
        observer.execute("SELECT pg_terminate_backend(%s)", [backend_pid(db)])
        with pytest.raises(driver.CONNECTION_LOST):
            run(db, "SELECT 1")
        assert only().state == "broken"


def test_pinned_by_session_state(db):
    run(db, "SET statement_timeout = '7s'")
    assert only().state == "pinned: a setting"
    db.close()
    assert only().state == "idle"


def test_pinned_by_hold(db):
    with relet.hold():
        run(db, "SELECT 1")
        assert only().state == "pinned: hold()"


@pytest.mark.parametrize("release", ["cursor", "request"])
def test_pinned_by_the_release_mode(make, release):
    wrapper = make("moded", policy={"release": release})
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert only("moded").state == f"pinned: release={release!r}"
    wrapper.close()
    assert only("moded").state == "idle"


def test_pinned_by_a_server_side_cursor(db):
    for name in "abc":
        Item.objects.create(name=name)
    rows = Item.objects.iterator(chunk_size=1)
    next(rows)
    assert only().state in ("pinned: server-side cursor", "idle in transaction")
    rows.close()
    Item.objects.all().delete()


def test_pinned_by_the_drivers_connection(db):
    with db.cursor() as cursor:
        cursor.connection.cursor().close()
        assert only().state == "pinned: cursor.connection"


@driver.needs("psycopg", "cursor.copy()")
def test_pinned_by_copy(db):
    with db.cursor() as cursor, cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
        assert only().state == "pinned: COPY or stream()"
        assert [*copy]


def test_running(db, observer):
    """A statement of another thread is seen while it runs, and where."""

    def work():
        try:
            run(connections["default"], "SELECT pg_advisory_xact_lock(77)")  # works
        finally:
            connections["default"].close()

    (pid,) = observer.execute("SELECT pg_backend_pid() FROM pg_advisory_lock(77)").fetchone()
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    try:
        until(lambda: observer.execute(_WAITS).fetchone()[0])
        row = only(server=True)
    finally:
        observer.execute("SELECT pg_advisory_unlock(77)")
        thread.join()
    assert (row.state, row.thread) == ("running", "worker")
    assert row.sql == "SELECT pg_advisory_xact_lock(?)"
    assert row.now_at[0][2] == "run"
    assert row.now_at[1] == (HERE, line_of("works"), "work")
    # It is a lease of its own, though it is the first statement of the thread's wrapper.
    assert (row.leased_at, row.cursor_at, row.ran_at) == ((), (), ())
    # The pool is exhausted, and still the server was asked.
    assert row.server_state == "active"
    assert row.wait_event == "Lock: advisory"
    assert row.blocked_by == (pid,)


_WAITS = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"


# Stacks.


@pytest.mark.parametrize("module", [contextlib, selectors, socket, ssl, connections.__class__])
def test_the_projects_code_comes_first(module):
    """A driver waits in the standard library, such as for an encrypted connection."""
    inner = compile("pass", inspect.getfile(module), "exec")
    own = compile("pass", HERE, "exec")
    found = stacks.lines((inner, 0, own, 0, inner, 0))
    assert [line[0] for line in found] == [HERE, inner.co_filename]


@pytest.mark.parametrize("before", [None, "SELECT 1"])
def test_the_stack_of_a_server_side_cursor(make, before):
    """The project's lines come first, though the lease begins before the statement."""
    wrapper = make("chunked")
    if before is not None:
        run(wrapper, before)
    with wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT 1")  # the chunks
        row = only("chunked")
    where = (HERE, line_of("the chunks"), "test_the_stack_of_a_server_side_cursor")
    assert (row.leased_at[0], row.ran_at[0]) == (where, where)


def test_stacks(db):
    def helper(cursor):
        cursor.execute("SELECT 1")  # the helper

    with transaction.atomic():
        with db.cursor() as cursor:
            cursor.execute("SELECT 1")  # the lease
        cursor = db.cursor()  # the cursor
        helper(cursor)  # the helper's caller
        row = only()  # now
        cursor.close()
    assert row.leased_at[0] == (HERE, line_of("the lease"), "test_stacks")
    assert row.cursor_at[0] == (HERE, line_of("the cursor"), "test_stacks")
    assert row.ran_at[0] == (HERE, line_of("the helper"), "helper")
    assert row.ran_at[1] == (HERE, line_of("the helper's caller"), "test_stacks")
    assert (HERE, line_of("now"), "test_stacks") in row.now_at
    for name in ("leased_at", "cursor_at", "ran_at"):
        for file, line, function in getattr(row, name):
            assert Path(file).is_file()
            assert isinstance(line, int)
            assert isinstance(function, str)


def test_stacks_of_the_orm(db):
    with transaction.atomic():
        list(Item.objects.all())  # the lease of the ORM
        Item.objects.count()  # the last statement of the ORM
        row = only()
    function = "test_stacks_of_the_orm"
    assert row.leased_at[0] == (HERE, line_of("the lease of the ORM"), function)
    assert row.cursor_at[0] == (HERE, line_of("the last statement of the ORM"), function)
    assert row.ran_at[0] == (HERE, line_of("the last statement of the ORM"), function)


def test_stacks_keep_no_frames(db):
    class Big:
        pass

    def function():
        big = Big()
        list(Item.objects.all())
        return threading.local(), weakref.ref(big)

    with transaction.atomic():
        _, found = function()
        assert found() is None
        assert only().ran_at


def test_the_table_shows_the_innermost_line_or_all_of_them(db):
    with transaction.atomic():
        run(db, "SELECT 1")
        report = relet.connections()
    assert HERE not in report.as_table(width=400).replace(f"{HERE}:", "")
    table = report.as_table(width=400)
    assert "leased at" in table
    assert f"{HERE}:" in table
    everything = report.as_table(stacks=True)
    assert "\n  leased at\n" in everything
    assert "\n  last statement at: as above\n" in everything
    assert everything.count(HERE) == 3  # where the lease began, and two lines of now


# Threads and tasks.


def test_threads(add_size):
    wrapper = add_size("threads", 3)

    def begin(number):
        label = relet.label(f"job {number}")
        label.__enter__()
        atomic = transaction.atomic("threads")
        atomic.__enter__()
        run(connections["threads"], "SELECT 1")

    def end():
        connections["threads"].close()

    with staying(lambda: begin(1), end), staying(lambda: begin(2), end):
        rows = [row for row in relet.connections("threads").rows if row.state != "idle"]
        assert {row.route for row in rows} == {"job 1", "job 2"}
        assert {row.thread for row in rows} == {"holder"}
        assert {row.state for row in rows} == {"idle in transaction"}
    assert stats(wrapper).in_use == 0


@pytest.fixture
def add_size(database):
    def add(alias, size):
        settings = copy.deepcopy(connections["default"].settings_dict)
        put_small_pool(settings, size=size)
        return aliases.add(alias, settings)

    with Aliases() as aliases:
        yield add


def test_tasks(db):
    entered, leave = threading.Event(), threading.Event()

    def work():
        with transaction.atomic():
            run(connections["default"], "SELECT 1")
            entered.set()
            leave.wait(20)
        connections["default"].close()

    async def main():
        async with relet.label("nightly"):
            task = asyncio.create_task(sync_to_async(work)(), name="the task")
        await asyncio.to_thread(entered.wait, 20)
        try:
            return relet.connections("default").rows
        finally:
            leave.set()
            await task

    [row] = asyncio.run(main())
    assert row.task == "the task"
    assert row.route == "nightly"


# The server's view.


def test_server(db):
    with transaction.atomic():
        run(db, "SELECT 1")
        row = only(server=True)
    assert row.state == "idle in transaction"
    assert row.server_state == "idle in transaction"
    assert row.xact_seconds >= 0
    assert row.wait_event is None
    assert row.blocked_by == ()


def test_server_with_an_idle_connection(db, observer):
    pid = backend_pid(db)
    before = observer.execute("SELECT count(*) FROM pg_stat_activity").fetchone()
    row = only(server=True)
    assert row.pid == pid
    # It may have asked for itself, which is neither shown nor a transaction.
    assert (row.state, row.server_state) == ("idle", "idle")
    assert (row.xact_seconds, row.wait_event, row.blocked_by) == (None, None, ())
    assert observer.execute("SELECT count(*) FROM pg_stat_activity").fetchone() == before
    assert stats(db).in_use == 0


def test_an_idle_connection_that_the_server_has_ended(make, observer):
    """That says nothing of the server, which is asked on another one."""
    wrapper = connections["ended"] = make("ended")
    try:
        kill(observer.raw, backend_pid(wrapper))
        assert relet.connections("ended", server=True).notes == ()
    finally:
        del connections["ended"]


def test_server_from_an_event_loop(db):
    """No connection is idle, and Django opens none there."""

    def begin():
        connections["default"].set_autocommit(False)
        run(connections["default"], "SELECT 1")
        return stats(connections["default"]).idle

    async def main():
        idle = await sync_to_async(begin)()
        try:
            return idle, relet.connections(server=True)
        finally:
            await sync_to_async(lambda: connections["default"].close())()

    idle, report = asyncio.run(main())
    assert idle == 0
    assert report.notes == ()
    assert [row.server_state for row in report.rows] == ["idle in transaction"]


def test_a_server_that_cannot_be_asked(db, monkeypatch):
    with transaction.atomic():
        run(db, "SELECT 1")
        monkeypatch.setitem(db.settings_dict, "PORT", "1")
        monkeypatch.setitem(db.settings_dict, "HOST", "127.0.0.1")
        report = relet.connections(server=True)
    assert report.rows[0].state == "idle in transaction"
    assert report.rows[0].server_state is None
    [note] = report.notes
    assert note.startswith("DATABASES['default']: the server could not be asked: ")
    assert note in str(report)


@pytest.mark.parametrize("report", [relet.connections, relet.plans])
@pytest.mark.parametrize("alias", ["defaul", "", 5, ["default"]])
def test_no_such_alias(db, report, alias):
    found = report(alias)
    assert found.rows == ()
    assert f"DATABASES has no alias {alias!r}" in found.notes[0]
    assert "it has 'default'" in str(found)
    assert repr(found) == f"<{type(found).__name__}: 0 rows. {found.notes[0]}>"


def test_an_alias_of_another_engine(database):
    settings = {**connections["default"].settings_dict, "ENGINE": backend()}
    with Aliases() as aliases:
        aliases.add("plain", settings)
        assert "'plain']['ENGINE'] is " in relet.connections("plain").notes[0]


def test_not_observed(make):
    """Without observation, leases are seen, but not idle connections and routes."""
    wrapper = make("unseen", OPTIONS={"observe": False})
    assert relet.connections("unseen").rows == ()
    wrapper.set_autocommit(False)
    run(wrapper, "SELECT 1")  # unseen
    row = only("unseen")
    assert row.state == "idle in transaction"
    assert row.leased_at == ((HERE, row.leased_at[0][1], "run"),)
    assert (row.route, row.ran_at) == (None, ())
    wrapper.rollback()
    wrapper.close()
