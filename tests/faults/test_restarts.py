"""The server goes, and comes back: so do its connections."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from relet.core import ReleasePolicy

from ..support.pools import all_pids, at_rest, backend_pid, stats
from ..support.threads import Thread
from . import bank

pytestmark = pytest.mark.slow


ALIAS = "faults"
MODES = ["fast", "immediate"]
LOST = (OperationalError, InterfaceError)
#: Seconds within which the first request is to succeed.
AT_ONCE = 1.0


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("ERROR", "psycopg.pool")  # it warns of each attempt to connect


def within(seconds, function):
    """Call *function* in a thread of its own; return its result, if it comes in time."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except Exception as error:
            outcome.append((None, error))
        finally:
            connections[ALIAS].close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    late = thread.is_alive()
    thread.join(30)
    assert not late, f"it took more than {seconds} s: {outcome}"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def pid():
    return backend_pid(connections[ALIAS])


@pytest.mark.parametrize("mode", MODES)
def test_restarted_while_idle(postgres, use, mode):
    """Down for longer than connections are taken to work unasked."""
    wrapper = use(postgres.port, size=4)
    before = set(all_pids(wrapper))
    postgres.stop(mode)
    threading.Event().wait(ReleasePolicy().check_idle)
    postgres.start()
    assert within(AT_ONCE, pid) not in before
    assert at_rest(wrapper)


@pytest.mark.parametrize("mode", MODES)
def test_restarted_while_idle_with_health_checks(postgres, use, mode):
    wrapper = use(postgres.port, size=4, health_checks=True, policy={"check_idle": 0})
    before = set(all_pids(wrapper))
    postgres.restart(mode)
    assert within(AT_ONCE, pid) not in before
    assert at_rest(wrapper)


def test_restarted_in_a_moment(postgres, use):
    """One is told of the restart at most, and nobody else."""
    wrapper = use(postgres.port, size=4)
    before = set(all_pids(wrapper))
    postgres.restart("immediate")
    failed = 0
    for _ in range(10):
        try:
            assert within(AT_ONCE, pid) not in before
        except LOST:
            failed += 1
    assert failed <= 1
    assert at_rest(wrapper)


def test_the_first_request_after_a_long_time(postgres, use):
    """Pools that wait between attempts to connect do not have a request wait for the next one."""
    wrapper = use(postgres.port, size=2, timeout=1)
    assert all_pids(wrapper)
    postgres.stop("immediate")
    try:
        for _ in range(4):
            with pytest.raises(LOST):
                within(5, pid)
            threading.Event().wait(0.5)
    finally:
        postgres.start()
    assert within(AT_ONCE, pid)
    assert at_rest(wrapper)


def test_whoever_waits_while_the_server_is_away(postgres, use):
    """It is told that, or has a connection as soon as there is one."""
    wrapper = use(postgres.port, size=1, timeout=10)
    assert backend_pid(wrapper)
    postgres.stop("immediate")
    try:
        with pytest.raises(LOST):
            backend_pid(wrapper)
        waiting = Thread()
        outcome = []

        def wait():
            try:
                outcome.append(waiting(pid))
            except LOST as error:
                outcome.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(3)
    finally:
        postgres.start()
    waiter.join(AT_ONCE)
    late = waiter.is_alive()
    waiter.join(20)
    waiting(lambda: connections[ALIAS].close())
    waiting.end()
    assert not late
    assert outcome
    assert within(AT_ONCE, pid)
    assert at_rest(wrapper)


@pytest.mark.parametrize("normalize", [True, False], ids=["requests", "bare threads"])
@pytest.mark.parametrize("mode", MODES)
def test_restarted_under_load(postgres, use, mode, normalize):
    wrapper = use(postgres.port, size=4, timeout=30)
    bank.found(ALIAS)
    working, restarted = threading.Semaphore(0), threading.Event()

    def work(client):
        """Return how often a transfer failed that was begun when the server was back."""
        client.transfer()
        working.release()
        failed = done = 0
        while done < 5:
            was_back = restarted.is_set()
            try:
                client.transfer()
                done += was_back
            except LOST:
                failed += was_back
            if normalize:
                close_old_connections()
        connections[ALIAS].close()
        return failed

    clients = [bank.Client(ALIAS, f"restart-{number}") for number in range(8)]
    with ThreadPoolExecutor(len(clients)) as executor:
        futures = [executor.submit(work, client) for client in clients]
        for _ in clients:
            assert working.acquire(timeout=20)
        postgres.restart(mode)
        restarted.set()
        failed = [future.result(60) for future in futures]
    # Of each connection that broke, one thread was told at most.
    assert sum(failed) <= 4
    assert at_rest(wrapper)
    assert stats(wrapper).waiting == 0
    bank.close(ALIAS)
