"""Wrappers, and the pools that they take connections from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest


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


@contextmanager
def borrowed(wrapper: Any) -> Iterator[Any]:
    """A connection of the driver, for code that knows the pool of *wrapper*, and no leases."""
    pool = wrapper.pool
    if hasattr(pool, "connection"):
        with pool.connection() as raw:
            yield raw
    elif hasattr(pool, "connect"):
        with closing(pool.connect()) as proxy:
            yield proxy.driver_connection
    else:
        pytest.skip("this pool lends no connection by itself")
