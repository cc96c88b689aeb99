"""Measurement: the figures of one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Measurement:
    """The figures of one engine.

    :param name: its display name.
    :param engine: its ``ENGINE``.
    :param seconds: seconds measured.
    :param requests: requests answered in that time.
    :param latency_p50_ms: median latency, in milliseconds, as clients see it.
    :param latency_p99_ms: 99th percentile of the latency, in milliseconds.
    :param wait_ms: mean time that a request waited for a connection, in milliseconds. From the
        pool's statistics, which drop fractions of a millisecond.
    :param in_use_mean: mean number of connections checked out of the pool; sampled.
    :param in_use_most: largest number of them; sampled.
    :param answers: all requests answered, including warm-up and the time after measuring.
    :param rows: all rows written. Each answered request writes one.
    :param errors: all requests that failed.
    """

    name: str
    engine: str
    seconds: float
    requests: int
    latency_p50_ms: float
    latency_p99_ms: float
    wait_ms: float
    in_use_mean: float
    in_use_most: int
    answers: int
    rows: int
    errors: int

    @property
    def requests_per_s(self) -> float:
        """Requests answered per second."""
        return self.requests / self.seconds

    @property
    def ok(self) -> bool:
        """Whether every request was answered and wrote exactly one row."""
        return self.errors == 0 and self.rows == self.answers > 0


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of *values* that *percent* of them do not exceed; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]
