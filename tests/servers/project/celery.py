"""A Celery application, whose broker and results are files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_init, worker_process_init, worker_process_shutdown

directory = Path(os.environ["PROJECT_BROKER"])

app = Celery("project", broker="filesystem://", backend=f"file://{directory}", set_as_current=False)
app.conf.update(
    broker_transport_options={
        "polling_interval": 0.01,
        "data_folder_in": str(directory / "queue"),
        "data_folder_out": str(directory / "queue"),
        "control_folder": str(directory / "control"),
    },
    imports=["project.tasks"],
    worker_hijack_root_logger=False,
)
if reuse := os.environ.get("PROJECT_DB_REUSE_MAX"):
    app.conf.CELERY_DB_REUSE_MAX = int(reuse)


@worker_init.connect
def in_parent(**kwargs: Any) -> None:
    """Have the parent use the database before it forks."""
    from project.models import Write

    Write.objects.create(token="parent")


@worker_process_init.connect
def in_child(**kwargs: Any) -> None:
    from project.models import Write

    Write.objects.create(token=f"child {os.getpid()}")


@worker_process_shutdown.connect
def at_end(**kwargs: Any) -> None:
    """Close what the child has: Python's exit handlers do not run in it."""
    from relet import close_all

    close_all(5)
