"""I10: a child never uses, resets or closes its parent's connections, and gets pools of its own."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import pytest
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError
from testapp.models import Item

from relet import ReleasePolicy, close_all, hold, policies
from relet.backends.pools import pools
from relet.core import Kind, registry

from ..support import driver, engine
from ..support.forks import child_of, fork, needs_fork, untouched
from ..support.holder import holding
from ..support.pools import at_rest, backend_pid, stats
from ..support.threads import in_thread
from ..support.waiting import until

pytestmark = needs_fork

ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
WAITS = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"


@contextmanager
def left_alone(wrapper, wire):
    """The parent goes on, on the same connection, and nothing else has arrived there."""
    pid = backend_pid(wrapper)

    def after():
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid() -- after the child")
            assert cursor.fetchone() == (pid,)

    with untouched(wire, after):
        yield


def execute(wrapper, sql):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone() if cursor.description else None


def test_a_child_has_a_pool_of_its_own(db):
    pid = backend_pid(db)

    def child():
        assert backend_pid(connection) != pid
        assert stats(connection).in_use == 0
        connection.close_pool()

    assert child_of(child) == 0
    assert backend_pid(db) == pid


def test_a_child_has_nothing_of_its_parents_session(db):
    with db.cursor() as cursor, hold():
        cursor.execute("SET app.tenant = '1'")

        def child():
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('app.tenant', true)")
                assert cursor.fetchone() == (None,)
            # The block it was forked in holds a connection of its own.
            assert stats(connection).in_use == 1
            assert connection._runner.lease.session.left == {Kind.UNKNOWN}
            connection.close_pool()

        assert child_of(child) == 0
        cursor.execute("SELECT current_setting('app.tenant')")
        assert cursor.fetchone() == ("1",)
    with db.cursor() as cursor:
        cursor.execute("SET app.tenant = '1'")

        def child_outside():
            backend_pid(connection)
            assert at_rest(connection)
            connection.close_pool()

        assert child_of(child_outside) == 0


class TestTheParentsConnections:
    """None of these leaves a trace on them."""

    def use(self, wrapper):
        assert execute(wrapper, "SELECT 1") == (1,)

    def collect(self, wrapper):
        connections["watched"] = None
        gc.collect()

    def close(self, wrapper):
        wrapper.close()
        connections.close_all()

    def close_pool(self, wrapper):
        wrapper.close_pool()

    def close_all(self, wrapper):
        assert close_all(20)

    def end(self, wrapper):
        wrapper.rollback()
        wrapper.close()
        wrapper.close_pool()

    def nothing(self, wrapper):
        pass

    WAYS = ("collect", "close", "close_pool", "close_all", "nothing")

    @pytest.mark.parametrize("way", ["use", "end", *WAYS])
    def test_idle(self, watched, wire, way):
        backend_pid(watched)
        with left_alone(watched, wire):
            assert child_of(lambda: getattr(self, way)(watched)) == 0

    @pytest.mark.parametrize("way", ["end", *WAYS])
    def test_in_a_transaction(self, watched, wire, way):
        watched.set_autocommit(False)
        with left_alone(watched, wire):
            assert child_of(lambda: getattr(self, way)(watched)) == 0
        watched.rollback()

    @pytest.mark.parametrize("way", WAYS)
    def test_of_another_thread(self, watched, wire, way):
        ready, over = threading.Event(), threading.Event()

        def run():
            connections["watched"] = other = watched.copy()
            other.set_autocommit(False)
            backend_pid(other)
            with left_alone(other, wire):
                ready.set()
                assert over.wait(20)
            other.rollback()
            other.close()

        thread = threading.Thread(target=lambda: outcome.append(in_thread(run)))
        outcome = []
        thread.start()
        assert ready.wait(20)
        assert child_of(lambda: (gc.collect(), getattr(self, way)(watched))) == 0
        over.set()
        thread.join(20)
        assert outcome == [None]

    @pytest.mark.parametrize("way", WAYS)
    def test_with_session_state(self, watched, wire, way):
        execute(watched, "SET app.tenant = '1'")
        with left_alone(watched, wire):
            assert child_of(lambda: getattr(self, way)(watched)) == 0
        assert execute(watched, "SHOW app.tenant") == ("1",)

    @pytest.mark.parametrize("way", ["drop", "fetch", "close"])
    def test_with_a_server_side_cursor(self, watched, wire, way):
        cursor = watched.chunked_cursor()
        cursor.itersize = 2
        cursor.execute("SELECT generate_series(1, 9)")
        cursor.fetchmany(2)
        kept = [cursor]

        def child():
            if way == "drop":
                kept.clear()
                gc.collect()
            elif way == "close":
                kept.pop().close()
            else:
                severed = "Bad|EOF|ready|pipe|not connected"
                with pytest.raises(Exception, match=f"{driver.LOST}|{severed}"):
                    kept.pop().fetchmany(2)

        del cursor
        with left_alone(watched, wire):
            assert child_of(child) == 0
        assert kept[0].fetchmany(2) == [(3,), (4,)]
        kept[0].close()

    def test_with_their_connection_in_the_hands_of_the_user(self, watched, wire):
        with watched.cursor() as cursor:
            driver.execute(cursor.connection, "SELECT 1")
            raw = watched._runner.lease.connection.raw

            def child():
                with pytest.raises(driver.dbapi.Error):
                    driver.execute(raw, "SELECT 'from the child'")
                raw.close()
                # What stands for it leads to the child's own.
                driver.execute(cursor.connection, "SELECT 1")

            with left_alone(watched, wire):
                assert child_of(child) == 0


@driver.needs("psycopg", "copy()")
def test_a_child_that_unwinds_a_copy_leaves_it_to_its_parent(db):
    parent = os.getpid()
    try:
        with (
            db.cursor() as cursor,
            transaction.atomic(),
            cursor.copy("COPY testapp_item (name) FROM STDIN") as copy,
        ):
            copy.write_row(["one"])
            if (pid := fork()) == 0:
                sys.exit()
            os.waitpid(pid, 0)
            copy.write_row(["two"])
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert sorted(item.name for item in Item.objects.all()) == ["one", "two"]
    Item.objects.all().delete()


class TestInsideATransaction:
    def test_the_child_is_told_so(self, db):
        with transaction.atomic():
            Item.objects.create(name="parent")
            pid = backend_pid(db)

            def child():
                for _ in range(2):
                    with pytest.raises(TransactionManagementError) as caught:
                        Item.objects.create(name="child")
                    assert "DATABASES['default']: this process was forked" in str(caught.value)
                    assert "Fork outside atomic(), or leave the block" in str(caught.value)
                    with transaction.atomic(), pytest.raises(TransactionManagementError):
                        Item.objects.count()
                db.close()
                gc.collect()
                connection.close_pool()

            assert child_of(child) == 0
            assert backend_pid(db) == pid
        assert [item.name for item in Item.objects.all()] == ["parent"]
        Item.objects.all().delete()

    def test_the_child_works_after_the_block(self, db):
        atomic = transaction.atomic()
        atomic.__enter__()
        pid = backend_pid(db)
        hooks = []
        transaction.on_commit(lambda: hooks.append("ran"))

        def child():
            assert db.connection is None
            atomic.__exit__(None, None, None)
            assert hooks == []  # it is the parent's transaction that commits
            assert backend_pid(db) != pid
            with transaction.atomic():
                assert Item.objects.count() == 0
            assert at_rest(db)
            connection.close_pool()

        code = child_of(child)
        atomic.__exit__(None, None, None)
        assert code == 0
        assert hooks == ["ran"]
        assert at_rest(db)

    @pytest.mark.parametrize("begin", ["raw", "autocommit"])
    @pytest.mark.parametrize("cure", ["rollback", "close"])
    def test_without_a_block(self, db, begin, cure):
        if begin == "raw":
            execute(db, "BEGIN")
        else:
            db.set_autocommit(False)
        Item.objects.create(name="parent")
        hooks = []
        if begin == "autocommit":
            db.run_on_commit.append((set(), lambda: hooks.append("ran"), False))

        def child():
            with pytest.raises(TransactionManagementError, match="forked inside a transaction"):
                Item.objects.create(name="child")
            with pytest.raises(TransactionManagementError, match="forked inside a transaction"):
                db.commit()
            getattr(db, cure)()
            assert Item.objects.count() == 0
            assert hooks == []
            # As it was before the transaction; close() goes back to the settings.
            assert db.get_autocommit() is (begin == "raw" or cure == "close")
            db.close()
            assert at_rest(db)

        assert child_of(child) == 0
        assert Item.objects.count() == 1
        if begin == "raw":
            execute(db, "ROLLBACK")  # psycopg2's rollback() does nothing about it
        else:
            db.rollback()
            db.set_autocommit(True)
        assert not Item.objects.exists()

    def test_before_its_first_statement(self, db):
        db.set_autocommit(False)

        def child():
            Item.objects.create(name="child")
            db.rollback()
            assert not Item.objects.exists()

        assert child_of(child) == 0
        db.set_autocommit(True)
        assert not Item.objects.exists()


def test_inside_override(db):
    with policies.override("default", release="request"):
        pid = backend_pid(db)

        def child():
            assert backend_pid(db) == backend_pid(db) != pid
            assert stats(db).in_use == 1
            policies["default"] = ReleasePolicy(release="statement")

        assert child_of(child) == 0
        assert backend_pid(db) == pid


def test_while_another_thread_is_inside_override(db):
    """That block is the parent's. In the child, leases need not look for it."""

    def child():
        assert policies.stamp is not None
        with policies.override("default", check_idle=7):
            assert policies.stamp is None
        assert policies.stamp is not None

    entered, leave = threading.Event(), threading.Event()

    def other():
        with policies.override("default", check_idle=9):
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert entered.wait(20)
        assert policies.stamp is None
        assert child_of(child) == 0
    finally:
        leave.set()
        thread.join(20)
    assert policies.stamp is not None


def test_of_a_shared_wrapper(db):
    db.inc_thread_sharing()
    # Forked under the guard of a statement in another thread.
    guard = db._runner.share_lock
    in_thread(guard.acquire)

    def child():
        assert Item.objects.count() == 0
        connection.close_pool()

    assert child_of(child) == 0
    db.dec_thread_sharing()


def test_a_grandchild(db):
    pid = backend_pid(db)

    def child():
        own = backend_pid(db)
        with transaction.atomic():
            assert backend_pid(db) == own

            def grandchild():
                with pytest.raises(TransactionManagementError, match="forked inside"):
                    backend_pid(db)
                db.close()
                assert pools._open == []

            assert child_of(grandchild) == 0
            assert backend_pid(db) == own

        def another():
            assert backend_pid(db) not in (pid, own)

        assert child_of(another) == 0

    assert child_of(child) == 0
    assert backend_pid(db) == pid


def test_a_child_leaves_nothing_of_its_own_and_all_of_its_parents(db, observer):
    pid = backend_pid(db)
    reading, writing = os.pipe()

    def child():
        backend_pid(db)
        with transaction.atomic():
            os.write(writing, f"{backend_pid(db)}".encode())
            os._exit(0)

    assert child_of(child) == 0
    theirs = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    until(lambda: observer.execute(ALIVE, [[theirs]]).fetchone() == (0,))
    assert observer.execute(ALIVE, [[pid]]).fetchone() == (1,)


def test_a_childs_pool_grows_in_threads_of_its_own(make):
    wrapper = make("grows", size=3)
    backend_pid(wrapper)

    def child():
        assert threading.enumerate() == [threading.current_thread()]
        copies = [wrapper.copy() for _ in range(3)]
        with ExitStack() as leases:
            for copied in copies:
                leases.enter_context(copied.temporary_connection())
            assert stats(wrapper).in_use == 3
        assert stats(wrapper).in_use == 0
        names = [thread.name for thread in threading.enumerate()]
        # Only the pools of psycopg_pool open connections in threads of their own.
        assert (len(names) > 1) is (engine.NAME == "psycopg")
        wrapper.close_pool()

    assert child_of(child) == 0


def test_with_waiters_and_a_statement_under_way(make, observer):
    """The parent's are served, and the child's pool knows nothing of them."""
    keeper = make("queue")
    observer.execute("SELECT pg_advisory_lock(10)")
    served = []

    def run():
        execute(keeper.copy(), "SELECT pg_advisory_xact_lock(10)")
        served.append("first")

    def wait(number):
        backend_pid(keeper.copy())
        served.append(number)

    threads = [threading.Thread(target=run)]
    threads[0].start()
    until(lambda: observer.execute(WAITS).fetchone()[0])
    for number in range(3):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        until(lambda number=number: stats(keeper).waiting > number)

    def child():
        assert backend_pid(keeper)
        assert (stats(keeper).waiting, stats(keeper).in_use) == (0, 0)

    assert child_of(child) == 0
    observer.execute("SELECT pg_advisory_unlock(10)")
    for thread in threads:
        thread.join(20)
    assert served == ["first", 0, 1, 2]
    assert at_rest(keeper)


# Locks.

_before_fork = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: [function() for function in _before_fork])


def _locks(wrapper):
    """Whatever lock there is, by name."""
    adapter = wrapper._runner.find_pool().pool
    native = adapter.native
    found = {"pools": pools._lock, "policies": policies._lock}
    found["opening"] = getattr(adapter, "_opening", None)
    found["counting"] = getattr(adapter, "_counting", None)
    found["the pool's"] = getattr(native, "_lock", None)
    found["scheduler's"] = getattr(getattr(native, "_sched", None), "_lock", None)
    found["tasks'"] = getattr(getattr(native, "_tasks", None), "mutex", None)
    found["queue's"] = getattr(getattr(native, "_pool", None), "mutex", None)
    found["overflow's"] = getattr(native, "_overflow_lock", None)
    if engine.NAME == "dj_db_conn_pool":
        from dj_db_conn_pool.core import pool_container

        found["container's"] = pool_container.lock
    return {name: lock for name, lock in found.items() if lock is not None}


def use_everything(wrapper):
    assert backend_pid(wrapper)
    registry.specs()
    policies["default"] = ReleasePolicy()
    del policies["default"]
    with policies.override("default", release="request"), hold():
        assert execute(connections["default"], "SELECT 1") == (1,)
    connections.close_all()
    assert stats(wrapper).in_use == 0
    gc.collect()
    assert close_all(20)


def test_no_lock_is_inherited_in_a_bad_state(make, db):
    wrapper = make("locked")
    backend_pid(wrapper)
    for name, lock in _locks(wrapper).items():
        with holding(lambda lock=lock: lock):
            assert child_of(lambda: use_everything(wrapper)) == 0, name


def test_a_child_inherits_no_half_loaded_registry(db):
    """A fork waits for whoever loads plugins."""
    held, forking = threading.Event(), threading.Event()
    loaded = []

    def load():
        with registry._lock:
            held.set()
            forking.wait(20)
            loaded.append(True)

    thread = threading.Thread(target=load)
    thread.start()
    assert held.wait(20)
    _before_fork.append(forking.set)

    def child():
        assert loaded == [True]
        assert engine.NAME in registry.specs()

    try:
        assert child_of(child) == 0
    finally:
        _before_fork.clear()
        forking.set()
        thread.join(20)


# Processes that are a parent from their start, to end as processes do.

SETTINGS = """
import gc, multiprocessing, os, sys, threading, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
import django
from django.conf import settings
settings.configure(DATABASES={{"default": {database!r}}})
django.setup()
from django.db import connection, transaction

def pid():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]
"""


def settings_of_a_process(**changed):
    given = connections["default"].settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    settings = {**{name: given[name] for name in names}, **changed}
    engine.put_small_pool(settings)
    settings.setdefault("OPTIONS", {}).update(
        {key: value for key, value in given["OPTIONS"].items() if key not in ("pool", "policy")}
    )
    return settings


def run_process(path, source, **changed):
    path.write_text(SETTINGS.format(database=settings_of_a_process(**changed)) + source)
    command = [sys.executable, "-W", "error", "-X", "dev", str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert (process.returncode, err) == (0, "")
    return out


ENDING = """
connection.set_autocommit(False)
mine = pid()
held, over = threading.Event(), threading.Event()
def hold():
    with {lock}:
        held.set()
        over.wait(20)
threading.Thread(target=hold, daemon=True).start()
held.wait(20)
child = os.fork()
if child == 0:
    {ending}
else:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    over.set()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid() -- after the child")
        assert cursor.fetchone() == (mine,)
    connection.rollback()
    print(code)
"""

ENDINGS = {
    "_exit": "os._exit(0)",
    "exit": "sys.exit(0)",
    "falling": "pass",
    "exit after use": "connection.rollback(); connection.set_autocommit(True); pid(); sys.exit(0)",
}
#: As if another thread was about to take a connection, or to give one back.
POOLS_LOCK = {
    "psycopg": "connection.pool._lock",
    "stack": "connection.pool._lock",
    "": "connection.pool._pool.mutex",
}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_child_that_ends(wire, tmp_path, ending):
    """With its parent in a transaction: nothing but the parent's own arrives."""
    lock = POOLS_LOCK.get(engine.NAME, POOLS_LOCK[""])
    source = ENDING.format(ending=ENDINGS[ending], lock=lock)
    changed = {"HOST": "127.0.0.1", "PORT": str(wire.port)}
    assert run_process(tmp_path / "main.py", source, **changed) == "0\n"
    for log in wire.logs.values():
        sent = [message for message in log if message.sender == "client"]
        texts = b"|".join(message.data for message in sent)
        assert [message.kind for message in sent].count("X") <= 1
        if b"after the child" in texts:
            assert b"ROLLBACK" not in texts.partition(b"after the child")[0]
            assert texts.count(b"ROLLBACK") == 1


MULTIPROCESSING = """
def work(queue):
    queue.put([pid(), connection.get_autocommit()])
    connection.close_pool()

if __name__ == "__main__":
    mine = pid()
    for method in sys.argv[1:] or {methods!r}:
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=work, args=(queue,))
        process.start()
        theirs, autocommit = queue.get()
        process.join(20)
        queue.close()
        assert (process.exitcode, autocommit) == (0, True)
        assert theirs != mine == pid()
        process.close()
    print("done")
"""


@pytest.mark.slow
def test_multiprocessing(database, tmp_path):
    source = MULTIPROCESSING.format(methods=["fork", "spawn"])
    assert run_process(tmp_path / "main.py", source) == "done\n"


def test_the_sockets_of_leases_are_dead_in_a_child(db):
    """So that whatever was open on them, and ends in the child too, has nobody to tell."""
    with db.temporary_connection():
        number = db.connection.fileno()

        def child():
            with socket.socket(fileno=os.dup(number)) as dead:
                for use in (lambda: dead.recv(1), lambda: dead.send(b"X")):
                    with pytest.raises(OSError, match=r"not connected|Broken pipe"):
                        use()

        assert child_of(child) == 0
        assert backend_pid(db)
