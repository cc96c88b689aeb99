"""A network that stalls, delays, resets, cuts, refuses, or swallows."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, transaction

from ..support.pools import all_pids, at_rest, backend_pid, stats
from ..support.threads import Thread
from .conftest import UNSEEN
from .test_killed_backends import ALIAS, run, table

__all__ = ["table"]

LOST = (OperationalError, InterfaceError)
NAMED = rf"DATABASES\['{ALIAS}'\]: "


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("ERROR", "psycopg.pool")  # it warns of each attempt to connect


@pytest.fixture
def db(network, use):
    wrapper = use(network.port, policy=UNSEEN)
    assert backend_pid(wrapper)
    return wrapper


@contextmanager
def stuck(thread, function):
    """Have *thread* call *function*, which cannot end in this block; yield what comes of it."""
    outcome = []

    def call():
        try:
            outcome.append(thread(function))
        except Exception as error:
            outcome.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    yield outcome
    caller.join(20)
    assert not caller.is_alive()


@pytest.fixture
def thread():
    thread = Thread()
    yield thread
    thread.end()


def leased(wrapper, count):
    """Wait until *count* connections are."""
    for _ in range(10_000):
        if stats(wrapper).in_use == count:
            return
        threading.Event().wait(0.001)
    raise AssertionError(stats(wrapper))


def test_a_stall_that_ends(network, db, thread, table):
    other = db.copy()
    other.inc_thread_sharing()
    network.stall()
    with stuck(thread, lambda: run(other, "INSERT INTO written VALUES ('late')")) as outcome:
        leased(db, 1)
        assert not outcome
        network.resume()
    assert outcome == [None]
    other.close()
    assert table() == ["late"]
    assert at_rest(db)


def test_others_go_on_where_one_connection_stalls(network, use, thread, observer):
    wrapper = use(network.port, size=2, policy=UNSEEN)
    assert len(set(all_pids(wrapper))) == 2
    other = wrapper.copy()
    other.inc_thread_sharing()
    other.set_autocommit(False)
    kept = backend_pid(other)
    port = "SELECT client_port FROM pg_stat_activity WHERE pid = %s"
    ((port,),) = observer.execute(port, [kept]).fetchall()
    network.freeze(port)
    with stuck(thread, lambda: backend_pid(other)) as outcome:
        for _ in range(20):
            assert backend_pid(wrapper) != kept
        assert not outcome
        network.thaw()
    assert outcome == [kept]
    other.rollback()
    other.close()
    assert at_rest(wrapper)


def test_a_stall_that_ends_in_a_reset(network, db, thread, table):
    other = db.copy()
    other.inc_thread_sharing()
    network.stall()
    with stuck(thread, lambda: run(other, "INSERT INTO written VALUES ('lost')")) as outcome:
        leased(db, 1)
        network.reset()
        network.resume()
    (error,) = outcome
    assert isinstance(error, OperationalError)
    assert at_rest(other)
    run(db, "INSERT INTO written VALUES ('kept')")
    assert table() == ["kept"]
    assert at_rest(db)


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_lost_while_idle(network, use, fault):
    wrapper = use(network.port, size=4, policy=UNSEEN)
    before = set(all_pids(wrapper))
    getattr(network, fault)()
    with pytest.raises(OperationalError):
        backend_pid(wrapper)
    assert at_rest(wrapper)
    assert not before & set(all_pids(wrapper))
    assert at_rest(wrapper)


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_i8_lost_in_a_transaction(network, db, table, fault):
    with pytest.raises(DatabaseError), transaction.atomic(using=ALIAS):
        run(db, "INSERT INTO written VALUES ('lost')")
        getattr(network, fault)()
        for _ in range(3):
            with pytest.raises(LOST):
                run(db, "INSERT INTO written VALUES ('on another connection')")
    assert at_rest(db)
    run(db, "INSERT INTO written VALUES ('kept')")
    assert table() == ["kept"]


def test_i12_lost_in_the_commit(network, db, thread, table):
    """Nobody knows what became of it: it is there once, or it is not."""
    other = db.copy()
    other.inc_thread_sharing()
    other.set_autocommit(False)
    run(other, "INSERT INTO written VALUES ('perhaps')")
    network.stall()
    with stuck(thread, other.commit) as outcome:
        network.reset()
        network.resume()
    (error,) = outcome
    assert isinstance(error, LOST)
    other.close()
    assert at_rest(db)
    assert table() in ([], ["perhaps"])
    assert run(db, "SELECT 1") == [(1,)]


def test_a_slow_network(network, use, table):
    wrapper = use(network.port, size=2, policy=UNSEEN)
    network.delay = 0.01
    threads = [Thread() for _ in range(4)]

    def write(number):
        copied = wrapper.copy()
        run(copied, f"INSERT INTO written VALUES ('{number}')")
        return run(copied, f"SELECT {number}")

    assert [thread(lambda n=n: write(n)) for n, thread in enumerate(threads)] == [
        [(n,)] for n in range(4)
    ]
    for thread in threads:
        thread.end()
    assert sorted(table()) == ["0", "1", "2", "3"]
    assert at_rest(wrapper)


def in_time(wrapper, seconds):
    """Return the error of a statement; it comes within *seconds*."""
    thread = Thread()
    with stuck(thread, lambda: backend_pid(wrapper)) as outcome:
        for _ in range(int(seconds * 100)):
            if outcome:
                break
            threading.Event().wait(0.01)
        in_time = bool(outcome)
    thread.end()
    assert in_time, f"it took more than {seconds} s: {outcome}"
    return outcome[0]


@pytest.mark.parametrize("used", [True, False], ids=["a pool in use", "a new pool"])
def test_connections_are_refused(network, use, used):
    wrapper = use(network.port, timeout=1, policy=UNSEEN)
    wrapper.inc_thread_sharing()
    if used:
        assert backend_pid(wrapper)
    network.refuse()
    network.cut()
    if used:
        with pytest.raises(LOST):
            backend_pid(wrapper)
    error = in_time(wrapper, 3)
    assert isinstance(error, OperationalError)
    assert pytest.RaisesExc(OperationalError, match=NAMED + "cannot connect").matches(error)
    assert at_rest(wrapper)
    network.accept()
    assert backend_pid(wrapper)


@pytest.mark.parametrize("used", [True, False], ids=["a pool in use", "a new pool"])
def test_nobody_answers(network, use, used):
    wrapper = use(network.port, timeout=2, connect_timeout=2)
    wrapper.inc_thread_sharing()
    if used:
        assert backend_pid(wrapper)
    network.swallow()
    network.cut()
    if used:
        with pytest.raises(LOST):
            backend_pid(wrapper)
    error = in_time(wrapper, 6)
    assert isinstance(error, OperationalError)
    assert pytest.RaisesExc(OperationalError, match=NAMED).matches(error)
    assert at_rest(wrapper)
