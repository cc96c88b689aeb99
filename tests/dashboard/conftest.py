"""A project with the app, on a database of its own, in this process; no thread reports it."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from relet import queries, routes
from relet.backends.pools import pools

from ..support import driver

NAME = "relet_fleet"
#: Their tables are made without their migrations, which take long.
DJANGOS = ("contenttypes", "auth", "sessions", "messages", "admin")
MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
TEMPLATES = {
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {
        "context_processors": [
            "django.template.context_processors.request",
            "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]
    },
}


@contextmanager
def without_thread() -> Iterator[None]:
    """Tests tell the reporter when to beat."""
    from relet.dashboard import reporter

    install = reporter.install
    reporter.install = lambda: None
    try:
        yield
    finally:
        reporter.install = install


@pytest.fixture(scope="module")
def project(server: dict[str, Any], database: None) -> Iterator[None]:
    """The project, with its tables in a database of its own."""
    wrapper = connections["default"]
    parameters = {
        key: value
        for key, value in wrapper.get_connection_params().items()
        if key in ("user", "password", "host", "port")
    }
    with driver.connect(**parameters, dbname="postgres") as observer:
        observer.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
        observer.execute(f"CREATE DATABASE {NAME}")
        apps = [f"django.contrib.{app}" for app in DJANGOS]
        changed = override_settings(
            INSTALLED_APPS=[*settings.INSTALLED_APPS, *apps, "relet.dashboard"],
            MIGRATION_MODULES=dict.fromkeys(DJANGOS),
            MIDDLEWARE=MIDDLEWARE,
            TEMPLATES=[TEMPLATES],
            ROOT_URLCONF="tests.dashboard.urls",
            STATIC_URL="/static/",
        )
        with on_database(wrapper, NAME), without_thread(), changed:
            call_command("migrate", run_syncdb=True, verbosity=0)
            yield
        observer.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@contextmanager
def on_database(wrapper: Any, name: str) -> Iterator[None]:
    """Have the alias of *wrapper* be for another database of the server."""
    before = wrapper.settings_dict["NAME"]
    try:
        wrapper.close()
        pools.close_all()
        wrapper.settings_dict["NAME"] = name
        yield
    finally:
        wrapper.close()
        pools.close_all()
        wrapper.settings_dict["NAME"] = before


@pytest.fixture
def db(project: None) -> Iterator[Any]:
    """``connections["default"]``, with nothing of what an earlier test has left."""
    wrapper = connections["default"]
    for table in ("process", "ask", "minute"):
        run(wrapper, f"TRUNCATE relet_dashboard_{table}")
    queries.reset()
    routes.reset()
    yield wrapper
    wrapper.close()


@pytest.fixture
def reporter() -> Any:
    """A reporter of a process that is this one."""
    from relet.dashboard.reporter import Reporter

    return Reporter()


@pytest.fixture
def observer(project: None) -> Iterator[driver.Observer]:
    params = connections["default"].get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with driver.connect(**{name: params[name] for name in names if name in params}) as observer:
        yield observer


def insert(wrapper: Any, host: str, pid: int, version: str, *, now: Any, totals: Any = "") -> None:
    """Have a process report what it should not, or what another version does.

    :param now: a report, or its text.
    """
    from relet.dashboard.packing import pack

    texts = [one if isinstance(one, str) else pack(one) for one in (now, totals)]
    run(
        wrapper,
        "INSERT INTO relet_dashboard_process VALUES "
        "(gen_random_uuid(), %s, %s, %s, now(), now(), 10, %s, %s)",
        [host, pid, version, *texts],
    )


def packed(text: str) -> str:
    """Return *text* as `pack` would return that of a report: what is no JSON, too."""
    return b64encode(zlib.compress(text.encode())).decode()


def run(wrapper: Any, sql: str, params: Any = None) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


Run = Callable[..., Any]
