"""The fleet: which processes are in it, under servers that fork, replace and kill them."""

from __future__ import annotations

import os
import signal

import pytest

from .bouncer import bouncer, installed
from .conftest import Project
from .fleet import Table
from .test_gunicorn import COMMAND, WORKERS
from .watch import Watch


@pytest.mark.slow
def test_workers_report_and_say_goodbye(project: Project, watch: Watch, fleet: Table) -> None:
    with project.site(*COMMAND) as site:
        workers = {health["pid"] for health in site.healths(WORKERS)}
        fleet.wait_for(workers)
        watch.wait_for({"idle"})
    fleet.wait_for(set())


@pytest.mark.slow
def test_preloaded(project: Project, fleet: Table) -> None:
    """I10: the parent reports itself; its children are others, whatever they have inherited."""
    project.extra["PROJECT_QUERIES_AT_IMPORT"] = "1"
    with project.site(*COMMAND, "--preload") as site:
        old = {health["pid"] for health in site.healths(WORKERS)}
        fleet.wait_for({site.process.pid, *old})
        site.process.send(signal.SIGHUP)

        def replaced() -> bool:
            site.answers()  # a worker reports itself when it has a pool
            pids = set(fleet.pids())
            return site.process.pid in pids and len(pids) == 1 + WORKERS and not pids & old

        site.process.until(replaced, "replaced its workers")
    fleet.wait_for(set())


@pytest.mark.slow
def test_one_that_is_killed(project: Project, fleet: Table) -> None:
    """Its row stays, and is deleted by the others when it is old."""
    with project.site(*COMMAND) as site:
        victim, other = sorted(health["pid"] for health in site.healths(WORKERS))
        fleet.wait_for({victim, other})
        os.kill(victim, signal.SIGKILL)
        site.process.until(
            lambda: site.answers() not in {None, victim, other}, "replaced the worker"
        )
        (new,) = {health["pid"] for health in site.healths(WORKERS)} - {other}
        fleet.wait_for({victim, other, new})
        fleet.execute(
            "UPDATE relet_dashboard_process SET beat_at = now() - interval '301 seconds' "
            f"WHERE pid = {victim}"
        )
        # The first beat of a process sweeps: another worker is killed to have one.
        os.kill(other, signal.SIGKILL)
        site.process.until(
            lambda: site.answers() not in {None, victim, other, new}, "replaced the worker"
        )
        (newest,) = {health["pid"] for health in site.healths(WORKERS)} - {new}
        fleet.wait_for({other, new, newest})
    fleet.wait_for({other})


@pytest.mark.slow
@pytest.mark.skipif(
    not installed(), reason="PgBouncer is not installed (apt-get install pgbouncer)"
)
def test_behind_pgbouncer(project: Project, watch: Watch, fleet: Table) -> None:
    with bouncer(project.database, mode="transaction", size=2) as served:
        project.served = served
        with project.site(*COMMAND) as site:
            workers = {health["pid"] for health in site.healths(WORKERS)}
            fleet.wait_for(workers)
        fleet.wait_for(set())
