"""I5, I11: threads that share a wrapper, or wait for a connection."""

import threading

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from testapp.models import Item

from ..support.engine import size_option
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import until_true
from ..support.threads import in_thread
from ..support.waiting import until


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
    until_true(observer, waits)
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
            until(lambda number=number: stats(keeper).waiting > number)
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
