"""A server that can be stopped, a network before it that can be bad, and pools on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..support import driver
from ..support.aliases import Aliases
from ..support.engine import ENGINE, put_small_pool
from ..support.proxy import Proxy, proxy
from ..support.server import DURABLE, Server, new_server

Use = Callable[..., Any]


@pytest.fixture(scope="session")
def postgres(template: Path) -> Iterator[Server]:
    with new_server(template, {**DURABLE, "max_connections": "60"}) as server:
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
        return aliases.add(alias, settings)

    with Aliases() as aliases:
        yield use


@contextmanager
def observed(server: Server) -> Iterator[driver.Observer]:
    """Ask *server*, beside all pools and networks."""
    with driver.connect(**server.parameters) as observer:
        yield observer


@pytest.fixture
def observer(postgres: Server) -> Iterator[driver.Observer]:
    with observed(postgres) as observer:
        yield observer
