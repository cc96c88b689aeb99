"""Looks at the driver's connection: what it tells of itself takes no lease and no round trip."""

from __future__ import annotations

import inspect

import pytest
from django.db import OperationalError, connections, transaction
from testapp.models import Item

from ..support import driver
from ..support.pools import at_rest, stats
from ..support.threads import Thread

psycopg = driver.needs("psycopg", "pipelines and functions of that kind")
pytestmark = pytest.mark.skipif(
    driver.NAME == "psycopg2", reason="functions of psycopg2's take its own connections alone"
)


def select(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


def facts(db):
    select(db)
    return db._runner.facts()


@pytest.fixture
def restored(db, monkeypatch):
    """How often a session was restored."""
    from relet.backends.leases import ending

    select(db)
    restore, seen = ending.restore, []
    monkeypatch.setattr(ending, "restore", lambda *args: seen.append(args) or restore(*args))
    return seen


def look(owner, path):
    for name in path.split("."):
        owner = getattr(owner, name)
    return owner


def test_each_fact_is_told_at_rest_as_in_a_lease(db, restored):
    known = facts(db)
    with db.cursor() as cursor:
        at_rest_values = {path: look(cursor.connection, path) for path in known.values}
        assert stats(db).in_use == 0
    with transaction.atomic():
        select(db)
        with db.cursor() as cursor:
            leased = {path: look(cursor.connection, path) for path in known.values}
        assert db._runner.lease.session is None
    assert at_rest(db)
    differ = {path for path in known.values if at_rest_values[path] != leased[path]}
    # Those that say that there is a transaction.
    assert differ <= {"autocommit", "info.transaction_status", "transaction_status", "status"}
    assert not restored


def test_methods_tell_without_a_lease(db, restored):
    known = facts(db)
    named = ("parameter_status",)
    with db.cursor() as cursor:
        for path in known.methods:
            method = look(cursor.connection, path)
            assert inspect.isroutine(method)
            assert method.__name__ == path.rpartition(".")[2]
            if path.endswith(named):
                assert method("server_version")
                assert method("no such") is None
            else:
                method()
        assert stats(db).in_use == 0
    assert not restored


def test_a_wrapper_s_connection_tells_in_a_transaction(db, restored):
    with transaction.atomic():
        with db.cursor() as cursor:
            assert cursor.connection.autocommit is False
            assert stats(db).in_use == 0  # the transaction has not begun
        raw = db.connection
        assert raw.info.server_version >= 130000
        select(db)
        assert raw.info.server_version >= 130000
        assert int(raw.info.transaction_status) == 2
        assert raw.autocommit is False
    assert raw.autocommit is True
    assert at_rest(db)
    assert not restored


def test_what_uses_it_takes_a_lease_and_is_undone(db, restored):
    with db.cursor() as cursor:
        raw = cursor.connection
        assert at_rest(db)
        driver.execute(raw, "SET app.looked = 'yes'")
        assert stats(db).in_use == 1
    assert at_rest(db)
    assert len(restored) == 1
    with db.cursor() as cursor:
        cursor.execute("SELECT current_setting('app.looked', true)")
        assert cursor.fetchone()[0] in (None, "")


def test_what_is_set_takes_a_lease(db):
    select(db)
    with db.cursor() as cursor:
        raw = cursor.connection
        raw.autocommit = False
        assert stats(db).in_use == 1
        assert raw.autocommit is False
        raw.autocommit = True
    assert at_rest(db)


def test_a_name_that_there_is_not_takes_none(db, restored):
    with db.cursor() as cursor:
        assert not hasattr(cursor.connection, "no_such_thing")
    with transaction.atomic():
        select(db)
        with db.cursor() as cursor:
            assert not hasattr(cursor.connection, "no_such_thing")
        assert db._runner.lease.session is None
    assert at_rest(db)


def test_the_process_of_a_session_is_that_of_a_lease(db, observer):
    with db.cursor() as cursor:
        pid = cursor.connection.info.backend_pid
        assert stats(db).in_use == 1
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone() == (pid,)
    assert at_rest(db)


def test_it_is_an_instance_of_the_driver_s_class(db):
    select(db)
    with db.cursor() as cursor:
        assert isinstance(cursor.connection, driver.Connection)
        assert cursor.connection == cursor.connection
        assert len({cursor.connection, cursor.connection}) == 1
        assert "cursor" in dir(cursor.connection)
        assert "none leased" in repr(cursor.connection)
    assert at_rest(db)


def test_one_that_outlives_its_lease_is_no_stranger_s(db, make):
    first, second = make("shared"), make("shared")
    first.set_autocommit(False)
    select(first)
    kept = first.connection
    first.rollback()
    first.set_autocommit(True)
    second.set_autocommit(False)
    assert select(second) == (1,)  # on the only connection
    with pytest.raises(OperationalError, match="would deadlock"):
        driver.execute(kept, "SELECT 1")
    second.rollback()
    second.set_autocommit(True)
    driver.execute(kept, "SET app.looked = 'late'")
    assert stats(first).in_use == 1
    select(first)
    assert stats(first).in_use == 0


@psycopg
def test_a_pipeline_keeps_the_lease(db):
    db.ensure_connection()
    with db.connection.pipeline():
        with db.cursor() as first, db.cursor() as second:
            first.execute("SELECT 1")
            second.execute("SELECT 2")
            assert stats(db).in_use == 1
            assert (first.fetchone(), second.fetchone()) == ((1,), (2,))
        assert stats(db).in_use == 1
    assert at_rest(db)


@psycopg
@pytest.mark.parametrize("of", ["wrapper", "cursor"])
def test_a_pipeline_that_fails_ends_the_lease(db, of):
    db.ensure_connection()
    with db.cursor() as cursor:
        raw = db.connection if of == "wrapper" else cursor.connection
        with pytest.raises(ZeroDivisionError), raw.pipeline():
            cursor.execute("SELECT 1")
            raise ZeroDivisionError
    assert at_rest(db)
    assert select(db) == (1,)


@psycopg
def test_functions_of_psycopg_s_take_it(db):
    import psycopg
    from psycopg import sql
    from psycopg.types import TypeInfo

    select(db)
    with db.cursor() as cursor:
        raw = cursor.connection
        assert sql.Literal("x").as_string(raw) == "'x'"
        assert TypeInfo.fetch(raw, "text").oid == 25
        assert psycopg.Cursor(raw).execute("SELECT 1").fetchone() == (1,)
        assert psycopg.ClientCursor(raw).mogrify("SELECT %s", ["x"]) == "SELECT 'x'"
    assert at_rest(db)


def test_another_thread_may_look(db):
    select(db)
    with db.cursor() as cursor:
        raw, other = cursor.connection, Thread()
        try:
            assert other(lambda: raw.info.server_version) >= 130000
            with pytest.raises(Exception, match="created in thread"):
                other(lambda: raw.cursor())
        finally:
            other.end()
    assert at_rest(db)


def test_items_are_written_while_it_is_looked_at(db, restored):
    with db.execute_wrapper(watch):
        item = Item.objects.create(name="seen")
        assert Item.objects.get(pk=item.pk).name == "seen"
        item.delete()
    assert at_rest(db)
    assert not restored


def watch(execute, sql, params, many, context):
    cursor = context["cursor"]
    assert cursor.connection.info.server_version
    if (raw := connections["default"].connection) is not None:
        assert raw.info.server_version
    return execute(sql, params, many, context)


# A wrapper that has run nothing yet: that of each new thread, so of each request under ASGI.


@pytest.fixture
def thread():
    thread = Thread()
    yield thread
    thread(lambda: connections["default"].close())
    thread.end()


def is_drivers(db):
    with db.cursor() as cursor:
        return isinstance(cursor.connection, driver.dbapi.Connection)


def test_it_is_a_connection_before_the_first_statement(db, thread):
    db.close_pool()
    assert is_drivers(db)
    assert thread(lambda: is_drivers(connections["default"]))
    assert at_rest(db)


def test_to_ask_what_it_is_raises_nothing(make):
    """Even if there is no connection to be had."""
    wrapper = make("unreachable", HOST="127.0.0.1", PORT="1")
    with wrapper.cursor() as cursor:
        assert not isinstance(cursor.connection, driver.dbapi.Connection)


def test_a_look_of_another_thread_takes_no_lease(db, thread):
    """What the pool knows is known to all."""
    select(db)
    before = stats(db).checkouts

    def version():
        with connections["default"].cursor() as cursor:
            return look(cursor.connection, "info.server_version")

    with transaction.atomic():  # the pool has one connection
        select(db)
        assert thread(version) > 0
    assert stats(db).checkouts == before + 1
