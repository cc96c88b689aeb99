"""The project's database, and what starts servers that serve the project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from ..support import driver
from ..support.engine import ENGINE, put_small_pool
from .fleet import Table
from .process import Process, listener, python, running
from .watch import Watch
from .website import Site

HERE = Path(__file__).parent
NAME = "relet_servers"


class Project:
    """The project on a database with nothing in it; its servers log to *directory*."""

    def __init__(self, database: dict[str, Any], watch: Watch, directory: Path) -> None:
        self.directory, self.watch = directory, watch
        self.database = {**database, "ENGINE": ENGINE, "OPTIONS": {**database["OPTIONS"]}}
        #: What servers find in place of that, such as PgBouncer; and in their environment.
        self.served: dict[str, Any] = {}
        self.extra: dict[str, str] = {}
        self.size(4)

    def size(self, size: int) -> None:
        """Have pools of *size* connections."""
        put_small_pool(self.database, size=size, timeout=20)

    def environment(self) -> dict[str, str]:
        # PGOPTIONS and the like, or gunicorn's arguments, are meant for something else.
        names = ("PG", "GUNICORN_", "DJANGO_", "CELERY_", "PYTHONWARNINGS")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(names)}
        return {
            **inherited,
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "PROJECT_DATABASE": json.dumps({**self.database, **self.served}),
            "PYTHONPATH": str(HERE),
            "PYTHONUNBUFFERED": "1",
            **self.extra,
        }

    def process(self, *command: str, **options: Any) -> Process:
        return Process(command, self.environment(), self.directory / "log", **options)

    @contextmanager
    def site(self, *command: str, by: int = signal.SIGTERM, code: int = 0) -> Iterator[Site]:
        """Serve it with *command*; stop that as `running` does.

        In the command, FD stands for a socket to accept from, or PORT for a port that is free.
        """
        with listener() as socket:
            port, fd = socket.getsockname()[1], socket.fileno()
            if not any("FD" in part for part in command):
                socket.close()
            process = self.process(
                *(part.replace("FD", str(fd)).replace("PORT", str(port)) for part in command),
                pass_fds=() if socket.fileno() < 0 else [fd],
            )
        with running(process, by=by, code=code):
            site = Site(port, process)
            process.until(site.answers, "answered")
            yield site

    def run(self, *command: str) -> str:
        """Run *command* to its end; return what it prints."""
        done = subprocess.run(
            command,
            env=self.environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tokens(self) -> list[str]:
        """Return what has been written."""
        with driver.connect(**_parameters(self.database)) as observer:
            return [token for (token,) in observer.execute("SELECT token FROM project_write")]

    def assert_written(self, acknowledged: list[str]) -> None:
        """I12: what was acknowledged is there, each once, and nothing else."""
        assert sorted(self.tokens()) == sorted(acknowledged)


def _parameters(database: dict[str, Any]) -> dict[str, Any]:
    wrapper = connections["default"]
    settings = {**wrapper.settings_dict, **database}
    parameters = type(wrapper)(settings, "observer").get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    return {name: parameters[name] for name in names if name in parameters}


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Servers can be stopped by Ctrl-C, also where a shell has started the tests beside itself.

    Such processes ignore it, and so do those that they start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def project_database(
    server: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """``DATABASES[alias]`` of the project, but for engine and pool: a database with its table."""
    database = {"OPTIONS": {}, **server, "NAME": NAME}
    with driver.connect(**_parameters(server)) as observer:
        observer.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
        observer.execute(f"CREATE DATABASE {NAME}")
        watch = Watch(NAME, _parameters(server))
        project = Project(database, watch, tmp_path_factory.mktemp("servers"))
        project.run(*python("django", "migrate", "--run-syncdb", "--verbosity=0"))
        yield database
        watch.wait_for(set())
        observer.execute(f"DROP DATABASE {NAME}")


@pytest.fixture
def watch(project_database: dict[str, Any], server: dict[str, Any]) -> Watch:
    return Watch(NAME, _parameters(server))


@pytest.fixture
def project(project_database: dict[str, Any], watch: Watch, tmp_path: Path) -> Project:
    with driver.connect(**_parameters(project_database)) as observer:
        observer.execute("TRUNCATE project_write")
    watch.wait_for(set())
    return Project(project_database, watch, tmp_path)


@pytest.fixture
def fleet(project: Project) -> Table:
    """The table of the fleet, with nothing in it; servers of `project` have the app."""
    project.extra["PROJECT_FLEET"] = "1"
    project.run(*python("django", "migrate", "--verbosity=0"))
    project.watch.wait_for(set())
    table = Table(_parameters(project.database))
    table.execute("TRUNCATE relet_dashboard_process")
    return table
