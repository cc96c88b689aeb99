"""I5, I6, I8, I12 while server processes are killed, the server restarts, the network fails."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter

import pytest
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from .. import engine
from ..backends.conftest import stats
from ..backends.test_threads import wait_until
from . import bank
from .conftest import observed
from .havoc import BACKENDS, LEAST, PLAN, Havoc

SECONDS = float(os.environ.get("RELET_CHAOS_SECONDS", "10"))
SEED = os.environ.get("RELET_CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))
THREADS, CONNECTIONS = 16, 4
ALIAS = "bank"
#: What is said where there was none that could be lost.
NONE_AT_ALL = ("cannot connect", "couldn't get a connection")


class Worker(threading.Thread):
    """Does what a client wants until it is over, and once more when all is well again."""

    def __init__(self, number: int, busy: threading.Event) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self.client = bank.Client(ALIAS, f"{SEED}-{number}")
        #: Half of them never say that a request is over, as threads that are not Django's.
        self.tidy = number % 2 == 0
        self.busy = busy
        self.over, self.well = threading.Event(), threading.Event()
        self.stopped = threading.Event()
        #: Whether it is between two things to do.
        self.pausing = False
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        #: How often it was told that a connection was lost.
        self.lost = 0
        #: What ended it.
        self.error: BaseException | None = None
        self.acknowledged_last = False

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.pausing = True
                self.busy.wait()
                self.pausing = False
                self._do()
            self.stopped.set()
            self.well.wait()
            self.client.transfer()
            self.acknowledged_last = True
        except BaseException as error:
            self.error = error
        finally:
            self.stopped.set()
            connections[ALIAS].close()

    def _do(self) -> None:
        client = self.client
        (name,) = client.chance.choices(("transfer", "read", "iterate", "set"), (80, 10, 5, 5))
        try:
            getattr(client, name)()
            self.done[name] += 1
        except (OperationalError, InterfaceError) as error:
            self.failed[f"{name}: {type(error).__name__}"] += 1
            self.lost += not any(text in str(error) for text in NONE_AT_ALL)
        finally:
            if self.tidy:
                close_old_connections()


def assert_at_rest(wrapper):
    """I4, I5: nothing is leased, and nobody waits."""
    found = stats(wrapper)
    held = "\n".join(wrapper._find_pool().pool.holders())
    assert (found.in_use, found.waiting) == (0, 0), f"{found}\n{held}"


@pytest.mark.usefixtures("garbage")
def test_chaos(postgres, network, use, caplog):
    caplog.set_level("ERROR", "psycopg.pool")  # it warns of each connection that was lost
    print(f"RELET_CHAOS_SEED={SEED}")
    wrapper = use(network.port, alias=ALIAS, size=CONNECTIONS)
    bank.found(ALIAS)
    busy = threading.Event()
    busy.set()
    workers = [Worker(number, busy) for number in range(THREADS)]
    clients = [worker.client for worker in workers]

    def resting():
        return all(worker.pausing for worker in workers)

    havoc = Havoc(postgres, network, random.Random(SEED), busy, resting)
    for worker in workers:
        worker.start()
    try:
        havoc.wreak(SECONDS)
    finally:
        for worker in workers:
            worker.over.set()
        for worker in workers:
            worker.stopped.wait(30)
    errors = [worker.error for worker in workers if worker.error is not None]
    if errors:
        raise errors[0]
    assert all(worker.stopped.is_set() for worker in workers)
    assert_at_rest(wrapper)

    failed = 0
    try:
        clients[0].read()
    except OperationalError:
        failed = 1
        clients[0].read()  # by then no other that is dead is handed out
    for worker in workers:
        worker.well.set()
    for worker in workers:
        worker.join(30)
    assert [worker.error for worker in workers] == [None] * THREADS
    assert all(worker.acknowledged_last for worker in workers)

    with observed(postgres) as observer:
        there = bank.audit(observer, clients)
        wait_until(
            observer,
            f"SELECT count(*) <= {CONNECTIONS} AND bool_and(state = 'idle') FROM ({BACKENDS}) AS b "
            "WHERE pid <> pg_backend_pid()",
        )
    bank.close(ALIAS)
    assert_at_rest(wrapper)
    done, errors = Counter(), Counter()
    for worker in workers:
        done += worker.done
        errors += worker.failed
    lost = sum(worker.lost for worker in workers)
    acknowledged = sum(len(client.acknowledged) for client in clients)
    print(
        f"chaos on {engine.NAME}, {SECONDS:g} s: {havoc.kills.total()} kills {dict(havoc.kills)}, "
        f"{dict(havoc.done)}; {acknowledged} transfers acknowledged, {there} there; "
        f"done {dict(done)}, failed {dict(errors)}, {lost} of them by a lost connection, "
        f"and {failed} afterwards"
    )
    assert havoc.kills.total() >= LEAST * SECONDS
    if SECONDS >= 30:
        assert {"active", "idle", "idle in transaction"} <= set(havoc.kills)
    assert havoc.done == Counter({name: len(parts) for name, parts in PLAN.items()})
    assert acknowledged >= 2 * SECONDS
    # I6: who has lost a connection is told once, and nobody gets it again.
    ends = havoc.done["fast"] + havoc.done["immediate"] + havoc.done["reset"]
    assert lost <= havoc.kills.total() + CONNECTIONS * ends
