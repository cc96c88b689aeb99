"""gunicorn, with threads: a pool for each of its workers."""

from __future__ import annotations

import signal

import pytest

from .conftest import Project
from .process import python
from .watch import Watch

COMMAND = python("gunicorn", "--config", "python:project.gunicorn_conf", "--bind", "fd://FD")
WORKERS, THREADS, SIZE = 2, 8, 4
VIEWS = ("write", "atomic", "stream", "state", "fails", "async")


@pytest.mark.slow
def test_two_workers(project: Project, watch: Watch) -> None:
    with watch.limit(WORKERS * SIZE, processes=WORKERS), project.site(*COMMAND) as site:
        site.load(VIEWS, requests=240, clients=WORKERS * THREADS)
        watch.wait_for({"idle"})
        site.wait_for_rest(WORKERS)
    project.assert_written(site.acknowledged)


@pytest.mark.slow
def test_preloaded(project: Project, watch: Watch) -> None:
    """I10: the parent has used the database before it forks; its connections stay its own."""
    project.extra["PROJECT_QUERIES_AT_IMPORT"] = "1"
    # Old workers and new ones are there at the same time for a while.
    processes = 1 + 2 * WORKERS
    limit = watch.limit(processes * SIZE, processes=processes)
    with limit, project.site(*COMMAND, "--preload") as site:
        parents = watch.pids()
        old = {health["pid"] for health in site.healths(WORKERS)}
        site.load(VIEWS, requests=120, clients=WORKERS * THREADS)
        watch.wait_for({"idle"})

        site.process.send(signal.SIGHUP)
        site.process.until(lambda: site.answers() not in {None, *old}, "replaced its workers")
        site.load(VIEWS, requests=120, clients=WORKERS * THREADS)
        watch.wait_for({"idle"})
        site.wait_for_rest(WORKERS)
        assert parents and parents <= watch.pids()
    imported = f"import-{site.process.pid}"
    project.assert_written([*site.acknowledged, imported])
