"""I17: what has been done leaves nothing in memory, whatever it was and however it ended."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from contextlib import suppress

import django
import pytest
from django.db import DatabaseError, connections, transaction
from testapp.models import Item

from ..support.pools import at_rest, backend_pid

#: How often each thing is done before memory is looked at again.
TIMES = 50
#: Objects that may be there afterwards, for each time. One that is kept each time is twice that.
EACH = 0.5
#: So often it is looked at: caches fill, and then take no more.
LOOKS = 40


def run(sql, *parameters):
    with connections["default"].cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchall()


def reads():
    run("SELECT %s", 1)


def writes():
    with transaction.atomic():
        item = Item.objects.create(name="a")
        item.name = "b"
        item.save()
        item.delete()


def rolls_back():
    with suppress(ZeroDivisionError), transaction.atomic():
        Item.objects.create(name="a")
        raise ZeroDivisionError


def iterates():
    for _ in Item.objects.all().iterator(chunk_size=2):
        break


def fails():
    with suppress(DatabaseError):
        run("SELECT 1 / 0")


def sets():
    with connections["default"].cursor() as cursor:
        cursor.execute("SET application_name = 'a'")
    connections["default"].close()


def breaks():
    with suppress(DatabaseError):
        run("SELECT pg_terminate_backend(pg_backend_pid())")
    connections["default"].close()


def in_a_thread():
    def work():
        run("SELECT 1")
        connections["default"].close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_a_thread_that_closes_nothing():
    thread = threading.Thread(target=run, args=["SELECT 1"])
    thread.start()
    thread.join()


THINGS = [reads, writes, rolls_back, iterates, fails, sets, breaks, in_a_thread]
THINGS += [in_a_thread_that_closes_nothing]


@pytest.fixture
def items(db):
    Item.objects.bulk_create(Item(name=f"{number}") for number in range(5))
    yield
    Item.objects.all().delete()


@pytest.fixture
def unlogged():
    logging.disable(logging.CRITICAL)  # pytest keeps what is logged
    yield
    logging.disable(logging.NOTSET)


def allocated():
    """Return how many blocks Python has allocated, which are of 512 bytes at most.

    Nothing that is done here makes a larger object without a smaller one. tracemalloc would take
    whatever replaces an older object, as in a full cache, for more.
    """
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.slow
@pytest.mark.usefixtures("items", "unlogged")
@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__.replace("_", " "))
def test_memory_is_flat(db, thing):
    before, more = allocated(), []
    for _ in range(LOOKS):
        for _ in range(TIMES):
            thing()
        before, last = (now := allocated()), before
        more.append(now - last)
        if len(more) > 1 and sum(more[-2:]) < 2 * EACH * TIMES:
            break
    else:
        pytest.fail(f"objects more, each time after {TIMES} more: {more}")
    assert at_rest(db)


USES = {
    "made": lambda wrapper: None,
    "a statement": backend_pid,
    "a transaction": lambda wrapper: _in_transaction(wrapper),
    "a look": lambda wrapper: str(wrapper.connection),
    "hold": lambda wrapper: (wrapper.hold(), wrapper.release_hold()),
}


def _in_transaction(wrapper):
    wrapper.set_autocommit(False)
    backend_pid(wrapper)
    wrapper.rollback()


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django's own wrappers wait for the collector")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_wrapper_that_is_dropped_leaves_the_collector_nothing(db, use):
    """As Django's, of which its suite asks that. It is in cycles, and takes itself out of them."""
    for _ in range(3):  # a thread of an earlier test may end meanwhile, and leave something
        wrapper = db.copy()
        with wrapper.wrap_database_errors:
            use(wrapper)
        wrapper.close()
        found = weakref.ref(wrapper)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            del wrapper
            gc.collect()
            left = [one for one in gc.garbage if type(one).__module__.startswith("relet")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        gc.collect()
        assert found() is None
        if not left:
            break
    assert left == []


def test_a_cursor_of_the_drivers_kind_keeps_its_wrapper(db):
    """Django's cursor does; so does the one in it, which tools take out."""
    inner = db.copy().cursor().cursor
    gc.collect()
    inner.execute("SELECT 1")
    assert inner.fetchone() == (1,)


def test_what_stands_for_the_connection_keeps_its_wrapper(db):
    connection = db.copy().cursor().connection
    gc.collect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_the_text_of_a_statement_is_gone_with_its_lease(db):
    """It may be large, and a thread's wrapper lives as long as the thread."""
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert db._runner.lease.sql is None
        with transaction.atomic():
            cursor.execute("SELECT 2")
            assert db._runner.lease.sql == "SELECT 2"
    assert db._runner.lease.sql is None
