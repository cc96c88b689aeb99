"""I5, I11: asyncio tasks that are cancelled while synchronous code of theirs is at the database."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from testapp.models import Item

from relet import hold

from ..support import waiting
from ..support.holder import holding
from ..support.pools import backend_pid, stats
from ..support.threads import in_thread

WAITS = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"

sensitive = pytest.mark.parametrize("thread_sensitive", [True, False])


async def until(condition):
    """Wait until *condition*, which is looked at in this thread, is true."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never became true")


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def usable(wrapper):
    """Whether another thread gets the only connection, and in the end nothing is in use."""
    pid = in_thread(lambda: backend_pid(connections["default"]))
    # A thread that waits for it may still have to get it.
    waiting.until(lambda: (stats(wrapper).in_use, stats(wrapper).waiting) == (0, 0))
    return bool(pid)


def at_the_lock(observer):
    return observer.execute(WAITS).fetchone()[0]


@sensitive
def test_while_waiting_for_a_connection(db, observer, thread_sensitive):
    async def main():
        task = asyncio.ensure_future(
            sync_to_async(Item.objects.count, thread_sensitive=thread_sensitive)()
        )
        await until(lambda: stats(db).waiting == 1)
        await cancelled(task)

    @contextmanager
    def in_transaction():
        with transaction.atomic():
            yield backend_pid(connections["default"])

    loop = asyncio.new_event_loop()
    with holding(in_transaction):
        loop.run_until_complete(main())
    assert usable(db)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert stats(db).waiting == 0


@sensitive
def test_during_a_statement(db, observer, thread_sensitive):
    def lock():
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(20)")

    async def main():
        task = asyncio.ensure_future(sync_to_async(lock, thread_sensitive=thread_sensitive)())
        await until(lambda: at_the_lock(observer))
        await cancelled(task)
        assert stats(db).in_use == 1  # the thread goes on
        observer.execute("SELECT pg_advisory_unlock(20)")
        await until(lambda: stats(db).in_use == 0)

    observer.execute("SELECT pg_advisory_lock(20)")
    asyncio.run(main())
    assert usable(db)


@sensitive
def test_between_two_statements_of_a_transaction(db, thread_sensitive):
    between, over = threading.Event(), threading.Event()

    def write():
        with transaction.atomic():
            Item.objects.create(name="one")
            between.set()
            assert over.wait(20)
            Item.objects.create(name="two")

    async def main():
        task = asyncio.ensure_future(sync_to_async(write, thread_sensitive=thread_sensitive)())
        await until(between.is_set)
        await cancelled(task)
        over.set()
        await until(lambda: stats(db).in_use == 0)

    asyncio.run(main())
    assert usable(db)
    # Nobody has told the thread: its transaction is whole.
    assert Item.objects.all().delete()[0] == 2


@pytest.mark.parametrize("when", ["entering", "inside", "in a statement", "leaving"])
def test_in_hold(db, observer, when):
    """A block is entered and left whole, in the thread that the task's code runs in."""
    inside = asyncio.Event

    def lock():
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(21)")

    async def main():
        entered = inside()

        async def work():
            async with hold():
                await sync_to_async(Item.objects.count)()
                entered.set()
                if when == "inside":
                    await asyncio.Event().wait()
                if when == "in a statement":
                    await sync_to_async(lock)()

        task = asyncio.ensure_future(work())
        if when == "entering":
            await asyncio.sleep(0)
        elif when == "in a statement":
            await until(lambda: at_the_lock(observer))
            observer.execute("SELECT pg_advisory_unlock(21)")
        else:
            await entered.wait()
        await cancelled(task)
        await until(lambda: stats(db).in_use == 0)
        held = await sync_to_async(lambda: connections["default"]._runner.lease.session)()
        assert held is None or not held.holds

    observer.execute("SELECT pg_advisory_lock(21)")
    asyncio.run(main())
    observer.execute("SELECT pg_advisory_unlock_all()")
    assert usable(db)
