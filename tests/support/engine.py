"""The engine under test: ``RELET_TEST_ENGINE`` is the name of its adapter."""

from __future__ import annotations

import os
from typing import Any

import pytest

from relet.core import PoolAdapter, registry

NAME = os.environ.get("RELET_TEST_ENGINE", "psycopg")
ENGINE = f"relet.backends.{NAME}"


def adapter() -> type[PoolAdapter[Any]]:
    return registry.load(NAME)


def backend() -> str:
    """The Django backend that it builds on."""
    return registry.spec(NAME).backend


def written() -> str:
    """Where the options of its pool are, as error messages have it."""
    return "".join(f"[{key!r}]" for key in adapter().options_setting)


def put_pool(settings: dict[str, Any], options: Any) -> None:
    """Put *options* of the pool into *settings*, those of an alias."""
    *keys, last = adapter().options_setting
    for key in keys:
        settings = settings.setdefault(key, {})
    settings[last] = options


def put_small_pool(settings: dict[str, Any], *, size: int = 1, timeout: float = 5) -> None:
    """By default it is one connection: then a release that was missed is a timeout."""
    put_pool(settings, adapter().options_for(size=size, timeout=timeout))


def pool_in(settings: dict[str, Any]) -> Any:
    """Return what `put_pool` has put into *settings*."""
    found: Any = settings
    for key in adapter().options_setting:
        found = found[key]
    return found


def size_option() -> str:
    """The option that says how many connections there are at most."""
    one, two = (adapter().options_for(size=size, timeout=5) for size in (1, 2))
    (name,) = (key for key in one if one[key] != two[key])
    return name


def needs(name: str, what: str) -> pytest.MarkDecorator:
    """Skip a test about *what*, an option that only the pool of the engine *name* has."""
    return pytest.mark.skipif(name != NAME, reason=f"{what} is peculiar to the engine {name}")
