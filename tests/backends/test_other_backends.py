"""`build()` over a backend that sets the ``search_path`` for every cursor, as django-tenants does.

Each tenant has a schema with a table ``item``, which has its name in it, and so has ``public``.
The pool has one connection.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.db import DatabaseError, ProgrammingError, connections, transaction
from django.db.backends.signals import connection_created

import relet
from relet.backends import build
from relet.backends.compat import tracked_settings
from relet.backends.leases import session_rules as session_state

from ..support import engine
from ..support.driver import Django, execute
from ..support.pools import at_rest, backend_pid, borrowed, stats
from ..support.sessions import kill

TENANTS = ("red", "blue")
PROJECT = Path(__file__).with_name("tenants_project")


class EveryCursor(Django):
    """As plain as can be."""

    tenant = None

    def _cursor(self, name=None):
        cursor = super()._cursor(name)
        if self.tenant and name is None:
            self.set_path(cursor)
        elif self.tenant:
            # As django-tenants does: the server-side cursor is to run something else.
            with self.connection.cursor() as other:
                self.set_path(other)
        return cursor

    def set_path(self, cursor):
        cursor.execute(f"SET search_path = {self.tenant}, public")


class WithParameters(EveryCursor):
    def set_path(self, cursor):
        cursor.execute("SELECT set_config('search_path', %s, false)", [f"{self.tenant}, public"])


class OtherCursor(Django):
    """The path is set by a cursor of its own, as django-tenants 3 does with psycopg 3."""

    tenant = None

    def _cursor(self, name=None):
        cursor = super()._cursor(name)
        if self.tenant:
            with self.connection.cursor() as other:
                other.execute("SELECT set_config('search_path', %s, false)", [self.tenant])
        return cursor


class Resetting(EveryCursor):
    """It resets the path where there is no tenant."""

    def _cursor(self, name=None):
        cursor = super()._cursor(name)
        if not self.tenant:
            cursor.execute("RESET search_path")
        return cursor


class WhenChanged(EveryCursor):
    """As django-tenants with TENANT_LIMIT_SET_CALLS."""

    known = None

    def set_path(self, cursor):
        if self.known != self.tenant:
            super().set_path(cursor)
            self.known = self.tenant

    def close(self):
        self.known = None
        super().close()


class DriversCursor(Django):
    """It sets the path on the driver's cursor."""

    tenant = None

    def create_cursor(self, name=None):
        cursor = super().create_cursor(name)
        if self.tenant and name is None:
            cursor.execute(f"SET search_path = {self.tenant}, public")
        return cursor


CARRIED = (EveryCursor, WithParameters, OtherCursor, Resetting, WhenChanged)
ALL = (*CARRIED, DriversCursor)


@pytest.fixture
def schemas(observer):
    for schema in (*TENANTS, "public"):
        observer.execute(
            f"CREATE SCHEMA IF NOT EXISTS {schema};"
            f"CREATE TABLE {schema}.item AS SELECT '{schema}' AS name, false AS written"
        )
    yield
    observer.execute("DROP SCHEMA red, blue CASCADE; DROP TABLE public.item")


@pytest.fixture
def over(make, schemas):
    """Make a wrapper over a backend, for a tenant; all of them share a pool."""
    made = []

    def over(backend, tenant=None, **settings):
        template = make("tenants", **settings)
        wrapper = build(engine.NAME, base=backend)(template.settings_dict, "tenants")
        wrapper.tenant = tenant
        made.append(wrapper)
        return wrapper

    yield over
    for wrapper in made:
        wrapper.close()
        assert at_rest(wrapper)


def ask(wrapper, sql="SELECT name FROM item"):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def path(wrapper):
    return ask(wrapper, "SHOW search_path")


# Whose tables a statement sees.


@pytest.mark.parametrize("backend", ALL)
def test_each_wrapper_sees_its_tenant_and_none_sees_another(over, backend):
    red, blue, nobody = over(backend, "red"), over(backend, "blue"), over(backend)
    for _ in range(3):
        for wrapper, name in (red, "red"), (nobody, "public"), (blue, "blue"), (red, "red"):
            assert ask(wrapper) == name
            assert at_rest(wrapper)
    assert stats(red).size == 1


@pytest.mark.parametrize("backend", ALL)
def test_a_cursor_that_is_used_again_sees_its_tenant(over, backend):
    red, blue = over(backend, "red"), over(backend, "blue")
    with red.cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT name FROM item")
            assert cursor.fetchone() == ("red",)
            assert ask(blue) == "blue"


def raw_path(wrapper):
    """The path of the connection that is handed out."""
    with wrapper.connection.cursor() as cursor:
        cursor.execute("SHOW search_path")
        return cursor.fetchone()[0]


@pytest.mark.parametrize("backend", CARRIED)
@pytest.mark.parametrize("by", ["connect", "ensure_connection"])
def test_a_connection_that_is_handed_out_has_no_other_tenant(over, backend, by):
    red, blue, nobody = over(backend, "red"), over(backend, "blue"), over(backend)
    assert ask(blue) == "blue"
    getattr(nobody, by)()
    assert "blue" not in raw_path(nobody)
    nobody.close()
    assert ask(red) == "red"
    assert ask(blue) == "blue"
    getattr(red, by)()
    # What red's cursors have set goes with it, until close().
    assert "red" in raw_path(red)
    red.close()
    assert ask(blue) == "blue"
    getattr(red, by)()
    assert "blue" not in raw_path(red)


@pytest.mark.parametrize("backend", [EveryCursor, WhenChanged])
def test_a_connection_that_is_held_has_the_tenant_of_the_last_cursor(over, backend):
    red, blue = over(backend, "red"), over(backend, "blue")
    red.hold()
    assert ask(red) == "red"
    red.tenant = "blue"
    assert ask(red) == "blue"
    red.tenant = "red"
    red.cursor().close()
    assert "red" in raw_path(red)
    red.release_hold()
    red.close()
    assert ask(blue) == "blue"


@pytest.mark.parametrize("backend", CARRIED)
def test_a_cursor_from_before_close_has_its_tenant(over, backend):
    """Else what it writes would land in another schema, and nobody would know."""
    red, blue = over(backend, "red"), over(backend, "blue")
    cursor = red.cursor()
    cursor.execute("SELECT name FROM item")
    red.close()
    assert ask(blue) == "blue"
    cursor.execute("SELECT name FROM item")
    assert cursor.fetchone() == ("red",)
    red.tenant = None
    assert ask(red) == "public"


def test_what_is_carried_is_made_in_order(over):
    class Several(EveryCursor):
        def set_path(self, cursor):
            both = "SELECT set_config('a.b', %s, false), set_config('c.d', %s, false)"
            cursor.execute(both, ["first", "first"])
            cursor.execute("SET c.d = 'second'")

    red, blue = over(Several, "red"), over(EveryCursor, "blue")
    for _ in range(2):
        assert ask(red, "SELECT current_setting('a.b')") == "first"
        assert ask(red, "SELECT current_setting('c.d')") == "second"
        assert ask(blue) == "blue"


def test_what_sets_nothing_that_lasts_is_not_carried(over):
    class Local(EveryCursor):
        def set_path(self, cursor):
            cursor.execute("SELECT set_config('shop.tenant', %s, %s)", [self.tenant, True])
            self.seen = cursor.fetchone()

    wrapper = over(Local, "red")
    with wrapper.cursor():
        assert wrapper.seen == ("red",)


@pytest.mark.slow
@pytest.mark.parametrize("release", ["statement", "cursor", "request"])
@pytest.mark.parametrize("session_state", ["pin", "reset", "error", "ignore"])
@pytest.mark.parametrize("backend", CARRIED)
def test_under_every_policy(over, backend, session_state, release):
    policy = {"release": release, "session_state": session_state}
    wrappers = [over(backend, name, policy=policy) for name in (*TENANTS, None)]
    for _ in range(2):
        for wrapper in wrappers:
            assert ask(wrapper) == (wrapper.tenant or "public")
            wrapper.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ALL)
def test_threads(over, backend):
    wrong, wrapper = [], over(backend)
    ask(wrapper)  # so it keeps the pool, which the copies leave when their threads end

    def work(tenant):
        mine = wrapper.copy()
        mine.tenant = tenant
        for turn in range(60):
            if ask(mine, "SELECT name, pg_sleep(0.0005) FROM item") != (tenant or "public"):
                wrong.append((tenant, turn))
            if turn % 10 == 9:
                mine.close()

    threads = [threading.Thread(target=work, args=[name]) for name in (*TENANTS, "red", None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert stats(wrapper).size == 1


# What it costs.


@pytest.fixture
def set_for(monkeypatch):
    """The tenants that a path was set for, each time that it was."""
    found = []
    make = tracked_settings.ReplayingRunner._set

    def counted(self, *args):
        found.append(self.host.tenant)
        make(self, *args)

    monkeypatch.setattr(tracked_settings.ReplayingRunner, "_set", counted)
    return found


@pytest.mark.parametrize("backend", CARRIED)
def test_the_path_is_set_when_it_is_another_and_only_then(over, backend, set_for):
    red, blue = over(backend, "red"), over(backend, "blue")
    for wrapper in red, red, red, blue, blue, red:
        ask(wrapper)
    assert set_for == ["red", "blue", "red"]


@pytest.mark.parametrize("backend", ALL)
def test_it_is_no_session_state(over, backend, caplog, recwarn):
    red = over(backend, "red")
    ask(red)
    assert at_rest(red)
    assert caplog.records == []


# Within a transaction.


@pytest.fixture
def atomic():
    """`transaction.atomic`, for wrappers that are not in settings."""
    before = connections["default"]

    def atomic(wrapper):
        connections["tenants"] = wrapper
        return transaction.atomic("tenants")

    yield atomic
    assert connections["default"] is before
    del connections["tenants"]


class Undone(Exception):
    pass


@pytest.mark.parametrize("backend", ALL)
def test_a_transaction_that_is_rolled_back(over, atomic, backend):
    red, blue = over(backend, "red"), over(backend, "blue")
    for _ in range(2):
        with pytest.raises(Undone), atomic(red):
            assert ask(red) == "red"
            raise Undone
        assert ask(red) == "red"
        with pytest.raises(Undone), atomic(red), atomic(red):
            assert ask(red) == "red"
            raise Undone
        assert ask(blue) == "blue"
        with atomic(red):
            assert ask(red) == "red"
        assert ask(red) == "red"
        assert at_rest(red)


@pytest.mark.parametrize("backend", CARRIED)
def test_the_path_is_set_before_the_transaction(over, atomic, backend, set_for):
    """So ROLLBACK does not take it back, and it need not be set again."""
    red = over(backend, "red")
    with pytest.raises(Undone), atomic(red), atomic(red):
        ask(red)
        ask(red)
        raise Undone
    assert ask(red) == "red"
    assert set_for == ["red"]


@pytest.mark.skipif(bool(engine.adapter().cannot_prepare()), reason="the engine cannot prepare")
@pytest.mark.parametrize("backend", CARRIED)
def test_each_tenant_has_plans_of_its_own(over, atomic, backend, observer):
    """A plan for the tables of one tenant is no good for those of another that differ."""
    observer.execute("ALTER TABLE blue.item ALTER written TYPE text, ADD size int")
    eager = {"OPTIONS": {"prepare": {"mode": "auto", "after": 0}}}
    red, blue = over(backend, "red", **eager), over(backend, "blue", **eager)
    for _ in range(4):
        for wrapper, found in ((red, ("red", False)), (blue, ("blue", "false", None))):
            for inside in (nullcontext(), atomic(wrapper)):
                with inside, wrapper.cursor() as cursor:
                    cursor.execute("SELECT * FROM item WHERE name = %s", [wrapper.tenant])
                    assert cursor.fetchone() == found
    (row,) = [row for row in relet.plans("tenants").rows if "item" in row.sql]
    assert (row.hits, row.healed, row.problem) == (16, 0, "")


@pytest.mark.parametrize("backend", ALL)
def test_the_tenant_changes_within_a_transaction(over, atomic, backend):
    wrapper, blue, nobody = over(backend, "red"), over(backend, "blue"), over(backend)
    with atomic(wrapper):
        assert ask(wrapper) == "red"
        wrapper.tenant = "blue"
        assert ask(wrapper) == "blue"
        with pytest.raises(Undone), atomic(wrapper):
            wrapper.tenant = "red"
            assert ask(wrapper) == "red"
            raise Undone
        assert ask(wrapper) == "red"
        wrapper.tenant = "blue"
        assert ask(wrapper) == "blue"
        wrapper.tenant = "red"
        with pytest.raises(Undone), atomic(wrapper):
            assert ask(wrapper) == "red"
            raise Undone
        assert ask(wrapper) == "red"
    assert ask(nobody) == "public"
    assert ask(wrapper) == "red"
    assert ask(blue) == "blue"
    assert ask(nobody) == "public"


@pytest.mark.parametrize("backend", ALL)
def test_the_tenant_changes_within_a_transaction_that_is_rolled_back(over, atomic, backend):
    wrapper, red = over(backend, "red"), over(backend, "red")
    with pytest.raises(Undone), atomic(wrapper):
        assert ask(wrapper) == "red"
        wrapper.tenant = "blue"
        assert ask(wrapper) == "blue"
        raise Undone
    assert ask(wrapper) == "blue"
    assert ask(red) == "red"


@pytest.mark.parametrize("backend", CARRIED)
def test_an_error_within_a_transaction(over, atomic, backend):
    wrapper = over(backend, "red")
    with atomic(wrapper):
        ask(wrapper)
        wrapper.tenant = "blue"
        with pytest.raises(ProgrammingError), atomic(wrapper):
            ask(wrapper, "SELECT nothing FROM nowhere")
        assert ask(wrapper) == "blue"
    assert ask(wrapper) == "blue"


@pytest.mark.parametrize("backend", CARRIED)
def test_without_autocommit(over, backend):
    red, nobody = over(backend, "red"), over(backend)
    red.set_autocommit(False)
    for end in red.rollback, red.commit, red.rollback:
        assert ask(red) == "red"
        ask(red, "UPDATE item SET written = true RETURNING name")
        end()
        assert ask(nobody) == "public"
    red.set_autocommit(True)
    assert ask(red, "SELECT written FROM item")
    assert not ask(nobody, "SELECT written FROM item")


@pytest.mark.parametrize("backend", CARRIED)
def test_without_autocommit_while_the_lease_goes_on(over, backend):
    wrapper = over(backend, "red", policy={"release": "request"})
    wrapper.set_autocommit(False)
    for tenant in "red", "blue", "red":
        wrapper.tenant = tenant
        assert ask(wrapper, "UPDATE item SET written = true RETURNING name") == tenant
        wrapper.rollback()
        assert ask(wrapper) == tenant
        assert not ask(wrapper, "SELECT written FROM item")
        wrapper.commit()


# Other things that happen to sessions.


def test_a_wrapper_that_threads_share(over):
    """What another runs while the backend makes a cursor is not taken for the backend's."""

    class Slow(EveryCursor):
        def set_path(self, cursor):
            super().set_path(cursor)
            making.set()
            go_on.wait(5)

    making, go_on = threading.Event(), threading.Event()
    go_on.set()
    wrapper = over(Slow, "red")
    wrapper.inc_thread_sharing()
    cursor = wrapper.cursor()
    making.clear()
    go_on.clear()
    maker = threading.Thread(target=lambda: wrapper.cursor().close())
    other = threading.Thread(target=lambda: cursor.execute("SET work_mem = '1MB'"))
    maker.start()
    making.wait(5)
    other.start()
    other.join(0.2)
    go_on.set()
    maker.join()
    other.join()
    cursor.execute("SHOW work_mem")
    assert cursor.fetchone() == ("1MB",)
    assert not at_rest(wrapper)
    wrapper.dec_thread_sharing()


@pytest.mark.parametrize("backend", ALL)
def test_a_connection_that_is_lost(over, backend, observer):
    red = over(backend, "red")
    kill(observer, backend_pid(red))
    with pytest.raises(DatabaseError):
        ask(red)
    assert ask(red) == "red"


@pytest.mark.parametrize("backend", CARRIED)
def test_a_connection_that_is_lost_under_a_cursor(over, backend, observer):
    red = over(backend, "red")
    with red.cursor() as cursor:
        kill(observer, backend_pid(red))
        for _ in range(2):
            with suppress(DatabaseError):
                cursor.execute("SELECT name FROM item")
        assert cursor.fetchone() == ("red",)


@pytest.mark.parametrize("sql", ["RESET ALL", "DISCARD ALL", "SET search_path TO DEFAULT"])
@pytest.mark.parametrize("backend", CARRIED)
def test_sql_that_resets_the_path(over, backend, sql):
    red = over(backend, "red")
    ask(red)
    with red.cursor() as cursor:
        cursor.execute(sql)
        cursor.execute("SELECT name FROM item")
        assert cursor.fetchone() == ("red",)


@pytest.mark.parametrize("session_state", ["pin", "reset", "ignore"])
@pytest.mark.parametrize("backend", CARRIED)
def test_sql_that_sets_the_path(over, backend, session_state):
    """It is the user's: it holds as long as the policy says, and not for others."""
    red = over(backend, "red", policy={"session_state": session_state})
    ask(red)
    with red.cursor() as cursor:
        cursor.execute("SET search_path = blue")
        cursor.execute("SELECT name FROM item")
        assert cursor.fetchone() == (("blue",) if session_state == "pin" else ("red",))
    red.close()
    assert ask(over(backend, "red")) == "red"
    assert ask(over(backend)) == "public"


@pytest.mark.parametrize("backend", CARRIED)
def test_session_state_of_another_kind(over, backend):
    red, blue = over(backend, "red"), over(backend, "blue")
    ask(red)
    with red.cursor() as cursor:
        cursor.execute("SET work_mem = '1MB'")
        assert not at_rest(red)
        cursor.execute("SELECT name FROM item")
        assert cursor.fetchone() == ("red",)
    red.close()
    assert ask(red) == "red"
    assert ask(blue) == "blue"


@pytest.mark.parametrize("backend", CARRIED)
def test_a_connection_that_other_code_has_borrowed(over, backend):
    """It comes back without the path that it had."""
    red = over(backend, "red")
    assert ask(red) == "red"
    for _ in range(2):
        with borrowed(red):
            pass
        assert ask(red) == "red"
    with borrowed(red) as raw:
        execute(raw, "SET search_path = blue")
    assert ask(red) == "red"
    assert stats(red).size == 1


@pytest.mark.parametrize("backend", ALL)
def test_hold(over, backend):
    red, blue = over(backend, "red"), over(backend, "blue")
    red.hold()
    assert ask(red) == "red"
    red.release_hold()
    assert ask(red) == "red"
    assert ask(blue) == "blue"


@pytest.mark.parametrize("backend", CARRIED)
def test_server_side_cursors(over, atomic, backend):
    red, blue = over(backend, "red"), over(backend, "blue")
    for wrapper, name in (red, "red"), (blue, "blue"):
        cursor = wrapper.chunked_cursor()
        with cursor:
            cursor.execute("SELECT name FROM item")
            assert cursor.fetchone() == (name,)
        assert at_rest(wrapper)
    with atomic(red), red.chunked_cursor() as cursor:
        cursor.execute("SELECT name FROM item")
        assert cursor.fetchone() == ("red",)


@pytest.mark.parametrize("backend", CARRIED)
def test_cursors_that_are_exposed(over, backend):
    """What is done with the driver's cursor or connection is in the tenant's session, too."""
    red = over(backend, "red")
    ask(over(backend, "blue"))
    with red.cursor() as cursor:
        raw = cursor.connection.cursor()
        raw.execute("SELECT name FROM item")
        assert raw.fetchone() == ("red",)


@pytest.mark.parametrize("backend", CARRIED)
def test_what_receivers_of_connection_created_find_is_no_tenants(over, backend):
    found = []

    def receiver(connection, **kwargs):
        found.append(path(connection))

    connection_created.connect(receiver)
    try:
        red, nobody = over(backend, "red"), over(backend)
        assert ask(red) == "red"
        assert ask(nobody) == "public"
    finally:
        connection_created.disconnect(receiver)
    assert found == ['"$user", public']
    assert path(nobody) == '"$user", public'


@pytest.mark.parametrize("backend", CARRIED)
def test_a_path_of_the_settings_is_what_a_wrapper_without_tenant_has(over, backend):
    options = {"OPTIONS": {"options": "-c search_path=blue"}}
    red, nobody = over(backend, "red", **options), over(backend, **options)
    for _ in range(2):
        assert ask(red) == "red"
        assert ask(nobody) == "blue"


def test_a_backend_that_looks_first(over):
    """Statements that set nothing run at once."""

    class Looking(EveryCursor):
        def set_path(self, cursor):
            cursor.execute("SHOW search_path")
            if cursor.fetchone()[0] != f"{self.tenant}, public":
                super().set_path(cursor)

    def receiver(connection, **kwargs):
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '12345ms'")

    connection_created.connect(receiver)
    try:
        red, nobody = over(Looking, "red"), over(Looking)
        for _ in range(2):
            for wrapper in red, nobody:
                assert ask(wrapper) == (wrapper.tenant or "public")
                assert ask(wrapper, "SHOW statement_timeout") == "12345ms"
                wrapper.close()
    finally:
        connection_created.disconnect(receiver)


@pytest.mark.parametrize(
    "sql",
    [
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET ROLE relet_role",
        "SELECT set_config('search_path', 'red', false), pg_advisory_lock(1)",
        "SET search_path = red; SELECT 1",
        "RESET ALL",
    ],
)
def test_what_is_more_than_a_setting_is_session_state(over, observer, sql):
    observer.execute("DROP ROLE IF EXISTS relet_role; CREATE ROLE relet_role")

    class Other(EveryCursor):
        def set_path(self, cursor):
            cursor.execute(sql)

    wrapper, nobody = over(Other, "red"), over(Other)
    before = path(nobody)
    with wrapper.cursor():
        assert wrapper._runner.tracked == ()
    wrapper.close()
    assert path(nobody) == before
    assert ask(nobody, "SHOW default_transaction_read_only") == "off"
    assert ask(nobody, "SELECT current_setting('role')") == "none"
    assert ask(nobody, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


def test_settings_that_are_made_together(over):
    class Two(EveryCursor):
        both = True

        def set_path(self, cursor):
            super().set_path(cursor)
            if self.both:
                cursor.execute(
                    "SELECT set_config('relet.a', 'a', false), set_config('relet.b', 'b', false)"
                )
            else:
                cursor.execute("SET relet.b = 'c'")

    wrapper, nobody = over(Two, "red"), over(Two)
    a, b = "SELECT current_setting('relet.a', true)", "SELECT current_setting('relet.b', true)"
    for _ in range(2):
        assert (ask(wrapper, a), ask(wrapper, b)) == ("a", "b")
        wrapper.close()
        assert not (ask(nobody, a) or ask(nobody, b))
        wrapper.both = False
        assert not ask(wrapper, a)
        assert ask(wrapper, b) == "c"
        wrapper.both = True
        assert (ask(wrapper, a), ask(wrapper, b)) == ("a", "b")
        wrapper.both = False
        assert (ask(wrapper, a), ask(wrapper, b)) == ("a", "c")
        wrapper.close()
        wrapper.both = True


@pytest.mark.parametrize("backend", CARRIED)
def test_a_path_of_a_receiver_is_what_a_wrapper_without_tenant_has(over, backend):
    def receiver(connection, **kwargs):
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = blue")

    connection_created.connect(receiver)
    try:
        red, nobody = over(backend, "red"), over(backend)
        for _ in range(2):
            assert ask(red) == "red"
            assert ask(nobody) == ("public" if backend is Resetting else "blue")
    finally:
        connection_created.disconnect(receiver)


@pytest.mark.parametrize("backend", CARRIED)
def test_close_ends_it_as_in_django(over, backend):
    wrapper = over(backend, "red")
    assert ask(wrapper) == "red"
    wrapper.close()
    wrapper.tenant = None
    assert ask(wrapper) == "public"


def test_a_path_that_is_none_is_an_error_of_the_statement(over):
    red, bad = over(EveryCursor, "red"), over(EveryCursor, "'")
    for _ in range(2):
        with pytest.raises(ProgrammingError):
            ask(bad)
        assert at_rest(bad)
        bad.close()
        assert ask(red) == "red"


def test_such_an_error_leaves_no_lease_behind(over):
    bad = over(EveryCursor, "'", policy={"release": "cursor"})
    with pytest.raises(ProgrammingError):
        ask(bad)
    assert at_rest(bad)
    with bad.cursor() as cursor:
        with pytest.raises(Exception, match="unterminated"), cursor.copy("COPY item TO STDOUT"):
            pass
        assert at_rest(bad)


# How classes are built.


def test_methods_of_the_backend_come_first_and_super_is_relets(over, observer):
    calls = []

    class Backend(Django):
        tenant = None

        def connect(self):
            calls.append("connect")
            super().connect()

        def close(self):
            calls.append("close")
            super().close()

        def make_cursor(self, cursor):
            calls.append("make_cursor")
            return super().make_cursor(cursor)

    wrapper = over(Backend)
    pid = backend_pid(wrapper)
    assert at_rest(wrapper)
    assert "make_cursor" in calls
    assert "connect" in calls
    kill(observer, pid)
    with pytest.raises(DatabaseError):
        ask(wrapper)
    calls.clear()
    ask(wrapper)  # on a connection that is new
    assert calls == ["make_cursor", "connect"]
    wrapper.close()
    assert calls[-1] == "close"


def test_what_a_subclass_does_to_cursors_is_session_state(over, caplog, monkeypatch):
    monkeypatch.setattr(session_state, "_logged", set())

    class Above(build(engine.NAME)):
        def _cursor(self, name=None):
            cursor = super()._cursor(name)
            cursor.execute("SET search_path = red")
            return cursor

    wrapper = Above(over(Django).settings_dict, "tenants")
    assert ask(wrapper) == "red"
    assert not at_rest(wrapper)
    assert "search_path" in caplog.text
    wrapper.close()
    assert ask(over(Django)) == "public"


def test_a_backend_that_makes_no_cursors_costs_nothing():
    from relet.backends.compat.tracked_settings import SettingsReplay

    class Backend(Django):
        pass

    assert not issubclass(build(engine.NAME, base=Backend), SettingsReplay)
    assert not issubclass(build(engine.NAME), SettingsReplay)


def test_djangos_own_backend_as_the_base():
    assert build(engine.NAME, base=engine.backend()).__mro__[2:] == (build(engine.NAME).__mro__[2:])


# django-tenants itself.


@pytest.mark.skipif(find_spec("django_tenants") is None, reason="django-tenants is not installed")
@pytest.mark.parametrize("limit", [False, True], ids=["each cursor", "when changed"])
def test_django_tenants(database, limit):
    """In a process of its own, for it wants settings of its own."""
    default = connections["default"].settings_dict
    keys = ("NAME", "USER", "PASSWORD", "HOST", "PORT", engine.adapter().options_setting[0])
    told = {"DATABASE": {key: default[key] for key in keys}, "LIMIT": limit}
    ran = subprocess.run(
        [sys.executable, "-W", "error", PROJECT / "run.py"],
        env={
            **os.environ,
            "RELET_TENANTS": json.dumps(told),
            "RELET_TENANTS_ADAPTER": engine.NAME,
        },
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
