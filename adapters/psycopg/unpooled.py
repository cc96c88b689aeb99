"""Unpooled: what stands in for a pool where there is to be none."""

from __future__ import annotations

from relet.adapters.drivers.psycopg import Connection, Psycopg
from relet.core import PoolConfig


class Unpooled:
    """In place of a pool where there is to be none: connects, and disconnects.

    psycopg_pool's NullConnectionPool would do, but for the threads it starts, which
    somebody would have to stop for each wrapper that goes away.
    """

    min_size = max_size = max_waiting = 0

    def __init__(self, config: PoolConfig) -> None:
        self._config = config

    def getconn(self, timeout: float | None = None) -> Connection:
        raw = Psycopg.connect(self._config.parameters())
        try:
            self._config.configure(raw)
        except BaseException:
            raw.close()
            raise
        return raw

    def putconn(self, raw: Connection) -> None:
        raw.close()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def get_stats(self) -> dict[str, int]:
        return dict.fromkeys(("pool_size", "pool_available", "requests_waiting"), 0)
