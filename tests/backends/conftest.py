"""Wrappers on small real pools, and a view of them from the server's side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connections

from relet.backends.pools import pools

from ..adapters.pg8000.driver.wire import Wire
from ..engine import put_pool, put_small_pool
from . import driver

Make = Callable[..., Any]


def stats(wrapper: Any) -> Any:
    """The counts of the pool of *wrapper*."""
    return wrapper._runner.find_pool().pool.stats()


def at_rest(wrapper: Any) -> bool:
    """I4: it holds no connection, and the pool agrees."""
    return wrapper.connection is None and stats(wrapper).in_use == 0


def backend_pid(wrapper: Any) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def all_pids(wrapper: Any) -> list[int]:
    """The server processes of all connections of the pool of *wrapper*."""
    with ExitStack() as leases:
        copies = [wrapper.copy() for _ in range(stats(wrapper).max_size)]
        for copied in copies:
            leases.enter_context(copied.temporary_connection())
        return [copied.connection.info.backend_pid for copied in copies]


@pytest.fixture
def db(database: None) -> Iterator[Any]:
    """``connections["default"]``, on a pool of one connection; at rest before and after."""
    wrapper = connections["default"]
    wrapper.close()
    yield wrapper
    wrapper.close()
    # I5: whatever the test did, nothing is left in use.
    assert at_rest(wrapper)


@pytest.fixture
def make(database: None) -> Iterator[Make]:
    """Make a wrapper with a pool of its own, of one connection unless told otherwise.

    ``pool`` is for tests about options; the others give its size and timeout.
    """
    made: list[Any] = []

    def make(
        alias: str = "extra",
        *,
        size: int = 1,
        timeout: float = 5,
        pool: Any = None,
        policy: Any = None,
        **settings: Any,
    ) -> Any:
        template = connections["default"]
        merged = copy.deepcopy(template.settings_dict)
        options = {**merged["OPTIONS"], **settings.get("OPTIONS", {})}
        merged.update({**settings, "OPTIONS": options})
        if pool is None:
            put_small_pool(merged, size=size, timeout=timeout)
        else:
            put_pool(merged, pool)
        if policy is not None:
            options["policy"] = policy
        wrapper = type(template)(merged, alias)
        made.append(wrapper)
        return wrapper

    yield make
    for wrapper in made:
        wrapper.close()
        pools.close_alias(wrapper.alias)


@pytest.fixture
def observer(database: None) -> Iterator[driver.Observer]:
    params = connections["default"].get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with driver.connect(**{name: params[name] for name in names if name in params}) as observer:
        yield observer


def kill(observer: driver.Observer, pid: int) -> None:
    """End a server process, and wait until it is gone."""
    observer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


@pytest.fixture
def wire(database: None) -> Iterator[Wire]:
    """What passes by between the driver and the server, on its port."""
    params = connections["default"].get_connection_params()
    where = {"host": params.get("host") or "localhost", "port": params.get("port") or 5432}
    with Wire(where) as wire:
        yield wire


@pytest.fixture
def watched(make: Make, wire: Wire) -> Iterator[Any]:
    """``connections["watched"]``, whose connection passes by `wire`."""
    wrapper = make("watched", HOST="127.0.0.1", PORT=str(wire.port))
    connections["watched"] = wrapper
    yield wrapper
    wrapper.close()
    del connections["watched"]
