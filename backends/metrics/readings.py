"""Readings: the state of each alias's pools at this moment."""

from __future__ import annotations

from dataclasses import dataclass

from relet.backends.pools import pools
from relet.core import PoolStats


@dataclass
class Reading:
    """The pools of one alias, all together: its settings may have changed while it is in use.

    :ivar max_idle: connections that may be idle; None for no limit, as in `max_size`.
    """

    idle: int = 0
    used: int = 0
    pending: int = 0
    min_idle: int = 0
    max_idle: int | None = 0
    max_size: int | None = 0

    def add(self, stats: PoolStats) -> None:
        """Add a pool."""
        self.idle += stats.idle
        self.used += stats.in_use
        self.pending += stats.waiting
        self.min_idle += stats.min_size
        max_idle = stats.max_size if stats.max_idle is None else stats.max_idle
        self.max_idle = _sum(self.max_idle, max_idle)
        self.max_size = _sum(self.max_size, stats.max_size)


def read() -> dict[str, Reading]:
    """Return alias -> the state of its open pools."""
    found: dict[str, Reading] = {}
    for handle in pools:
        if handle.pool.pooled:
            found.setdefault(handle.alias, Reading()).add(handle.pool.stats())
    return found


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
