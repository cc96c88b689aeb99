"""Usage: samples how many connections of the pool are in use."""

from __future__ import annotations

import threading
from typing import Any

INTERVAL_S = 0.01


class Usage:
    """Samples a pool in a background thread.

    A connection is in use while it is checked out of the pool, whether or not a statement runs on
    it. Django's native pool and relet's psycopg adapter both use psycopg_pool, so the figures are
    comparable. Peaks between two samples are missed, so `most` may be too low.

    :param pool: a `psycopg_pool.ConnectionPool` with all its connections open.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._stopped = threading.Event()
        self._samples = self._sum = self._most = 0
        # A daemon, so that it does not keep the server from ending.
        threading.Thread(target=self._run, name="relet-demo-usage", daemon=True).start()

    @property
    def mean(self) -> float:
        """The mean number of connections in use."""
        return self._sum / self._samples if self._samples else 0.0

    @property
    def most(self) -> int:
        """The largest number of connections in use."""
        return self._most

    def stop(self) -> None:
        """Stop sampling."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            stats = self._pool.get_stats()
            in_use = stats["pool_size"] - stats["pool_available"]
            self._samples += 1
            self._sum += in_use
            self._most = max(self._most, in_use)
