"""uvicorn: sync views in threads, async views whose queries are in threads, one process."""

from __future__ import annotations

import signal

import pytest

from .conftest import Project
from .process import python
from .watch import Watch

pytest.importorskip("uvicorn", reason="uvicorn is not installed; nox -s servers does it")
pytestmark = pytest.mark.slow

COMMAND = python("uvicorn", "project.asgi:application", "--fd", "FD", "--log-level", "warning")
#: When all requests are served it ends itself by the signal it was sent: Python's exit handlers,
#: which would close connections, do not run; see `project/asgi.py`.
STOPPED = -signal.SIGTERM
SIZE = 4
VIEWS = ("write", "async", "atomic", "async-stream", "state", "fails")


def test_sync_and_async_views(project: Project, watch: Watch) -> None:
    with watch.limit(SIZE), project.site(*COMMAND, code=STOPPED) as site:
        site.load(VIEWS, requests=240, clients=16)
        watch.wait_for({"idle"})
        site.wait_for_rest()
    project.assert_written(site.acknowledged)


def test_500_requests_at_once(project: Project, watch: Watch) -> None:
    """I11: each has two queries around an await, and none waits longer than its share.

    So each connection serves them in the order in which they came to wait, and nobody's second
    query before anybody's first. (Among several connections the order can be seen only from
    within the pool: a thread may be preempted when it has just got one.)
    """
    requests = 500
    with watch.limit(SIZE), project.site(*COMMAND, code=STOPPED) as site:
        answers = site.at_once(*["/hold"] * SIZE, *[f"/share/{requests}"] * requests)[SIZE:]
        watch.wait_for({"idle"})
        site.wait_for_rest()
    served: dict[int, list[tuple[float, int, int]]] = {}
    for answer in answers:
        for nth, (pid, moment) in enumerate(answer["queries"]):
            served.setdefault(pid, []).append((moment, nth, answer["number"]))
    assert len(served) <= SIZE and sum(map(len, served.values())) == 2 * requests
    for queries in served.values():
        order = [(nth, number if nth == 0 else -1) for _, nth, number in sorted(queries)]
        assert order == sorted(order)
