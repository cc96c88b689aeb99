"""Waiting for a connection: who has them is told, and who has them all does not wait."""

import asyncio
import pickle
import re
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, transaction

from relet import hold
from relet.adapters.slots import Slot
from relet.core import PoolTimeout

from ..support import driver, engine
from ..support.holder import holding
from ..support.pools import at_rest, backend_pid, stats
from ..support.steps import steps
from ..support.threads import in_thread
from ..support.waiting import until


def held_pool(make, **settings):
    """A wrapper for whose connection others wait in vain; it is open already."""
    wrapper = make("held", timeout=0.2, **settings)
    until(lambda: is_open(wrapper))
    return wrapper


def is_open(wrapper):
    # To open it may take longer, where the system has much else to do.
    with suppress(OperationalError):
        return in_thread(lambda: backend_pid(wrapper.copy()))


def refusal(wrapper):
    """What is said to another thread that waits in vain."""
    with pytest.raises(OperationalError) as caught:
        in_thread(lambda: backend_pid(wrapper.copy()))
    return str(caught.value)


@contextmanager
def in_transaction(wrapper):
    wrapper.set_autocommit(False)
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT  'a secret',\n 42 -- why\n, %s", ["another"])
    yield
    wrapper.rollback()
    wrapper.set_autocommit(True)
    wrapper.close()


@contextmanager
def with_server_side_cursor(wrapper):
    with wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 10)")
        yield


@contextmanager
def with_setting(wrapper):
    with wrapper.cursor() as cursor:
        cursor.execute("SET app.tenant = 'a secret'")
    yield
    wrapper.close()


@contextmanager
def with_cursor(wrapper):
    with wrapper.temporary_connection():
        yield


@pytest.mark.parametrize(
    ("take", "why", "sql"),
    [
        (in_transaction, "in a transaction", "SELECT ?, ? , %s"),
        (with_server_side_cursor, "in a transaction|server-side cursor", "SELECT generate_series"),
        (with_setting, "with session state", "SET app.tenant = ?"),
        (with_cursor, "with a cursor or COPY open", "none"),
    ],
)
def test_holders_are_named(make, take, why, sql):
    wrapper = held_pool(make)
    with holding(lambda: take(wrapper.copy())):
        text = refusal(wrapper)
    assert "DATABASES['held']: couldn't get a connection after 0.20 sec" in text
    assert "1 of 1 connections are leased" in text
    (line,) = text.partition("Current holders:\n")[2].splitlines()
    assert line.startswith("  thread 'holder' for ")
    assert re.search(why, line)
    assert f"taken at {Path(__file__)}:" in line
    assert f"last SQL: {sql}" in line
    assert "secret" not in text
    assert at_rest(wrapper)


@pytest.mark.parametrize("release", ["statement", "cursor", "request"])
def test_in_each_release_mode(make, release):
    """Also in a wrapper's second lease, which begins in another way than its first."""
    wrapper = held_pool(make, policy={"release": release, "check_idle": 3600})

    @contextmanager
    def second(copied):
        backend_pid(copied)
        copied.close()
        with in_transaction(copied):
            yield

    with holding(lambda: second(wrapper.copy())):
        text = refusal(wrapper)
        (line,) = text.partition("Current holders:\n")[2].splitlines()
        assert re.match(
            r"  thread 'holder' for .*, in a transaction, taken at .*; last SQL: SELECT", line
        )
        assert f"taken at {Path(__file__)}:" in line
    with transaction_of(wrapper):
        pass
    with transaction_of(wrapper):
        with pytest.raises(OperationalError, match="would deadlock") as caught:
            backend_pid(wrapper.copy())
        # As the pool's own, which Django's tests ask for.
        expected = engine.adapter().timeout_error or driver.dbapi.OperationalError
        assert isinstance(caught.value.__cause__, expected)


def test_the_error_has_a_class_of_its_own(make):
    """Below Django's: whoever wants to tell it from others asks for the cause."""
    wrapper = make("held", timeout=0.1)
    with holding(lambda: in_transaction(wrapper.copy())), pytest.raises(OperationalError) as caught:
        in_thread(lambda: backend_pid(wrapper.copy()))
    cause = caught.value.__cause__
    assert isinstance(cause, PoolTimeout)
    assert isinstance(cause, driver.dbapi.OperationalError)
    again = pickle.loads(pickle.dumps(cause))
    assert (type(again), str(again)) == (type(cause), str(cause))


def test_tasks_are_named(make):
    """Their code runs in threads, which say little; and in none of the frames there is a view."""
    wrapper = held_pool(make)
    held, over = threading.Event(), threading.Event()

    def transaction():
        copied = wrapper.copy()
        with in_transaction(copied):
            held.set()
            over.wait(20)

    async def view():
        await sync_to_async(transaction)()

    async def main():
        task = asyncio.create_task(view(), name="the request")
        await asyncio.to_thread(held.wait, 20)
        text = await asyncio.to_thread(refusal, wrapper)
        over.set()
        await task
        return text

    (line,) = asyncio.run(main()).partition("Current holders:\n")[2].splitlines()
    assert line.startswith("  task 'the request' in thread ")
    assert f"taken at {Path(__file__)}:" in line


@pytest.mark.parametrize("first", [True, False])
def test_one_that_runs_a_statement_is_named(make, observer, first):
    wrapper = make("running", timeout=0.2)
    observer.execute("SELECT pg_advisory_lock(4711)")

    def run():
        copied = wrapper.copy()
        with copied.cursor() as cursor:
            if not first:
                cursor.execute("SELECT 1")
            cursor.execute("SELECT pg_advisory_xact_lock(4711)")

    thread = threading.Thread(target=run, name="runner")
    thread.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    until(lambda: observer.execute(waiting).fetchone() != (0,))
    text = refusal(wrapper)
    observer.execute("SELECT pg_advisory_unlock(4711)")
    thread.join(20)
    (line,) = text.partition("Current holders:\n")[2].splitlines()
    assert re.match(r"  thread 'runner'.*, running a statement, taken at ", line)
    assert f"{Path(__file__)}:" in line
    assert "last SQL: SELECT pg_advisory_xact_lock(?)" in line


def test_many_holders_are_cut_short(make):
    wrapper = make("many", size=12, timeout=0.2)
    copies = [wrapper.copy() for _ in range(12)]
    for copied in copies:
        copied.set_autocommit(False)
        backend_pid(copied)
    lines = refusal(wrapper).partition("Current holders:\n")[2].splitlines()
    assert len(lines) == 11
    assert lines[-1] == "  and 2 more"
    for copied in copies:
        copied.rollback()
        copied.close()
    assert stats(wrapper).in_use == 0


class TestWaitingForOneself:
    """A thread that keeps all connections would wait until its time is up, in vain."""

    def test_is_told_at_once(self, make):
        wrapper = make("itself", timeout=1000)
        other = wrapper.copy()
        with transaction_of(wrapper):
            before = stats(wrapper).waits
            with pytest.raises(OperationalError, match="would deadlock") as caught:
                backend_pid(other)
            assert stats(wrapper).waits == before
            assert f"taken at {backend_pid.__code__.co_filename}:" in str(caught.value)
            # The transaction goes on.
            assert backend_pid(wrapper)
        assert at_rest(wrapper)
        assert backend_pid(other)

    def test_not_while_others_may_give_one_back(self, make):
        wrapper = make("others", size=2, timeout=0.2)
        with (
            transaction_of(wrapper),
            holding(lambda: with_cursor(wrapper.copy())),
            pytest.raises(OperationalError, match="couldn't get a connection after"),
        ):
            backend_pid(wrapper.copy())
        assert stats(wrapper).in_use == 0

    def test_all_of_several(self, make):
        wrapper = make("several", size=2, timeout=1000)
        with (
            transaction_of(wrapper),
            transaction_of(wrapper.copy()),
            pytest.raises(OperationalError, match="would deadlock"),
        ):
            backend_pid(wrapper.copy())
        assert stats(wrapper).in_use == 0

    def test_in_a_hold_block(self, make):
        wrapper = make("held", timeout=1000)
        connections["held"] = wrapper
        try:
            with hold("held"):
                backend_pid(wrapper)
                with pytest.raises(OperationalError, match="would deadlock"):
                    backend_pid(wrapper.copy())
        finally:
            wrapper.close()
            del connections["held"]

    def test_nothing_is_noted_for_good(self, make):
        wrapper = make("noted")
        for _ in range(3):
            with transaction_of(wrapper):
                assert len(wrapper._runner.find_pool().pool.long_leases) == 1
            in_thread(lambda: backend_pid(wrapper.copy()))
        assert wrapper._runner.find_pool().pool.long_leases == {}


@contextmanager
def transaction_of(wrapper):
    wrapper.set_autocommit(False)
    backend_pid(wrapper)
    try:
        yield
    finally:
        wrapper.rollback()
        wrapper.set_autocommit(True)
        wrapper.close()


def test_atomic_on_two_aliases_is_no_waiting(db):
    with transaction.atomic():
        backend_pid(db)
        assert in_thread(lambda: True)


def work_beside(make, others):
    """The steps of giving back, and of waiting in vain, while so many threads wait."""
    wrapper = make(f"beside{others}")
    backend_pid(wrapper)
    pool = wrapper._runner.find_pool().pool
    if pool.fair_queue is None:
        pytest.skip("the pool's own class is responsible for who waits")
    pool.fairness = 60  # what is counted is this thread's work alone,
    pool.describe_holders = tuple  # and not the text of the error

    def wait():
        slot = Slot()
        pool.checkout_into(slot, 60)
        pool.checkin_from(slot)

    mine = Slot()
    pool.checkout_into(mine)
    threads = [threading.Thread(target=wait) for _ in range(others)]
    for thread in threads:
        thread.start()
    until(lambda: pool.stats().waiting == others)
    in_vain = steps(pool.checkout_into, Slot(), 0.0)
    giving_back = steps(pool.checkin_from, mine)
    for thread in threads:
        thread.join(60)
    assert stats(wrapper).in_use == stats(wrapper).waiting == 0
    return in_vain, giving_back


def test_the_work_of_a_thread_does_not_grow_with_the_queue(make):
    few, many = work_beside(make, 1), work_beside(make, 100)
    assert few[0] > 10
    for one, other in zip(few, many, strict=True):
        assert other <= 1.2 * one


class Told(Exception):
    """What a signal handler raises."""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals for threads")
def test_a_signal_that_does_not_interrupt_the_wait(make):
    """It has come to another thread; one that comes just before the system call is like it."""
    wrapper, heard = make("waiting", timeout=30), threading.Event()
    in_time = []

    def handler(*_):
        heard.set()
        raise Told

    @contextmanager
    def held():
        with in_transaction(wrapper.copy()):
            yield

    def strike():
        until(lambda: stats(wrapper).waiting == 1)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
        in_time.append(heard.wait(10))

    previous = signal.signal(signal.SIGALRM, handler)
    striker = threading.Thread(target=strike)
    try:
        with holding(held):
            striker.start()
            with pytest.raises(Told):
                backend_pid(wrapper)
    finally:
        striker.join()
        signal.signal(signal.SIGALRM, previous)
    assert in_time == [True]
    assert at_rest(wrapper)
