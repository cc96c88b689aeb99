"""Wrappers on small real pools, and a view of them from the server's side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from relet.backends.pools import pools
from relet.core.catalogue.closure import Closure
from relet.core.catalogue.names import Catalogue

from ..support import driver
from ..support.aliases import Aliases
from ..support.engine import put_pool, put_small_pool
from ..support.pools import at_rest
from ..support.wire import Wire

Make = Callable[..., Any]


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
def blind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the catalogue say nothing of functions, for tests of what relet cannot see."""

    def read_again() -> None:
        for handle in pools:
            handle.pool.definitions.forget()

    monkeypatch.setattr(Closure, "relate", lambda closure, relations: Catalogue())
    read_again()
    yield
    read_again()


@pytest.fixture
def make(database: None) -> Iterator[Make]:
    """Make a wrapper with a pool of its own, of one connection unless told otherwise.

    ``pool`` is for tests about options; the others give its size and timeout.
    """

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
        return aliases.make(alias, merged, type(template))

    with Aliases() as aliases:
        yield make


@pytest.fixture
def observer(database: None) -> Iterator[driver.Observer]:
    params = connections["default"].get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with driver.connect(**{name: params[name] for name in names if name in params}) as observer:
        yield observer


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
