"""Measurement: what was measured of one engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Measurement:
    """What was measured of one engine.

    :param name: the engine's, for people.
    :param engine: the engine's, for ``DATABASES``.
    :param seconds: how long was measured.
    :param requests: answered in that time.
    :param latency_p50_ms: half of them took no longer, as a client sees it.
    :param latency_p99_ms: 99 of 100 took no longer.
    :param wait_ms: time that a request waited for a connection, on average; by the
        pool's own count, which leaves out fractions of a millisecond.
    :param in_use_mean: connections that were out of the pool, on average; sampled.
    :param in_use_most: the same, at most.
    :param answers: requests answered in all, before and after the measured time too.
    :param rows: rows that were written in all; each answered request writes one.
    :param errors: requests that failed, in all.
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
        """Requests answered in a second."""
        return self.requests / self.seconds

    @property
    def ok(self) -> bool:
        """Whether every request was answered, and wrote its row once."""
        return self.errors == 0 and self.rows == self.answers > 0


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that *percent* of the *values* do not exceed; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]
