"""Asking: what relet asks a pool's server for a report."""

from __future__ import annotations

from typing import Any

from relet.backends.leases.idle import idle_connection
from relet.backends.pools import PoolHandle
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
        return (_on_own_connection(handle, sql) if found is None else found), None
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


def _on_own_connection(handle: PoolHandle, sql: str) -> list[tuple[Any, ...]]:
    wrappers = (find() for find in list(handle.users))
    wrapper: Any = next((one for one in wrappers if one is not None), None)
    if wrapper is None:
        return []  # nobody uses the pool any more
    with wrapper.outside_pool(connect_timeout=_CONNECT_TIMEOUT_S) as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
