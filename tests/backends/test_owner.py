"""I13: a lease is moved by its owner alone; whoever else has to do with it leaves a note."""

import asyncio
import gc
import itertools
import logging
import sys
import threading
from contextlib import contextmanager, nullcontext, suppress

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections, transaction
from testapp.models import Item

from relet import ReleasePolicy, hold, policies

from ..support import driver
from ..support.pools import at_rest, stats
from ..support.threads import Thread, in_thread
from ..support.waiting import PATIENCE

MODES = ["statement", "cursor", "request"]


@pytest.fixture
def items(db):
    Item.objects.bulk_create(Item(name=f"item {n}") for n in range(5))
    yield
    Item.objects.all().delete()


@pytest.fixture
def owner(db, items):
    """Another thread, which has a lease."""
    thread = Thread()
    yield thread
    thread(lambda: connections["default"].close())
    thread.end()


def run(sql, params=None):
    with connections["default"].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


# What keeps a lease. Each returns what is to be called by somebody else, and ends it.


def iterator():
    opened = Item.objects.iterator(chunk_size=2)
    next(opened)
    return opened.close


def chunked_cursor():
    cursor = connections["default"].chunked_cursor()
    cursor.execute("SELECT name FROM testapp_item")
    cursor.fetchone()
    return cursor.close


def used_connection():
    cursor = connections["default"].cursor()
    cursor.connection.cursor()
    return cursor.close


def stream():
    cursor = connections["default"].cursor()
    rows = cursor.stream(
        "SELECT set_config('app.owner', 'streamed', false), name FROM testapp_item"
    )
    next(rows)
    return rows.close


def held():
    def work():
        with hold():
            run("SET app.owner = 'held'")
            yield

    generator = work()
    next(generator)
    return generator.close


KEEPERS = {
    "iterator": iterator,
    "chunked_cursor": chunked_cursor,
    "connection": used_connection,
    "hold": held,
}
keepers = pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
#: While these are open, psycopg runs nothing else on their connection.
streams = driver.needs("psycopg", "stream() and copy()")


@contextmanager
def slow_inserts(monkeypatch, raw):
    """Statements that begin with INSERT wait in the driver; yields their beginning and their go."""
    begun, go_on = threading.Event(), threading.Event()
    cursor_class = driver.cursor_class(monkeypatch, raw)
    execute = cursor_class.execute

    def slow(self, query, *args, **kwargs):
        if str(query).startswith("INSERT"):
            begun.set()
            assert go_on.wait(20)
        return execute(self, query, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(cursor_class, "execute", slow)
        yield begun, go_on


def server_side_cursors(observer_thread=None):
    return run("SELECT name FROM pg_cursors WHERE is_holdable")


@keepers
@pytest.mark.parametrize("mode", MODES)
def test_ended_by_another_thread_under_a_statement(make, owner, monkeypatch, keep, mode):
    """The statement's lease ends when it does: what it has written is there."""
    policies["default"] = ReleasePolicy(release=mode, check_idle=3600)
    try:
        end = owner(keep)
        raw = owner(lambda: connections["default"]._runner.lease.connection.raw)
        with slow_inserts(monkeypatch, raw) as (begun, go_on):
            inserting = threading.Thread(
                target=owner, args=[lambda: Item.objects.create(name="acknowledged")]
            )
            inserting.start()
            assert begun.wait(20)
            end()
            assert stats(connections["default"]).in_use == 1
            rolling_back = threading.Thread(target=roll_back)
            rolling_back.start()
            go_on.set()
            inserting.join(20)
        if mode == "request":
            # psycopg2's cursor factory is another in the test: the end of hold() discards that.
            discarded = driver.NAME == "psycopg2" and keep is held
            assert discarded or stats(connections["default"]).in_use == 1
            owner(lambda: connections["default"].close())
        rolling_back.join(20)
        assert stats(connections["default"]).in_use == 0
        assert Item.objects.filter(name="acknowledged").count() == 1
        assert run("SELECT current_setting('app.owner', true)") in ([("",)], [(None,)])
        assert not server_side_cursors()
    finally:
        del policies["default"]


def roll_back():
    """Have a transaction that rolls back, on the connection that is let next."""
    with suppress(ZeroDivisionError), transaction.atomic():
        Item.objects.create(name="never")
        raise ZeroDivisionError
    connections["default"].close()


@keepers
def test_ended_by_another_thread_between_statements(owner, keep):
    """Its owner ends it, with its next statement."""
    end = owner(keep)
    end()
    assert owner(lambda: Item.objects.count()) == 5
    assert stats(connections["default"]).in_use == 0
    assert run("SELECT current_setting('app.owner', true)") in ([("",)], [(None,)])
    assert not server_side_cursors()


@keepers
def test_ended_by_another_thread_and_closed_by_its_owner(owner, keep):
    owner(keep)()
    owner(lambda: connections["default"].close())
    assert stats(connections["default"]).in_use == 0
    assert not server_side_cursors()


@keepers
def test_ended_by_another_thread_in_a_transaction(owner, keep):
    @contextmanager
    def transaction_of_owner():
        block = transaction.atomic()
        owner(block.__enter__)
        yield
        owner(lambda: block.__exit__(None, None, None))

    with transaction_of_owner():
        owner(lambda: Item.objects.create(name="kept 1"))
        end = owner(keep)
        end()
        owner(lambda: Item.objects.create(name="kept 2"))
        assert stats(connections["default"]).in_use == 1
    assert stats(connections["default"]).in_use == 0
    assert Item.objects.filter(name__startswith="kept").count() == 2
    assert not server_side_cursors()


@keepers
def test_it_ends_nothing_of_whoever_ends_it(make, owner, keep):
    """A generator with a hold() is closed in a thread that has a hold() of its own."""
    wrapper = connections["default"]
    with policies.override("default", session_state="pin"):
        end = owner(keep)
        other = make("other")
        connections["other"] = other
        try:
            with hold("other"):
                with other.cursor() as cursor:
                    cursor.execute("SET app.mine = 'mine'")
                end()
                with other.cursor() as cursor:
                    cursor.execute("SELECT current_setting('app.mine')")
                    assert cursor.fetchone() == ("mine",)
                assert stats(other).in_use == 1
            assert at_rest(other)
        finally:
            del connections["other"]
    owner(lambda: connections["default"].close())
    assert stats(wrapper).in_use == 0


def test_a_hold_that_is_left_elsewhere_leaves_the_others(make, owner):
    """Both threads hold the same alias: only what is left ends."""
    wrapper = connections["default"]
    shared = make("shared", size=2)
    settings = shared.settings_dict
    connections.settings["shared"] = settings
    try:

        def held_elsewhere():
            def work():
                with hold("shared"):
                    with connections["shared"].cursor() as cursor:
                        cursor.execute("SELECT pg_advisory_lock(1)")
                    yield

            generator = work()
            next(generator)
            return generator.close

        end = owner(held_elsewhere)
        with hold("shared"):
            mine = connections["shared"]
            with mine.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(2)")
            end()
            with mine.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
                    "AND pid = pg_backend_pid()"
                )
                assert cursor.fetchone() == (1,)
        assert mine.connection is None

        def of_the_owner():
            with connections["shared"].cursor() as cursor:
                cursor.execute("SELECT 1")
            return connections["shared"].connection

        assert owner(of_the_owner) is None
        assert stats(mine).in_use == 0
    finally:
        owner(lambda: (connections["shared"].close(), delattr(connections._connections, "shared")))
        connections["shared"].close()
        del connections["shared"]
        del connections.settings["shared"]
    assert at_rest(wrapper)


def test_an_override_that_is_left_elsewhere(owner):
    def overriding():
        def work():
            with policies.override("default", release="request"):
                Item.objects.count()
                yield

        generator = work()
        next(generator)
        return generator.close

    end = owner(overriding)
    assert stats(connections["default"]).in_use == 1
    end()
    assert owner(lambda: policies["default"].release) == "statement"
    owner(lambda: Item.objects.count())
    assert stats(connections["default"]).in_use == 0
    # Leases that begin from then on as well.
    owner(lambda: Item.objects.count())
    assert stats(connections["default"]).in_use == 0


# What nobody ends: it is dropped.


def fetch_first(cursor):
    with suppress(driver.dbapi.Error):
        cursor.cursor.fetchone()


DROPPED = {
    "connection": lambda cursor: cursor.connection.cursor(),
    "fetch before execute": fetch_first,
    "driver's cursor": lambda cursor: cursor.cursor.driver_cursor(),
}


@pytest.mark.parametrize("use", DROPPED.values(), ids=DROPPED)
def test_a_cursor_that_is_dropped_keeps_nothing(db, use):
    cursor = db.cursor()
    use(cursor)
    assert stats(db).in_use == 1
    del cursor
    assert at_rest(db)


@pytest.mark.parametrize("use", DROPPED.values(), ids=DROPPED)
def test_a_cursor_that_is_collected_elsewhere(db, owner, use):
    def drop():
        cursor = connections["default"].cursor()
        use(cursor)
        cycle = [cursor]
        cycle.append(cycle)

    owner(drop)
    gc.collect()
    assert owner(lambda: Item.objects.count()) == 5
    assert stats(db).in_use == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_server_side_cursor_that_is_dropped(db, items):
    cursor = db.chunked_cursor()
    cursor.execute("SELECT name FROM testapp_item")
    assert stats(db).in_use == 1
    del cursor
    assert at_rest(db)
    assert not server_side_cursors()


@streams
def test_a_stream_that_is_dropped(db, items):
    cursor = db.cursor()
    rows = cursor.stream(
        "SELECT set_config('app.owner', 'streamed', false), name FROM testapp_item"
    )
    next(rows)
    del rows, cursor
    db.close()
    assert at_rest(db)
    assert run("SELECT current_setting('app.owner', true)") in ([("",)], [(None,)])


@streams
def test_a_copy_that_is_dropped_copies_nothing(db):
    block = db.cursor().copy("COPY testapp_item (name) FROM STDIN")
    block.__enter__().write_row(["never"])
    del block
    assert at_rest(db)
    assert not Item.objects.exists()


# In the middle of something, in the owner's own thread.


@pytest.mark.parametrize("keep", [iterator, chunked_cursor, used_connection, held])
def test_the_collector_ends_it_under_the_owners_statement(db, items, monkeypatch, keep):
    """As the collector does: in the owner's thread, from inside of the driver."""
    end = keep()
    raw = db._runner.lease.connection.raw
    cursor_class = driver.cursor_class(monkeypatch, raw)
    execute = cursor_class.execute

    def collecting(self, query, *args, **kwargs):
        nonlocal end
        if str(query).startswith("INSERT") and end is not None:
            end()
            end = None
            assert stats(db).in_use == 1
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(cursor_class, "execute", collecting)
    Item.objects.create(name="acknowledged")
    assert end is None
    assert at_rest(db)
    assert Item.objects.filter(name="acknowledged").count() == 1
    assert run("SELECT current_setting('app.owner', true)") in ([("",)], [(None,)])
    assert not server_side_cursors()


@driver.needs("psycopg", "a lock in the driver that waits for itself")
def test_the_collector_ends_it_while_the_driver_has_its_lock(db, items):
    end = iterator()
    raw = db._runner.lease.connection.raw
    notices = []

    def notice(diagnostic):
        # From inside of libpq, while psycopg has the connection's lock.
        assert raw.lock.locked()
        notices.append(end())

    raw.add_notice_handler(notice)
    run("DO $$ BEGIN RAISE NOTICE 'now'; END $$")
    assert notices == [None]
    raw.remove_notice_handler(notice)
    db.close()
    assert at_rest(db)


@streams
@pytest.mark.parametrize("mode", MODES)
def test_a_stream_that_is_closed_elsewhere(owner, mode):
    policies["default"] = ReleasePolicy(release=mode, check_idle=3600)
    try:
        end = owner(stream)
        end()
        # psycopg would wait for the stream's end.
        assert owner(lambda: Item.objects.count()) == 5
        owner(lambda: connections["default"].close())
        assert stats(connections["default"]).in_use == 0
        assert run("SELECT current_setting('app.owner', true)") in ([("",)], [(None,)])
    finally:
        del policies["default"]
        connections["default"].close()


@streams
def test_a_copy_that_is_left_elsewhere(owner):
    def copying():
        block = connections["default"].cursor().copy("COPY testapp_item (name) FROM STDIN")
        block.__enter__().write_row(["copied"])
        return block

    block = owner(copying)
    block.__exit__(None, None, None)
    assert Thread.__call__(owner, lambda: Item.objects.filter(name="copied").count()) == 1
    assert stats(connections["default"]).in_use == 0

    block = owner(copying)
    block.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert owner(lambda: Item.objects.filter(name="copied").count()) == 1
    assert stats(connections["default"]).in_use == 0


# Asynchronous code: what is left of an iterator is closed by the event loop's thread.


def test_an_asynchronous_iterator_that_is_broken_off(db, items):
    async def request(number):
        async for _ in Item.objects.order_by("pk").aiterator(chunk_size=2):
            break
        await Item.objects.acreate(name=f"acknowledged {number}")
        await sync_to_async(connections.close_all)()

    stop = threading.Event()

    def roll_back_again_and_again():
        while not stop.is_set():
            roll_back()

    async def main():
        for number in range(40):
            await request(number)

    other = threading.Thread(target=roll_back_again_and_again)
    other.start()
    try:
        asyncio.run(main())
    finally:
        stop.set()
        other.join(20)
    gc.collect()
    assert stats(db).in_use == 0
    assert Item.objects.filter(name__startswith="acknowledged").count() == 40


async def broken_off(items):
    async for _ in items:
        break


async def cancelled(items):
    begun = asyncio.Event()

    async def request():
        async for _ in items:
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def closed(items):
    await anext(items)
    await items.aclose()


@pytest.mark.parametrize("leave", [broken_off, cancelled, closed], ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("context", [nullcontext, ThreadSensitiveContext])
def test_an_asynchronous_iterator_ends_while_its_thread_runs_nothing(db, items, leave, context):
    if sys.version_info < (3, 11) and leave is cancelled and context is ThreadSensitiveContext:
        pytest.skip("before Python 3.11, it is closed outside the context, which knows the thread")

    async def given_back():
        while stats(db).in_use:
            gc.collect()  # before Python 3.11, cycles of frames keep it
            await asyncio.sleep(0)

    async def main():
        async with context():
            await leave(Item.objects.aiterator(chunk_size=2))
            await asyncio.wait_for(given_back(), PATIENCE)
            await sync_to_async(connections.close_all)()

    asyncio.run(main())
    assert not server_side_cursors()


# The log.


@pytest.fixture
def log_in_the_database(db):
    """A handler of relet's log that writes to the database; what it could not, it raises."""
    numbers = itertools.count()

    class Handler(logging.Handler):
        def emit(self, record):
            Item.objects.create(name=f"logged {next(numbers)}: {record.getMessage()[:40]}")

    handler = Handler()
    # The pools' own loggers speak from inside of a pool.
    handler.addFilter(lambda record: record.name == "relet")
    logger = logging.getLogger("relet")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    db.close()
    Item.objects.all().delete()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_a_log_handler_that_writes(make, log_in_the_database, mode, level, caplog):
    wrapper = connections["default"]
    caplog.set_level(level, "relet")
    policies["default"] = ReleasePolicy(release=mode, check_idle=3600)
    number = f"{mode}{level}"  # each text is logged once, whatever its values
    try:
        run(f"SET app.outside_{number} = ''")
        assert Item.objects.count() == 1
        with transaction.atomic():
            run(f"SET app.inside_{number} = ''")
            run(f"SELECT set_config('app.other', '', false) AS other_{number}")
            # Not in the transaction, whose it is not.
            assert Item.objects.count() == 1
        assert Item.objects.count() == 3
        wrapper.close()
        wrapper.set_autocommit(False)
        run(f"SET app.by_hand_{number} = ''")
        wrapper.commit()
        wrapper.set_autocommit(True)
        wrapper.close()
        assert Item.objects.count() == 4
    finally:
        del policies["default"]
        wrapper.close()
    assert at_rest(wrapper)


def test_a_log_handler_that_writes_when_a_session_cannot_be_restored(
    db, observer, log_in_the_database, caplog
):
    from ..support.pools import backend_pid
    from ..support.sessions import kill

    caplog.set_level(logging.DEBUG, "relet")
    run("SET app.owner = 'lost'")
    kill(observer, backend_pid(db))
    db.close()
    assert at_rest(db)
    in_thread(lambda: (Item.objects.count(), connections["default"].close()))
