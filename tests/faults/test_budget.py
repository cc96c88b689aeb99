"""A budget that many processes share: deployments, kills and restarts do not exceed it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ..support import driver, engine
from ..support.fleet import Fleet, started
from ..support.forks import needs_fork
from ..support.server import VOLATILE, Server, new_server
from ..support.waiting import until

pytestmark = [needs_fork, pytest.mark.slow]

BUDGET = 20
PROCESSES, THREADS, SIZE = 8, 5, 10
#: It uses a connection, and not the processor.
SQL = "SELECT pg_sleep(0.1)"
SESSIONS = """
SELECT (SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock')
"""


@pytest.fixture(scope="module")
def postgres(template: Any) -> Iterator[Server]:
    with new_server(template, {**VOLATILE, "max_connections": "60"}) as server:
        yield server


def database(server: Server) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "ENGINE": engine.ENGINE,
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": str(server.port),
        "OPTIONS": {"budget": {"connections": BUDGET, "group": "fleet"}},
    }
    engine.put_small_pool(settings, size=SIZE, timeout=30)
    return settings


class Peak:
    """The most sessions, and permits, that the server has had at the same time."""

    def __init__(self) -> None:
        self.sessions = self.permits = 0

    @contextmanager
    def watching(self, server: Server) -> Iterator[None]:
        """Ask the server all the time."""
        ended = threading.Event()

        def watch() -> None:
            with driver.connect(**server.parameters) as observer:
                while not ended.wait(0.01):
                    sessions, permits = observer.execute(SESSIONS).fetchone()
                    self.sessions = max(self.sessions, sessions)
                    self.permits = max(self.permits, permits)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def until_served(*fleets: Fleet, alive: Any = None) -> None:
    """Wait until each process has served some more requests."""
    before = [fleet.work() for fleet in fleets]
    chosen = range(PROCESSES) if alive is None else alive
    until(
        lambda: all(
            fleet.work()[number].served >= was[number].served + THREADS
            for fleet, was in zip(fleets, before, strict=True)
            for number in chosen
        )
    )


def test_the_budget_is_never_exceeded(postgres: Server) -> None:
    settings = database(postgres)
    options = {"processes": PROCESSES, "threads": THREADS, "sql": SQL}
    peak = Peak()
    with started(settings, **options) as old:
        with peak.watching(postgres):
            until_served(old)
            with started(settings, **options) as new:  # a deployment
                until_served(old, new)
                half = range(PROCESSES // 2)
                for number in half:
                    old.kill(number)
                    new.kill(number)
                alive = range(PROCESSES // 2, PROCESSES)
                until_served(old, new, alive=alive)
                said = new.stop()
        assert peak.permits == BUDGET
        # One for each process whose threads wait. The processes that were killed may still run
        # a statement.
        assert BUDGET < peak.sessions <= BUDGET + 2 * PROCESSES
        postgres.restart()
        while_away = old.work()
        again = Peak()
        with again.watching(postgres):
            until_served(old, alive=alive)
        assert again.permits <= BUDGET
        assert "Traceback" not in old.stop()  # psycopg_pool logs what the restart has broken
    assert said == ""
    for work in [*old.work(), *new.work()]:
        assert (work.timeouts, work.others) == (0, 0)
    # What the restart has met was lost, and nothing else.
    assert [work.lost for work in new.work()] == [0] * PROCESSES
    # How much that is depends on how long it takes. Since then, each connection was found broken
    # once, and each thread may have been about to open one.
    for work, was in zip(old.work(), while_away, strict=True):
        assert work.lost - was.lost <= SIZE + THREADS


SECONDS = float(os.environ.get("RELET_FLEET_SECONDS", "0"))


@pytest.mark.skipif(not SECONDS, reason="RELET_FLEET_SECONDS is not set: nox -s nightly sets it")
def test_processes_get_as_much_as_each_other(postgres: Server) -> None:
    """For 20 connections and 8 processes, which cannot all have as many at the same time."""
    options = {"processes": PROCESSES, "threads": SIZE, "sql": SQL}
    with started(database(postgres), **options) as fleet:
        until_served(fleet)
        before = fleet.work()
        threading.Event().wait(SECONDS)
        served = [now.served - was.served for now, was in zip(fleet.work(), before, strict=True)]
        assert fleet.stop() == ""
    print(f"{engine.NAME}: {served}, {max(served) / min(served):.2f}")
    assert max(served) <= 1.5 * min(served)
