"""``OPTIONS["tag"]``: ``pg_stat_activity`` says where a transaction was begun.

The pool has one connection, and its statements pass by `wire`.
"""

import asyncio
import io
import os
from contextlib import suppress

import pytest
from asgiref.sync import sync_to_async
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connections, transaction
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path

import relet
import relet.adapters
import relet.backends
import relet.core
from relet import hold
from relet.backends import build
from relet.backends.leases import tagging
from relet.backends.testing import audit_session_state
from relet.core import State
from relet.core.application_name import process_name, transaction_name

from ..support import driver, engine
from ..support.driver import Django
from ..support.forks import child_of, needs_fork
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill
from ..support.strikes import STEP, strike_at
from ..support.threads import in_thread

RELET = (relet.core, relet.adapters, relet.backends)
NAME = "SELECT application_name FROM pg_stat_activity WHERE pid = %s"

#: psycopg2 sends its BEGIN by itself.
TOGETHER = driver.NAME != "psycopg2"


@pytest.fixture
def db(make, wire):
    options = {"tag": True}
    wrapper = make("tagged", HOST="127.0.0.1", PORT=str(wire.port), OPTIONS=options)
    connections["tagged"] = wrapper
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    wire.forget()
    yield wrapper
    wrapper.close()
    assert at_rest(wrapper)
    del connections["tagged"]


@pytest.fixture(autouse=True)
def route(monkeypatch):
    """Change the route of the code that runs."""
    routes = ["/orders/<int:pk>/"]
    monkeypatch.setattr(tagging, "current_route", lambda: routes[-1])
    return routes.append


def atomic():
    return transaction.atomic("tagged")


def run(db, sql, params=None):
    with db.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0] if cursor.description else None


def name_of(db):
    return run(db, "SHOW application_name")


def named(route="/orders/<int:pk>/"):
    return transaction_name(route)


def begins(wire):
    return [sql for sql in wire.statements if "BEGIN" in sql]


def test_it_is_there_while_the_transaction_is_idle(db, observer):
    pid = backend_pid(db)
    with atomic():
        run(db, "SELECT 1")
        ((name,),) = observer.execute(NAME, [pid]).fetchall()
        assert name == named() and name.endswith(f":{os.getpid()} /orders/<int:pk>/")
    ((name,),) = observer.execute(NAME, [pid]).fetchall()
    assert name == process_name()


def test_a_rollback_takes_it_back(db):
    with suppress(ZeroDivisionError), atomic():
        assert name_of(db) == named()
        raise ZeroDivisionError
    assert name_of(db) == process_name()


def test_statements_outside_have_none(db, wire):
    assert name_of(db) == process_name()
    assert "SET" not in " ".join(wire.statements)


def test_no_round_trip_more(db, wire):
    with atomic():
        run(db, "SELECT 1")
        run(db, "SELECT 1")
    if TOGETHER:
        assert begins(wire) == [f"BEGIN; SET LOCAL application_name = E'{named()}'"]
    assert wire.round_trips() == (4 if TOGETHER else 5)


def test_savepoints_are_in_the_same_message(db, wire):
    with atomic(), suppress(ZeroDivisionError), atomic():
        assert name_of(db) == named()
        raise ZeroDivisionError
    assert wire.round_trips() == (5 if TOGETHER else 6)  # with ROLLBACK TO, RELEASE and COMMIT
    with atomic():
        with suppress(ZeroDivisionError), atomic():
            run(db, "SELECT 1")
            raise ZeroDivisionError
        assert name_of(db) == named()


def test_without_it_nothing_is_sent(make, wire):
    db = make("tagged", HOST="127.0.0.1", PORT=str(wire.port), OPTIONS={"tag": False})
    connections["tagged"] = db
    try:
        assert type(db._runner) is db.runner_class
        run(db, "SELECT 1")
        wire.forget()
        with atomic():
            run(db, "SELECT 1")
        assert begins(wire) == ["BEGIN"]
        assert not any("application_name" in sql for sql in wire.statements)
    finally:
        del connections["tagged"]


def test_each_transaction_of_a_lease_that_is_kept(db, wire, route):
    with hold("tagged"):
        pid = backend_pid(db)
        for name in "/one/", "/two/":
            route(name)
            with atomic():
                assert name_of(db) == named(name)
                assert backend_pid(db) == pid
            assert name_of(db) == process_name()
    assert at_rest(db)


def test_by_hand(db, route):
    db.set_autocommit(False)
    try:
        for name in "/one/", "/two/":
            route(name)
            assert name_of(db) == named(name)
            db.commit()
        with hold("tagged"):
            for name in "/three/", "/four/":
                route(name)
                assert name_of(db) == named(name)
                db.rollback()
    finally:
        db.set_autocommit(True)
    assert name_of(db) == process_name()


@pytest.mark.parametrize(
    "hostile",
    [
        "'; DROP TABLE testapp_item; --",
        "\\'; SELECT pg_sleep(9); --",
        "%s %(name)s {}",
        "/\0/\n/é/\u2028/",
        "\ud800",
        "$$",
        "/" * 100_000,
        "",
    ],
)
@pytest.mark.parametrize("conforming", ["on", "off"])
def test_any_route(db, wire, route, hostile, conforming):
    route(hostile)
    if conforming == "off" and int(run(db, "SHOW server_version_num")) >= 190000:
        pytest.skip("the server has no standard_conforming_strings = off")
    with hold("tagged"):
        if conforming == "off":
            run(db, "SET standard_conforming_strings = off")
        with atomic():
            assert name_of(db) == named(hostile)
            assert len(named(hostile)) <= 63
        assert name_of(db) == process_name()


class TestModes:
    """What is set on the connection, or by the first statement, is so."""

    def test_isolation_level_of_the_settings(self, make):
        from django.db.backends.postgresql.psycopg_any import IsolationLevel

        options = {"tag": True, "isolation_level": IsolationLevel.SERIALIZABLE}
        connections["tagged"] = db = make("tagged", OPTIONS=options)
        try:
            with atomic():
                assert run(db, "SHOW transaction_isolation") == "serializable"
                assert name_of(db) == named()
        finally:
            del connections["tagged"]

    def test_first_statement(self, db):
        with atomic():
            run(db, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE")
            assert name_of(db) == named()
            assert run(db, "SHOW transaction_isolation") == "serializable"
            assert run(db, "SHOW transaction_read_only") == "on"
            assert run(db, "SHOW transaction_deferrable") == "on"

    @pytest.mark.skipif(not TOGETHER, reason="psycopg2 has other names for them")
    @pytest.mark.parametrize("value", [True, False, None])
    def test_on_the_drivers_connection(self, db, value):
        with atomic():
            raw = db.connection.cursor().connection
            raw.isolation_level, raw.read_only, raw.deferrable = 3 if value else None, value, value
            assert name_of(db) == named()
            isolation = "repeatable read" if value else "read committed"
            assert run(db, "SHOW transaction_isolation") == isolation
            assert run(db, "SHOW transaction_read_only") == ("on" if value else "off")
            assert run(db, "SHOW transaction_deferrable") == ("on" if value else "off")


class TestFirst:
    """Whatever the first statement of the transaction is, on a new lease and a kept one."""

    @pytest.fixture(params=["new", "kept"], autouse=True)
    def lease(self, request, db):
        if request.param == "new":
            yield
        else:
            with hold("tagged"):
                run(db, "SELECT 1")
                yield

    def test_executemany(self, db):
        with atomic():
            with db.cursor() as cursor:
                cursor.executemany("SELECT %s", [[1], [2]])
            assert name_of(db) == named()

    def test_callproc(self, db):
        with atomic():
            with db.cursor() as cursor:
                cursor.callproc("pg_backend_pid")
            assert name_of(db) == named()

    def test_server_side_cursor(self, db):
        with atomic():
            with db.chunked_cursor() as cursor:
                cursor.execute("SELECT current_setting('application_name')")
                assert cursor.fetchone() == (named(),)
            assert run(db, "SELECT count(*) FROM pg_cursors WHERE is_holdable") == 0

    @driver.needs("psycopg", "stream()")
    def test_stream(self, db):
        with atomic(), db.cursor() as cursor:
            rows = cursor.stream("SELECT current_setting('application_name')")
            assert list(rows) == [(named(),)]

    @driver.needs("psycopg", "copy()")
    def test_copy(self, db):
        sql = "COPY (SELECT current_setting('application_name')) TO STDOUT"
        with atomic(), db.cursor() as cursor, cursor.copy(sql) as copy:
            assert list(copy.rows()) == [(named(),)]

    @driver.needs("psycopg", "pipelines")
    def test_in_a_pipeline(self, db):
        with atomic(), db.cursor() as cursor:
            with cursor.connection.pipeline():
                cursor.execute("SELECT current_setting('application_name')")
                assert cursor.fetchone() == (named(),)
            assert name_of(db) == named()

    def test_setting(self, db):
        with atomic():
            run(db, "SET LOCAL work_mem = '1MB'")
            assert name_of(db) == named()


def test_it_is_no_session_state(db):
    pid = backend_pid(db)
    with atomic():
        name_of(db)
        assert db._runner.lease.session is None
    assert at_rest(db)
    assert backend_pid(db) == pid


@pytest.fixture
def hidden(observer):
    """A function whose text does not show that it changes a setting."""
    observer.execute(
        "CREATE FUNCTION relet_hidden() RETURNS text LANGUAGE sql AS "
        "$$ SELECT set_config('work_mem', '1MB', false) $$"
    )
    yield
    observer.execute("DROP FUNCTION relet_hidden()")


@pytest.mark.usefixtures("hidden", "blind")
@pytest.mark.parametrize("in_test", [False, True], ids=["committed", "in a test"])
def test_the_audit_of_session_state_knows_it(db, in_test):
    """A transaction of Django's TestCase is rolled back in the end, so it is asked in between."""
    block = atomic()
    block._from_testcase = in_test
    with audit_session_state() as audit:
        with block:
            run(db, "SELECT count(*) FROM testapp_item")
            run(db, "SELECT 1")
            if in_test:
                assert audit.rows == ()
        assert audit.rows == ()
        with block:  # another setting is found
            run(db, "SELECT relet_hidden()")
            if in_test:
                assert [row.name for row in audit.rows] == ["work_mem"]
        assert [row.name for row in audit.rows] == ["work_mem"]


def test_a_name_that_is_set_outlasts_it(db):
    """SET is the user's: it counts from then on, and is undone like any other."""
    with atomic():
        run(db, "SET application_name = 'mine'")
        assert name_of(db) == "mine"
    assert name_of(db) == "mine"
    with atomic():
        assert name_of(db) == named()
    assert name_of(db) == "mine"
    db.close()
    assert name_of(db) == process_name()


def test_begin_fails(db, observer):
    """The server has ended the session: the error is Django's, and the next one works."""
    with hold("tagged"):
        kill(observer, backend_pid(db))
        with pytest.raises(DatabaseError), atomic():
            name_of(db)
    db.close()
    with atomic():
        assert name_of(db) == named()


def test_a_failed_transaction(db):
    with pytest.raises(DatabaseError), atomic():
        run(db, "SELECT 1/0")
    assert at_rest(db)
    assert name_of(db) == process_name()


@needs_fork
def test_a_child_says_that_it_is_another(db):
    with atomic():
        before = name_of(db)
    other = db.copy("child")

    def child():
        connections["tagged"] = other
        with atomic():
            assert name_of(other) == named() != before
        other.close()
        other.close_pool()

    assert child_of(child) == 0
    with atomic():
        assert name_of(db) == before


def test_in_asyncio(db):
    @sync_to_async
    def work():
        with atomic():
            return name_of(connections["tagged"])

    async def main():
        return await asyncio.gather(*(work() for _ in range(3)))

    db.inc_thread_sharing()
    names = []
    try:
        connections["tagged"] = db
        names = asyncio.run(_shared(main, db))
    finally:
        db.dec_thread_sharing()
    assert names == [named()] * 3


async def _shared(main, db):
    # asgiref runs each in one thread, which has connections of its own.
    await sync_to_async(lambda: connections.__setitem__("tagged", db))()
    return await main()


class EveryCursor(Django):
    """As django-tenants does: its SET is to outlast the transaction."""

    def _cursor(self, name=None):
        cursor = super()._cursor(name)
        if name is None:
            cursor.execute("SET search_path = pg_catalog, public")
        return cursor


def test_over_a_backend_that_sets_what_is_replayed(db, wire):
    kind = build(engine.NAME, base=EveryCursor)
    connections["tagged"] = other = kind(db.settings_dict, "over")
    db.close_pool()
    try:
        for _ in range(2):
            with atomic():
                assert name_of(other) == named()
                assert run(other, "SHOW search_path") == "pg_catalog, public"
        assert stats(other).in_use == 0
        # It is made once, and before the transaction, whose end would take it back.
        assert "".join(wire.statements).count("SET search_path") == 1
    finally:
        other.close()
        other.close_pool()
        connections["tagged"] = db


@pytest.mark.parametrize("value", [True, False])
def test_checks_accept(make, value):
    connections["tagged"] = make("tagged", OPTIONS={"tag": value})
    try:
        assert run_checks(tags=["relet"]) == []
    finally:
        del connections["tagged"]


@pytest.mark.parametrize("value", ["True", "", None, 1, 0, ["/"], lambda: "/"])
def test_checks_refuse(make, value):
    wrapper = make("tagged", OPTIONS={"tag": value})
    connections["tagged"] = wrapper
    says = r"DATABASES\['tagged'\]\['OPTIONS'\]\['tag'\]: it is .*; it must be True or False\."
    try:
        settings = connections.settings
        settings["tagged"] = wrapper.settings_dict
        (found,) = run_checks(tags=["relet"])
        assert found.id == "relet.E010"
        with pytest.raises(ImproperlyConfigured, match=says):
            wrapper.ensure_connection()
    finally:
        del connections["tagged"], settings["tagged"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kept", [False, True])
def test_i15_at_each_instruction(db, kept):
    """An exception from outside, at any instruction, loses and leaks nothing."""

    def work():
        if kept:
            run(db, "SET app.struck = 'yes'")
        with atomic(), atomic():
            run(db, "SELECT 1")

    work()
    number = 1
    while strike_at(number, work, RELET):
        db.close()
        lease = db._runner.lease
        assert (lease.state, lease.connection, lease.pins) == (State.RELEASED, None, {}), number
        assert db._runner.pending_savepoints == [], number
        assert name_of(db) == process_name(), number
        db.close()
        assert (stats(db).in_use, stats(db).waiting) == (0, 0), number
        number += STEP * (5 if STEP > 1 else 1)
    assert number > 1


class TestRoutes:
    """The route is the one that reports have, whether or not they note any."""

    @pytest.fixture(params=[True, {"routes": False}, False], autouse=True)
    def observe(self, request, make, monkeypatch):
        monkeypatch.undo()  # the route of the other tests
        options = {"tag": True, "observe": request.param}
        connections["tagged"] = db = make("tagged", OPTIONS=options)
        name_of(db)
        yield
        del connections["tagged"]

    def name(self, *args, **kwargs):
        with atomic():
            return HttpResponse(name_of(connections["tagged"]))

    def test_of_a_request(self):
        class Urls:
            urlpatterns = (path("orders/<int:pk>/", self.name),)

        with override_settings(ROOT_URLCONF=Urls, MIDDLEWARE=[], ALLOWED_HOSTS=["*"]):
            answer = Client().get("/orders/4711/").content.decode()
        assert answer == named("/orders/<int:pk>/") and "4711" not in answer

    def test_of_a_label(self):
        with relet.label("import"):
            assert self.name().content.decode() == named("import")

    def test_of_a_command(self):
        name = self.name

        class Command(BaseCommand):
            def handle(self, *args, **options):
                return name().content.decode()

        Command.__module__ = "shop.management.commands.ship"
        out = io.StringIO()
        call_command(Command(), stdout=out)
        assert out.getvalue().strip() == named("manage.py ship")

    def test_of_a_thread(self):
        db = connections["tagged"]

        def work():
            connections["tagged"] = other = db.copy()
            try:
                return self.name().content.decode()
            finally:
                other.close()

        assert in_thread(work).startswith(named("(thread Thread-N"))
