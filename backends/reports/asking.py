"""Asking: what relet asks a pool's server for a report."""

from __future__ import annotations

from asyncio import _get_running_loop
from math import inf
from typing import Any

from relet.backends.leases.idle import idle_connection
from relet.backends.pools import PoolHandle
from relet.core.background import BackgroundCall
from relet.core.outside import from_handler

#: Seconds to wait for a new connection.
_CONNECT_TIMEOUT_S = 5


def ask(handle: PoolHandle, sql: str) -> tuple[list[tuple[Any, ...]], str | None]:
    """Return the rows of *sql*, and why the server could not be asked, if so.

    It runs on an idle connection of the pool, else on one that is opened for it, so that it works
    while the pool is exhausted.
    """
    try:
        found = _on_idle_connection(handle, sql)
        return (_off_the_loop(handle, sql) if found is None else found), None
    except Exception as error:
        if from_handler(error):
            raise
        text = str(error).strip().partition("\n")[0]
        return [], f"DATABASES[{handle.alias!r}]: the server could not be asked: {text}"


def _on_idle_connection(handle: PoolHandle, sql: str) -> list[tuple[Any, ...]] | None:
    """Return the rows of *sql*; None if no connection is idle, or the server has ended it."""
    try:
        with idle_connection(handle.pool) as raw:
            return None if raw is None else list(handle.pool.execute_internal(raw, sql))
    except Exception as error:
        if from_handler(error):
            raise
        return None


def _off_the_loop(handle: PoolHandle, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of *sql*, in a thread of its own if an event loop runs in this one.

    There Django opens no connection. An idle one needs none of its wrappers.
    """
    if _get_running_loop() is None:
        return _on_own_connection(handle, sql)
    found: list[tuple[Any, ...]] = []
    call = BackgroundCall(lambda: found.extend(_on_own_connection(handle, sql)))
    call.start()
    call.wait(inf)
    if call.error is not None:
        raise call.error
    return found


def _on_own_connection(handle: PoolHandle, sql: str) -> list[tuple[Any, ...]]:
    wrappers = (find() for find in list(handle.users))
    wrapper: Any = next((one for one in wrappers if one is not None), None)
    if wrapper is None:
        return []  # nobody uses the pool any more
    with wrapper.outside_pool(connect_timeout=_CONNECT_TIMEOUT_S) as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
