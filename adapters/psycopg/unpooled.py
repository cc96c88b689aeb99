"""Unpooled: stands in for a pool if pooling is off."""

from __future__ import annotations

from time import monotonic
from typing import Any

from relet.adapters.drivers.psycopg import Psycopg
from relet.adapters.opening import forget_frames, opened
from relet.core import PoolConfig, PooledConnection


class Unpooled:
    """Stands in for a pool if pooling is off: connects for each checkout, and then disconnects.

    psycopg_pool's NullConnectionPool starts threads, which somebody would have to stop for each
    wrapper that goes away.
    """

    min_size = max_size = max_waiting = 0

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._leased: set[PooledConnection] = set()

    def checkout_into(self, slot: Any, timeout: float | None = None) -> None:
        connection = None
        try:
            connection = PooledConnection(opened(Psycopg.connect, self._config), monotonic())
            self._leased.add(connection)
            slot.connection = connection
        except BaseException as error:
            if slot.connection is None and connection is not None:
                self._leased.discard(connection)
                connection.raw.close()
            forget_frames(error)
            raise

    def checkin_from(self, slot: Any) -> None:
        self.discard_from(slot)

    def discard_from(self, slot: Any) -> None:
        connection = slot.connection
        if connection.raw is not None:
            connection.raw.close()
        self._leased.discard(connection)
        connection.raw = None
        slot.connection = None

    @property
    def in_use(self) -> int:
        """How many connections are checked out."""
        return len(self._leased)

    def close(self) -> None:
        pass

    def get_stats(self) -> dict[str, int]:
        return dict.fromkeys(("pool_size", "pool_available", "requests_waiting"), 0)
