"""I12, I13, I15: storms, for as many seconds as RELET_STORM_SECONDS says; at night, minutes.

What is tried here at random, other tests try step by step: test_owner, test_signals, test_strikes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import sys
import threading
import traceback
from contextlib import suppress
from time import monotonic

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from testapp.models import Item

from relet.adapters.conformance.strikes import call_apart
from relet.core import PoolAdapter, registry

from ..support import engine
from ..support.interrupts import possible
from ..support.pools import stats
from ..support.threads import Thread
from .test_client_errors import LEFT

pytestmark = pytest.mark.slow


ATOMIC = transaction.Atomic.__enter__.__code__, transaction.Atomic.__exit__.__code__
SECONDS = float(os.environ.get("RELET_STORM_SECONDS", "3"))


@pytest.fixture
def rolling_back(db):
    """Threads that have transactions on the same connection, and roll them back."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            with suppress(ZeroDivisionError), transaction.atomic():
                Item.objects.create(name=f"never {threading.get_ident()}")
                raise ZeroDivisionError
        connections["default"].close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(20)
    Item.objects.all().delete()


def test_asynchronous_iterators_that_are_broken_off(db, rolling_back):
    """Their cursors are closed by the event loop's thread, whatever its owner does meanwhile."""
    Item.objects.bulk_create(Item(name=f"item {n}") for n in range(5))
    acknowledged = []

    async def request(number):
        async for _ in Item.objects.filter(name__startswith="item").aiterator(chunk_size=2):
            break
        for _ in range(3):
            item = await Item.objects.acreate(name=f"acknowledged {number} {len(acknowledged)}")
            acknowledged.append(item.pk)

    async def main():
        deadline, number = monotonic() + SECONDS, 0
        while monotonic() < deadline:
            await asyncio.gather(*(request(number + task) for task in range(4)))
            number += 4
        await sync_to_async(connections.close_all)()

    asyncio.run(main())
    gc.collect()
    assert len(acknowledged) > 0
    present = set(Item.objects.filter(name__startswith="ack").values_list("pk", flat=True))
    assert present == set(acknowledged)
    print(f"{len(acknowledged)} rows acknowledged, and each is there")


class Interrupt(BaseException):
    """As what Celery raises when a task's time is up."""


class Told(Exception):
    """The same, but an `Exception`, as Celery's own is."""


def run(sql):
    with connections["default"].cursor() as cursor:
        cursor.execute(sql)


def leaves_state():
    run("SET app.x = 'leak'")
    run("SELECT pg_advisory_lock(4711)")
    run("CREATE TEMP TABLE relet_t (a int)")


acknowledged: list[int] = []


def writes():
    item = Item.objects.create(name=f"acknowledged {random.random()}")
    acknowledged.append(item.pk)


def writes_in_a_transaction():
    with transaction.atomic():
        item = Item.objects.create(name=f"acknowledged {random.random()}")
    acknowledged.append(item.pk)


def iterates():
    for _ in Item.objects.all()[:5].iterator(chunk_size=2):
        pass


def forget_block(error):
    """Have Django forget an atomic block that it takes for entered, and Python does not.

    With any backend it is left so by an interrupt that strikes after the last line of
    `Atomic.__enter__` that matters, or before the first of `Atomic.__exit__`.
    """
    db = connections["default"]
    if db.in_atomic_block:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        atomic = max(n for n, frame in enumerate(frames) if frame.f_code in ATOMIC)
        modules = [frame.f_globals["__name__"] for frame in frames[atomic:]]
        assert not any(module.startswith("relet.") for module in modules)
        db.close()
        db.in_atomic_block = False
        db.connection = None


@possible
@pytest.mark.skipif(
    registry.load(engine.NAME).checkout_into is PoolAdapter.checkout_into,
    reason="an adapter that leaves checkout_into() as it is may lose what is struck",
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("raised", [Interrupt, Told])
def test_interrupts_at_random(db, rolling_back, observer, raised):
    acknowledged.clear()
    other, chance = Thread(), random.Random(7)
    struck = done = 0

    def strike(number, frame):
        raise raised

    def left():
        with connections["default"].cursor() as cursor:
            cursor.execute(LEFT)
            return cursor.fetchall()

    previous = signal.signal(signal.SIGALRM, strike)
    # Python ignores what is raised in a finalizer, and pytest's own hook is not safe from it.
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    deadline = monotonic() + SECONDS
    try:
        while monotonic() < deadline:
            for work in leaves_state, writes, writes_in_a_transaction, iterates:
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 0.004))
                    call_apart(work)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    done += 1
                except raised as error:
                    struck += 1
                    forget_block(error)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                db.close()
                assert other(left) == []
    finally:
        signal.signal(signal.SIGALRM, previous)
        sys.unraisablehook = hook
        other(lambda: connections["default"].close())
        other.end()
    gc.collect()
    counts = stats(db)
    assert counts.size <= 1
    present = {pk for (pk,) in observer.execute("SELECT id FROM testapp_item").fetchall()}
    assert set(acknowledged) <= present
    assert struck > 0
    print(f"{struck} interrupts, {done} done, {len(acknowledged)} acknowledged")
