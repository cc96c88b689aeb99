"""Connections of the driver and wrappers on it, whatever the engine under test is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from django.db import connections

from relet.backends.pools import pools
from relet.core import registry

from .wire import Wire

_MISSING = registry.missing(registry.spec("pg8000"))
collect_ignore_glob = ["test_*.py"] if _MISSING else []


def pytest_report_header() -> list[str]:
    return [f"left out: pg8000/driver, which needs {', '.join(_MISSING)}"] if _MISSING else []


@pytest.fixture
def parameters(server: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the driver's ``connect()``."""
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    names["PORT"] = "port"
    return {theirs: server[ours] for ours, theirs in names.items() if server[ours]}


@pytest.fixture
def connect(parameters: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """Open connections, in autocommit; settings replace those of the server."""
    from relet.adapters.pg8000 import dbapi

    opened = []

    def connect(**settings: Any) -> Any:
        raw = dbapi.connect(**{**parameters, **settings})
        opened.append(raw)
        raw.autocommit = True
        return raw

    yield connect
    for raw in opened:
        raw.close()


@pytest.fixture
def raw(connect: Callable[..., Any]) -> Any:
    return connect()


@pytest.fixture
def admin(connect: Callable[..., Any]) -> Any:
    """A connection to ask the server by, and to tell it."""
    return connect()


@pytest.fixture
def wire(parameters: dict[str, Any]) -> Iterator[Wire]:
    """A proxy in front of the server, on TCP."""
    with Wire(parameters) as wire:
        yield wire


@pytest.fixture
def make(database: None, server: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """Make aliases on ``relet.backends.pg8000``, with a pool of one connection each."""
    made: list[str] = []

    def make(alias: str = "pg8000", engine: str = "pg8000", **settings: Any) -> Any:
        merged = copy.deepcopy(connections["default"].settings_dict)
        module = import_module(f"relet.backends.{engine}.base")
        pool = module.DatabaseWrapper.adapter_class.options_for(size=1, timeout=5)
        options = {"pool": pool, **server.get("OPTIONS", {}), **settings.pop("OPTIONS", {})}
        merged.update({**settings, "ENGINE": f"relet.backends.{engine}", "OPTIONS": options})
        connections.settings[alias] = merged
        connections[alias] = module.DatabaseWrapper(merged, alias)
        made.append(alias)
        return connections[alias]

    yield make
    for alias in made:
        connections[alias].close()
        pools.close_alias(alias)
        del connections[alias], connections.settings[alias]


@pytest.fixture
def db(make: Callable[..., Any]) -> Any:
    return make()


def pid(raw: Any) -> int:
    ((number,),) = raw.run("SELECT pg_backend_pid()")
    return int(number)


def kill(admin: Any, number: int) -> None:
    """End a server process, and wait until it is gone."""
    admin.run(f"SELECT pg_terminate_backend({number}, 5000)")


def wait_until(admin: Any, sql: str) -> None:
    """Wait until the server says that *sql* is true."""
    while admin.run(f"SELECT pg_stat_clear_snapshot(), ({sql})")[0][1] is not True:
        pass
