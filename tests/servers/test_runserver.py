"""runserver: a thread for each client."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from .conftest import HERE, Project
from .process import python
from .watch import Watch

pytestmark = pytest.mark.slow

SIZE = 4
VIEWS = ("write", "atomic", "stream", "state", "fails", "async")
COMMAND = python("django", "runserver", "127.0.0.1:PORT")


def test_without_reloader(project: Project, watch: Watch) -> None:
    """Ctrl-C ends it; it has no answer to SIGTERM."""
    with watch.limit(SIZE), project.site(*COMMAND, "--noreload", by=signal.SIGINT) as site:
        site.load(VIEWS, requests=120, clients=16)
        watch.wait_for({"idle"})
        site.wait_for_rest()
    project.assert_written(site.acknowledged)


def test_reloaded(project: Project, watch: Watch, tmp_path: Path) -> None:
    """What the process had whose code has changed is gone. SIGTERM has the last one killed."""
    code = shutil.copytree(HERE / "project", tmp_path / "code" / "project")
    project.extra["PYTHONPATH"] = str(code.parent)
    limit = watch.limit(SIZE, processes=2, replaced=SIZE, closed=False)
    with limit, project.site(*COMMAND) as site:
        site.load(VIEWS, requests=60, clients=16)
        watch.wait_for({"idle"})
        before, pids = site.health()["pid"], watch.pids()
        views = code / "views.py"
        views.write_text(views.read_text() + f"\n# {time.time()}\n")
        site.process.until(lambda: site.answers() not in (None, before), "reloaded")
        assert not pids & watch.pids()
        site.load(VIEWS, requests=60, clients=16)
        watch.wait_for({"idle"})
    project.assert_written(site.acknowledged)
