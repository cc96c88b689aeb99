"""A server that can be stopped, a network before it that can be bad, and pools on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from relet.backends.pools import pools

from ..backends import driver
from ..engine import ENGINE, put_small_pool
from .proxy import Proxy, proxy
from .server import Server, new_server

Use = Callable[..., Any]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with new_server() as server:
        yield server


#: What dies while it idles is found by a statement, and not before, however long that takes.
UNSEEN = {"check_idle": 3600}


@pytest.fixture
def network(postgres: Server) -> Iterator[Proxy]:
    with proxy(postgres.port) as made:
        yield made


@pytest.fixture
def use() -> Iterator[Use]:
    """Add an alias to the settings, with a pool of its own; return this thread's wrapper."""
    added: list[str] = []

    def use(
        *ports: int,
        alias: str = "faults",
        size: int = 1,
        timeout: float = 20,
        health_checks: bool = False,
        policy: Any = None,
        **options: Any,
    ) -> Any:
        settings: dict[str, Any] = {"ENGINE": ENGINE, "NAME": "postgres", "USER": "postgres"}
        settings["HOST"] = ",".join(["127.0.0.1"] * len(ports))
        settings["PORT"] = ",".join(map(str, ports))
        settings["OPTIONS"] = dict(options) if policy is None else {**options, "policy": policy}
        settings["CONN_HEALTH_CHECKS"] = health_checks
        put_small_pool(settings, size=size, timeout=timeout)
        complete = connections.configure_settings({"default": {}, alias: settings})
        connections.settings[alias] = complete[alias]
        added.append(alias)
        return connections[alias]

    yield use
    for alias in added:
        connections[alias].close()
        pools.close_alias(alias)
        del connections[alias]
        del connections.settings[alias]


@contextmanager
def observed(server: Server) -> Iterator[driver.Observer]:
    """Ask *server*, beside all pools and networks."""
    with driver.connect(**server.parameters) as observer:
        yield observer


@pytest.fixture
def observer(postgres: Server) -> Iterator[driver.Observer]:
    with observed(postgres) as observer:
        yield observer
