"""Clients that work while server processes are killed, the server restarts, the network fails."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections, connections

from ..support import engine
from ..support.interrupts import Interrupt
from ..support.pools import stats
from ..support.proxy import Proxy
from ..support.server import Server
from ..support.sessions import until_true
from . import bank
from .conftest import observed
from .havoc import BACKENDS, LEAST, PLAN, Havoc

SEED = os.environ.get("RELET_CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))
THREADS, CONNECTIONS = 16, 4
ALIAS = "bank"
#: Seconds after which a session whose client has gone is gone, too, however busy the system is.
LINGERS = 5.0
#: What is said where there was none that could be lost.
NONE_AT_ALL = ("cannot connect", "couldn't get a connection")


class Worker(threading.Thread):
    """Does what a client wants until it is over, and once more when all is well again."""

    def __init__(self, name: str, number: int, busy: threading.Event) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self.client = bank.Client(ALIAS, f"{name}-{number}")
        #: Half of them never say that a request is over, as threads that are not Django's.
        self.normalize = number % 2 == 0
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
            if self.normalize:
                close_old_connections()


class Interrupted(Worker):
    """One whose work is interrupted at random. It is run in the main thread, as signals are."""

    def __init__(self, name: str, number: int, busy: threading.Event) -> None:
        super().__init__(name, number, busy)
        #: How often it was.
        self.struck = 0
        self._armed = False

    def run(self) -> None:
        with self._timer():
            super().run()

    @contextmanager
    def _timer(self) -> Iterator[None]:
        previous = signal.signal(signal.SIGALRM, self._strike)
        # pytest's takes steps, and is not safe from interrupts.
        hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            sys.unraisablehook = hook

    def _strike(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise Interrupt

    def _do(self) -> None:
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, self.client.chance.uniform(1e-5, 0.1))
            super()._do()
            self._armed = False
        except Interrupt:
            self.struck += 1
            # It may have struck between the block of a transaction and its end.
            connections[ALIAS].close()
            del connections[ALIAS]
        finally:
            self._armed = False


def assert_at_rest() -> None:
    """I4, I5: nothing is leased, and nobody waits."""
    wrapper: Any = connections[ALIAS]
    found = stats(wrapper)
    held = "\n".join(wrapper._runner.find_pool().pool.describe_holders())
    assert (found.in_use, found.waiting) == (0, 0), f"{found}\n{held}"


def chaos(server: Server, network: Proxy, seconds: float, *, name: str, interrupts: bool) -> None:
    """Have many clients work through *network* for so many *seconds*, and audit what they did.

    I5, I6, I8, I12 hold, and I18. The alias is there, with a pool of `CONNECTIONS`.

    :param name: what is left to chance depends on it.
    :param interrupts: whether one of them works in this thread, the main one, and is interrupted.
    """
    bank.found(ALIAS)
    busy = threading.Event()
    busy.set()
    workers = [Worker(name, number, busy) for number in range(THREADS - interrupts)]
    threads, here = list(workers), Interrupted(name, THREADS, busy) if interrupts else None
    if here is not None:
        workers.append(here)
    clients = [worker.client for worker in workers]

    def resting() -> bool:
        return all(worker.pausing for worker in workers)

    havoc = Havoc(server, network, random.Random(name), busy, resting, CONNECTIONS + 1)
    failures: list[BaseException] = []

    def wreak() -> None:
        try:
            havoc.wreak(seconds)
        except BaseException as error:
            failures.append(error)
        finally:
            for worker in workers:
                worker.over.set()

    wreaking = threading.Thread(target=wreak, daemon=True)
    for thread in (*threads, wreaking):
        thread.start()
    if here is not None:
        here.well.set()
        here.run()
    wreaking.join()
    for worker in workers:
        worker.stopped.wait(30)
    failures += [worker.error for worker in workers if worker.error is not None]
    if failures:
        raise failures[0]
    assert all(worker.stopped.is_set() for worker in workers)
    assert_at_rest()

    failed = 0
    try:
        clients[0].read()
    except OperationalError:
        failed = 1
        clients[0].read()  # by then no other that is dead is handed out
    for worker in workers:
        worker.well.set()
    for thread in threads:
        thread.join(30)
    assert [worker.error for worker in workers] == [None] * THREADS
    assert all(worker.acknowledged_last for worker in workers)

    with observed(server) as observer:
        there = bank.audit(observer, clients)
        until_true(
            observer,
            f"SELECT count(*) <= {CONNECTIONS} AND bool_and(state = 'idle') FROM ({BACKENDS}) AS b "
            "WHERE pid <> pg_backend_pid()",
        )
    bank.close(ALIAS)
    assert_at_rest()
    done: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for worker in workers:
        done += worker.done
        errors += worker.failed
    lost = sum(worker.lost for worker in workers)
    acknowledged = sum(len(client.acknowledged) for client in clients)
    print(
        f"chaos on {engine.NAME}, {seconds:g} s: {havoc.kills.total()} kills {dict(havoc.kills)}, "
        f"{dict(havoc.done)}, {here.struck if here else 0} interrupts; "
        f"{acknowledged} transfers acknowledged, {there} there; "
        f"done {dict(done)}, failed {dict(errors)}, {lost} of them by a lost connection, "
        f"and {failed} afterwards; {network.most_links} connections at most, "
        f"{havoc.most} sessions, too many for {havoc.too_many_for:.2f} s"
    )
    assert havoc.kills.total() >= LEAST * seconds
    if seconds >= 30:
        assert {"active", "idle", "idle in transaction"} <= set(havoc.kills)
    assert havoc.done == Counter({name: len(parts) for name, parts in PLAN.items()})
    assert acknowledged >= 2 * seconds
    # I6: who has lost a connection is told once, and nobody gets it again.
    ends = havoc.done["fast"] + havoc.done["immediate"] + havoc.done["reset"]
    assert lost <= havoc.kills.total() + CONNECTIONS * ends
    assert network.most_links <= CONNECTIONS + 1
    assert havoc.too_many_for < LINGERS
    assert here is None or here.struck
