"""I15: an exception from outside, at each instruction of relet's code, loses and leaks nothing."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest
from django.db import DatabaseError, connections, transaction
from testapp.models import Item

import relet
import relet.adapters
import relet.backends
import relet.core
from relet import hold, policies
from relet.backends.observe import collection
from relet.backends.plans import declared
from relet.core import PoolAdapter, State, registry

from ..support import driver, engine
from ..support.fingerprint import fingerprint
from ..support.pools import stats
from ..support.strikes import STEP, strike_at
from ..support.threads import Thread

RELET = (relet.core, relet.adapters, relet.backends)

#: There are thousands of them in a transaction.
FEWER = 5 if STEP > 1 else 1

CUSTOM = ("app.struck",)


def run(sql, params=None):
    with connections["default"].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def statement():
    run("SELECT 1")


def statement_with_parameters():
    run("SELECT %s", [1])


def write():
    Item.objects.create(name="written")


def executemany():
    with connections["default"].cursor() as cursor:
        cursor.executemany("SELECT set_config('app.struck', %s, false)", [["1"], ["2"]])


def setting():
    run("SET app.struck = 'yes'")
    run("SELECT 1")


def advisory_lock():
    run("SELECT pg_advisory_lock(4711)")


def temporary_table():
    run("CREATE TEMP TABLE relet_struck (a int)")


def in_transaction():
    with transaction.atomic():
        Item.objects.create(name="written")


def in_savepoints():
    with transaction.atomic():
        with transaction.atomic():
            run("SET app.struck = 'yes'")
        with suppress(ZeroDivisionError), transaction.atomic():
            Item.objects.create(name="never")
            raise ZeroDivisionError


def rolled_back():
    with suppress(ZeroDivisionError), transaction.atomic():
        run("SET app.struck = 'never'")
        raise ZeroDivisionError


def by_hand():
    db = connections["default"]
    db.set_autocommit(False)
    run("SELECT 1")
    db.commit()
    db.set_autocommit(True)


def in_transaction_on_a_lease_that_is_kept():
    setting()
    in_transaction()


def iterator():
    for _ in Item.objects.iterator(chunk_size=1):
        pass


def iterator_broken_off():
    for _ in Item.objects.iterator(chunk_size=1):
        break


def held():
    block = hold()
    try:
        with block:
            run("SET app.struck = 'yes'")
    except BaseException:
        # Nothing in Python keeps an exception from coming before the first instruction of an
        # `__exit__`, or after the last one of an `__enter__`.
        while connections["default"]._runner.holds:
            connections["default"].release_hold()
        raise


def overridden():
    block = policies.override("default", release="request")
    try:
        with block:
            run("SELECT 1")
    except BaseException:
        policies.overrides.set(())
        raise


def raw_connection():
    with connections["default"].cursor() as cursor:
        driver.execute(cursor.connection, "SET app.struck = 'yes'")


def closed():
    run("SET app.struck = 'yes'")
    connections["default"].close()


def refused():
    with suppress(DatabaseError):
        run("SELECT 1/0")


def streamed():
    with connections["default"].cursor() as cursor:
        list(cursor.stream("SELECT set_config('app.struck', 'yes', false)"))


def copied():
    sql = "COPY testapp_item (name) FROM STDIN"
    with connections["default"].cursor() as cursor, cursor.copy(sql) as copy:
        copy.write_row(["written"])


def copied_in_transaction():
    with transaction.atomic():
        copied()


def failed_while_streaming():
    with (
        suppress(ZeroDivisionError),
        transaction.atomic(),
        connections["default"].cursor() as cursor,
    ):
        rows = cursor.stream("SELECT name FROM testapp_item, generate_series(1, 1000)")
        next(rows, None)
        raise ZeroDivisionError


def unseen():
    run("SELECT relet_struck()")


def unseen_in_transaction():
    with transaction.atomic():
        with transaction.atomic():
            run("SELECT relet_struck()")
        Item.objects.create(name="written")


def nothing():
    pass


WORK = [
    statement,
    statement_with_parameters,
    write,
    executemany,
    setting,
    advisory_lock,
    temporary_table,
    in_transaction,
    in_savepoints,
    rolled_back,
    by_hand,
    in_transaction_on_a_lease_that_is_kept,
    iterator,
    iterator_broken_off,
    held,
    overridden,
    raw_connection,
    closed,
    refused,
]


@pytest.fixture
def other():
    """A thread that waits for whatever this one has not given back."""
    thread = Thread()
    yield thread
    thread(lambda: connections["default"].close())
    thread.end()


@pytest.fixture
def struck(db, observer, other):
    """Checks what is to be true after a strike."""

    observer.execute(
        "CREATE OR REPLACE FUNCTION relet_struck() RETURNS text LANGUAGE sql AS "
        "$$ SELECT set_config('app.struck', 'yes', false) $$"
    )

    def session_of_other():
        db = connections["default"]
        try:
            with db.temporary_connection():
                raw = db._runner.lease.connection.raw
                assert raw.autocommit is True
                return fingerprint(raw, CUSTOM)
        finally:
            db.close()

    before = other(session_of_other)

    def check(number):
        # As at the end of a request, or of a task whose time was up.
        db.close()
        lease = db._runner.lease
        assert (lease.state, lease.connection, lease.pins) == (State.RELEASED, None, {}), number
        assert not db._runner.holds and lease.session is None, number
        assert (db._runner.internal_access, db.settings_dict) == (False, settings), number
        assert db.autocommit or db._unconnected
        assert policies["default"].release == mode, number
        # Another thread can have it at once: no lock is taken, nothing is lost.
        assert other(session_of_other) == before, number
        counts = stats(db)
        assert (counts.in_use, counts.waiting) == (0, 0), number
        assert counts.size <= 1, number
        written = observer.execute("SELECT count(*) FROM testapp_item").fetchone()[0]
        assert written in (0, 1), number
        observer.execute("DELETE FROM testapp_item WHERE name <> 'row'")

    mode, settings = policies["default"].release, db.settings_dict
    yield check
    policies.audit(None)
    observer.execute("DROP FUNCTION relet_struck()")


#: What psycopg alone has.
ONLY = [
    pytest.param(streamed, nothing, marks=driver.needs("psycopg", "stream()")),
    pytest.param(copied, nothing, marks=driver.needs("psycopg", "copy()")),
    pytest.param(copied_in_transaction, nothing, marks=driver.needs("psycopg", "copy()")),
    pytest.param(failed_while_streaming, nothing, marks=driver.needs("psycopg", "stream()")),
]


def audited():
    """Before each of them, so that a statement's leaks are found, and undone."""
    policies.audit("all")


def without_a_pool():
    """Before each of them, so that a pool is made, opened, and its first connection introduced."""
    connections["default"].close_pool()


loses_nothing = pytest.mark.skipif(
    registry.load(engine.NAME).checkout_into is PoolAdapter.checkout_into,
    reason="an adapter that leaves checkout_into() as it is may lose what is struck",
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("work", "before"),
    [
        *((work, nothing) for work in WORK),
        *ONLY,
        *((work, audited) for work in (statement, refused, unseen, unseen_in_transaction)),
        (statement, without_a_pool),
    ],
)
@loses_nothing
def test_i15_at_each_instruction(db, struck, work, before):
    before()
    work()  # what is done once in a process
    db.close()
    struck(0)
    number = 1
    before()
    while strike_at(number, work, RELET):
        struck(number)
        number += STEP * FEWER
        before()
    assert number > 1
    # It is all there, as it was.
    struck(number)
    gc.collect()


# Prepared plans.

PLANNED = "SELECT %s + 4711"


def planned():
    run(PLANNED, [1])


def planned_in_transaction():
    with transaction.atomic():
        Item.objects.create(name="written")
        run(PLANNED, [1])


def renewed():
    """Before each of them, so that the statement is prepared, as for the first time."""
    book = connections["default"]._runner.handle.pool.plans
    book.texts.clear()
    book.renew()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("before", [renewed, nothing])
@pytest.mark.parametrize("work", [planned, planned_in_transaction])
@pytest.mark.skipif(driver.NAME == "psycopg2", reason="psycopg2 cannot prepare")
@loses_nothing
def test_i15_of_prepared_plans(db, struck, work, before):
    run("SELECT 1")
    relet.prepare(PLANNED)
    try:
        test_i15_at_each_instruction(db, struck, work, before)
    finally:
        declared._targets.clear()
        db.close_pool()


def test_a_wait_that_is_struck_is_over(make, monkeypatch):
    """Nobody is taken to wait for ever, which would cost each statement after it."""
    wrapper = make("struck wait", size=1)
    pool = wrapper._runner.find_pool().pool
    pool.open()
    connection = pool.checkout()
    # The pool is opened at leisure, but nobody waits for long in vain.
    take = pool.checkout_into
    monkeypatch.setattr(pool, "checkout_into", lambda lease: take(lease, 0.02))

    def work():
        with suppress(DatabaseError), wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")

    work()
    number = 1
    while strike_at(number, work, (relet.core, relet.adapters, relet.backends)):
        wrapper.close()
        assert collection.contention("struck wait").waiting == 0, number
        number += max(1, STEP // 10)
    assert number > 1
    pool.checkin(connection)
