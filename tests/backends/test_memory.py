"""I17: what has been done leaves nothing in memory, whatever it was and however it ended."""

from __future__ import annotations

import gc
import logging
import threading
import tracemalloc
from contextlib import suppress

import pytest
from django.db import DatabaseError, connections, transaction
from testapp.models import Item

from ..support.pools import at_rest

#: How often each thing is done before memory is looked at again.
TIMES = 50
#: Bytes that may be there afterwards, for each time: less than the smallest object.
EACH = 12
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
def traced():
    logging.disable(logging.CRITICAL)  # pytest keeps what is logged
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    logging.disable(logging.NOTSET)


def allocated():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.usefixtures("items", "traced")
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
        pytest.fail(f"bytes more, each time after {TIMES} more: {more}")
    assert at_rest(db)
