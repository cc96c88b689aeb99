"""Celery's workers: processes with a pool each, or threads with one pool."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from .conftest import Project
from .process import Process, python, running
from .watch import Watch

pytest.importorskip("celery", reason="Celery is not installed; nox -s servers does it")
pytestmark = pytest.mark.slow

COMMAND = (
    *python("celery", "--app", "project.celery", "--quiet", "worker", "--loglevel", "warning"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
PREFORK = (*COMMAND, "--pool", "prefork", "--concurrency", "2")
#: The parent, and its children.
PROCESSES, SIZE = 3, 4
TASKS = 30


@pytest.fixture
def sent(project: Project) -> dict[str, str]:
    """The token of each task by its id. Messages, and results, are files.

    All are sent before there is a worker: one that looks for messages may find the file of one
    that has not been written yet.
    """
    (project.directory / "queue").mkdir()
    project.extra["PROJECT_BROKER"] = str(project.directory)
    sent: dict[str, str] = json.loads(project.run(*python("project.send", f"{TASKS}")))
    assert len(sent) == TASKS
    return sent


def acknowledged(project: Project, worker: Process, sent: dict[str, str]) -> list[str]:
    """Wait until all tasks are done; return the tokens of those that have succeeded."""
    results = {
        task: worker.until(lambda task=task: result(project, task), f"did {sent[task]}")
        for task in sent
    }
    failed = [
        found["result"]["exc_message"] for found in results.values() if found["status"] != "SUCCESS"
    ]
    assert failed == [["this task fails"]] * (TASKS // 3)
    return [sent[task] for task, found in results.items() if found["status"] == "SUCCESS"]


def result(project: Project, task: str) -> dict[str, object] | None:
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads((project.directory / f"celery-task-meta-{task}").read_text())
    return None


def at_start(project: Project) -> list[str]:
    """Return what the processes have written when they started."""
    found = [token for token in project.tokens() if token.startswith(("parent", "child"))]
    assert "parent" in found and len(found) == PROCESSES
    return found


def test_processes(project: Project, watch: Watch, sent: dict[str, str]) -> None:
    """I10: the parent has used the database before it forks, and so have its children.

    Celery closes the pools of such processes before and after each task.
    """
    limit = watch.limit(PROCESSES * SIZE, processes=PROCESSES, replaced=TASKS * (1 + SIZE))
    with limit, running(project.process(*PREFORK)) as worker:
        written = acknowledged(project, worker, sent)
        watch.wait_for({"idle"})
    project.assert_written([*written, *at_start(project)])


def test_processes_that_keep_their_pools(
    project: Project, watch: Watch, sent: dict[str, str]
) -> None:
    """With CELERY_DB_REUSE_MAX; what a task leaves in its session, relet has to undo."""
    project.extra["PROJECT_DB_REUSE_MAX"] = f"{100 * TASKS}"
    project.database["OPTIONS"]["policy"] = {"session_state": "reset"}
    # Each process has its pool closed once, when it starts.
    limit = watch.limit(PROCESSES * SIZE, processes=2 * PROCESSES)
    with limit, running(project.process(*PREFORK)) as worker:
        written = acknowledged(project, worker, sent)
        watch.wait_for({"idle"})
    project.assert_written([*written, *at_start(project)])


def test_threads(project: Project, watch: Watch, sent: dict[str, str]) -> None:
    command = (*COMMAND, "--pool", "threads", "--concurrency", "8")
    with watch.limit(SIZE), running(project.process(*command)) as worker:
        written = acknowledged(project, worker, sent)
        watch.wait_for({"idle"})
    project.assert_written([*written, "parent"])
