"""Idle connections: one that is in the pool, for what relet itself asks the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relet.core import PoolAdapter, PooledConnection
from relet.core.outside import from_handler


class _Slot:
    """A place for a connection that is checked out, as a lease is."""

    connection: PooledConnection | None = None


@contextmanager
def idle_connection(pool: PoolAdapter[Any], *, timeout: float = 0.0) -> Iterator[Any]:
    """Lend an idle connection of *pool* to a block: the driver's, or None if none is idle.

    It is discarded when the block fails.

    :param timeout: seconds to wait where another thread has taken it in the meantime.
    """
    slot = _Slot()
    try:
        if not pool.closed and pool.stats().idle:
            try:
                pool.checkout_into(slot, timeout)
            except Exception as error:  # the other thread still has it, or it no longer works
                if from_handler(error):
                    raise
        yield None if slot.connection is None else slot.connection.raw
        if slot.connection is not None:
            pool.checkin_from(slot)
    except BaseException:
        if slot.connection is not None:
            pool.discard_from(slot)
        raise
