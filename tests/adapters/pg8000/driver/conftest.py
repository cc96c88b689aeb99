"""Connections of the driver and wrappers on it, whatever the engine under test is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from django.db import connections

from relet.core import registry

from ....support.aliases import Aliases
from ....support.dsn import parameters_for
from ....support.wire import Wire

_MISSING = registry.missing(registry.spec("pg8000"))
collect_ignore_glob = ["test_*.py"] if _MISSING else []


def pytest_report_header() -> list[str]:
    return [f"left out: pg8000/driver, which needs {', '.join(_MISSING)}"] if _MISSING else []


@pytest.fixture
def parameters(server: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the driver's ``connect()``."""
    return parameters_for(server)


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

    def make(alias: str = "pg8000", engine: str = "pg8000", **settings: Any) -> Any:
        merged = copy.deepcopy(connections["default"].settings_dict)
        module = import_module(f"relet.backends.{engine}.base")
        pool = module.DatabaseWrapper.adapter_class.options_for(size=1, timeout=5)
        options = {"pool": pool, **server.get("OPTIONS", {}), **settings.pop("OPTIONS", {})}
        merged.update({**settings, "ENGINE": f"relet.backends.{engine}", "OPTIONS": options})
        return aliases.add(alias, merged)

    with Aliases() as aliases:
        yield make


@pytest.fixture
def db(make: Callable[..., Any]) -> Any:
    return make()
