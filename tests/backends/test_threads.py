"""I5, I10, I11: threads that share, die or wait, and processes that fork."""

import os
import threading

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from testapp.models import Item

from relet.core import Kind, hold

from ..engine import size_option
from .conftest import at_rest, backend_pid, stats
from .threads import in_thread


def wait_until(observer, sql, *parameters):
    """Wait until the server says that *sql* is true."""
    for _ in range(10_000):
        if observer.execute(sql, parameters or None).fetchone()[0]:
            return
    raise AssertionError(f"never became true: {sql}")


def test_a_thread_that_ends_at_rest_leaves_nothing(db):
    in_thread(lambda: Item.objects.count())
    assert at_rest(db)


def test_threads_take_turns_on_one_connection(db):
    threads = [
        threading.Thread(target=lambda: [Item.objects.count() for _ in range(20)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert at_rest(db)
    assert stats(db).size == 1


def test_a_shared_wrapper_is_not_released_under_anothers_statement(db, observer):
    observer.execute("SELECT pg_advisory_lock(1)")
    db.inc_thread_sharing()
    seen = []

    def slow():
        with db.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(1), pg_backend_pid()")
            seen.append(cursor.fetchone()[1])

    thread = threading.Thread(target=slow)
    thread.start()
    waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
    wait_until(observer, waits)
    # Its statement runs. Ours waits for its end, and then runs on a lease of its own.
    unlocking = threading.Timer(0.05, observer.execute, ["SELECT pg_advisory_unlock(1)"])
    unlocking.start()
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    thread.join(20)
    unlocking.join(20)  # it may still read what the server has said to it
    db.dec_thread_sharing()
    assert len(seen) == 1
    assert at_rest(db)


def test_a_shared_wrapper_in_a_transaction(db):
    """As TestCase shares its connection with the live server's threads."""
    db.inc_thread_sharing()
    try:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Item.objects.create(name="shared")

            def other():
                connections["default"] = db
                return Item.objects.count(), backend_pid(db)

            assert in_thread(other) == (1, backend_pid(db))
            raise ZeroDivisionError
    finally:
        db.dec_thread_sharing()
    assert at_rest(db)
    assert not Item.objects.exists()


def test_many_threads_on_a_shared_wrapper(db):
    db.inc_thread_sharing()
    errors = []

    def work():
        try:
            for number in range(20):
                with db.cursor() as cursor:
                    cursor.execute("SELECT %s", [number])
                    assert cursor.fetchone() == (number,)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    db.dec_thread_sharing()
    assert not errors
    assert at_rest(db)


def test_a_cursor_of_another_thread_is_refused(db):
    cursor = db.cursor()
    with pytest.raises(DatabaseError, match="can only be used in that same thread"):
        in_thread(lambda: cursor.execute("SELECT 1"))
    assert at_rest(db)


def test_a_thread_that_dies_in_a_transaction_gives_its_place_back(db, caplog):
    def die():
        atomic = transaction.atomic()
        atomic.__enter__()
        Item.objects.create(name="lost")
        assert stats(db).in_use == 1

    in_thread(die)
    # On the pool's only place: this waits until it is free.
    assert not Item.objects.exists()
    assert stats(db).in_use == 0
    assert "ended without closing its connection" in caplog.text


def test_a_thread_that_dies_with_an_iterator_open_gives_its_place_back(db):
    Item.objects.bulk_create(Item(name=f"item {n}") for n in range(5))
    kept = []

    def die():
        iterator = Item.objects.iterator(chunk_size=2)
        next(iterator)
        kept.append(iterator)

    in_thread(die)
    assert Item.objects.count() == 5
    assert stats(db).in_use == 0
    with pytest.raises(Exception, match="closed"):
        list(kept.pop())
    assert Item.objects.all().delete()[0] == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wrapper_that_is_dropped_gives_its_place_back(make):
    import gc

    keeper = make("dropped")
    dropped = type(keeper)(keeper.settings_dict, keeper.alias)
    dropped.set_autocommit(False)
    backend_pid(dropped)
    assert stats(keeper).in_use == 1
    del dropped
    gc.collect()
    # The pool has one connection, so this waits until the place is free.
    assert backend_pid(keeper)
    assert stats(keeper).in_use == 0


def test_waiters_are_served_in_order(make, observer):
    keeper = make("queue")
    order = []
    with keeper.temporary_connection():
        threads = []
        for number in range(5):

            def work(number=number):
                wrapper = type(keeper)(keeper.settings_dict, keeper.alias)
                backend_pid(wrapper)
                order.append(number)

            thread = threading.Thread(target=work)
            thread.start()
            threads.append(thread)
            while stats(keeper).waiting <= number:
                pass
    for thread in threads:
        thread.join(20)
    assert order == sorted(order)
    assert at_rest(keeper)


def test_a_waiter_that_times_out_loses_no_connection(make):
    keeper = make("timeout", timeout=0.2)

    def wait():
        other = type(keeper)(keeper.settings_dict, keeper.alias)
        with pytest.raises(OperationalError) as caught, other.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert "DATABASES['timeout']" in str(caught.value)
        assert "1 of 1 connections are leased" in str(caught.value)
        assert size_option() in str(caught.value)
        assert stats(keeper).waiting == 0

    with keeper.temporary_connection():
        in_thread(wait)
    assert backend_pid(keeper)
    assert at_rest(keeper)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


def in_child(function):
    """Fork; return the exit code of *function* in the child."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_has_a_pool_of_its_own(db):
    pid = backend_pid(db)

    def child():
        assert backend_pid(connection) != pid
        assert stats(connection).in_use == 0
        connection.close_pool()

    assert in_child(child) == 0
    assert backend_pid(db) == pid


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_has_nothing_of_its_parents_session(db):
    with db.cursor() as cursor, hold():
        cursor.execute("SET app.tenant = '1'")

        def child():
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('app.tenant', true)")
                assert cursor.fetchone() == (None,)
            # The block it was forked in holds a connection of its own.
            assert stats(connection).in_use == 1
            assert connection._lease.session.left == {Kind.UNKNOWN}
            connection.close_pool()

        assert in_child(child) == 0
        cursor.execute("SELECT current_setting('app.tenant')")
        assert cursor.fetchone() == ("1",)
    with db.cursor() as cursor:
        cursor.execute("SET app.tenant = '1'")

        def child_outside():
            backend_pid(connection)
            assert at_rest(connection)
            connection.close_pool()

        assert in_child(child_outside) == 0


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_leaves_its_parents_transaction_alone(db):
    with transaction.atomic():
        Item.objects.create(name="parent")
        pid = backend_pid(db)

        def child():
            import gc

            # Its block is not a transaction any more, and must not become another one.
            with pytest.raises(Exception, match=r"atomic"):
                Item.objects.create(name="child")
            db.close()
            gc.collect()
            connection.close_pool()

        assert in_child(child) == 0
        assert backend_pid(db) == pid
    assert [item.name for item in Item.objects.all()] == ["parent"]
    Item.objects.all().delete()


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_shared_wrapper(db):
    db.inc_thread_sharing()
    # Forked under the guard of a statement in another thread.
    guard = db._guard
    in_thread(guard.acquire)

    def child():
        assert Item.objects.count() == 0
        connection.close_pool()

    assert in_child(child) == 0
    db.dec_thread_sharing()


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_inside_a_block_works_after_it(db):
    atomic = transaction.atomic()
    atomic.__enter__()
    pid = backend_pid(db)

    def child():
        assert db.connection is None
        atomic.__exit__(None, None, None)
        assert backend_pid(db) != pid
        connection.close_pool()

    code = in_child(child)
    atomic.__exit__(None, None, None)
    assert code == 0
    assert at_rest(db)
