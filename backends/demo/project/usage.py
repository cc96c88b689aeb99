"""Usage: how many of the pool's connections are in use, sampled while requests are served."""

from __future__ import annotations

import threading
from typing import Any

INTERVAL_S = 0.01


class Usage:
    """Samples a pool from a thread of its own.

    A connection counts as in use when it is not in the pool: checked out by somebody,
    whether a statement runs on it or not. Django's native pool and relet's psycopg
    adapter have the same kind of pool, so the same thing is counted for both. It is a
    sample: what happens between two looks is not seen, and the most that was seen may
    be less than the most there was.

    :param pool: a `psycopg_pool.ConnectionPool` that has all its connections open.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._stopped = threading.Event()
        self._samples = self._sum = self._most = 0
        # A daemon: it must not keep the server from ending.
        threading.Thread(target=self._run, name="relet-demo-usage", daemon=True).start()

    @property
    def mean(self) -> float:
        """Connections in use, on average."""
        return self._sum / self._samples if self._samples else 0.0

    @property
    def most(self) -> int:
        """Connections in use, at most."""
        return self._most

    def stop(self) -> None:
        """Take no more samples."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            stats = self._pool.get_stats()
            in_use = stats["pool_size"] - stats["pool_available"]
            self._samples += 1
            self._sum += in_use
            self._most = max(self._most, in_use)
