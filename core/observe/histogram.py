"""Histogram: how many durations fell between two powers of two."""

from __future__ import annotations

from collections.abc import Iterable
from math import frexp, inf

#: Bucket ``e`` has the durations from ``2 ** (e - 1)`` to ``2 ** e`` seconds, where
#: ``e = frexp(seconds)[1]``. Negative exponents are negative indexes, so that the hot path needs no
#: offset. From 2**-27 s (7 ns) to 2**21 s (24 days), so that it need not look at the bounds either.
SIZE, HIGHEST = 48, 21
_LOWEST = HIGHEST - SIZE + 1
#: Durations from the first to less than the second have a bucket of their own.
SHORTEST_S, LONGEST_S = 2.0 ** (_LOWEST - 1), 2.0**HIGHEST


class Histogram:
    """Durations in buckets whose bounds are powers of two. All times are in seconds.

    :ivar buckets: the number of durations by exponent; see `bounds`. The hot path increments it
        directly: ``buckets[frexp(seconds)[1]] += 1``.
    :ivar total: the sum of all durations.
    :ivar maximum: the longest one.
    """

    __slots__ = ("buckets", "maximum", "total")

    def __init__(self) -> None:
        self.buckets = [0] * SIZE
        self.total = 0.0
        self.maximum = 0.0

    @property
    def count(self) -> int:
        """How many durations were added."""
        return sum(self.buckets)

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.total += seconds
        if seconds > self.maximum:
            self.maximum = seconds
        if SHORTEST_S <= seconds < LONGEST_S:
            self.buckets[frexp(seconds)[1]] += 1
        else:
            self.buckets[HIGHEST if seconds > 1 else _LOWEST] += 1

    def merge(self, other: Histogram) -> None:
        """Add the durations of *other*."""
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)
        add_buckets(self.buckets, other.buckets)

    def copy(self) -> Histogram:
        """Return a histogram with the same durations."""
        copy = Histogram()
        copy.merge(self)
        return copy

    def quantile(self, share: float) -> float:
        """Return the duration that *share* of all do not exceed; 0 if there are none.

        It is interpolated within its bucket, so it is off by less than a factor of two.

        :param share: such as 0.95.
        """
        return quantile(self.buckets, share, self.maximum)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, number of durations up to it), as Prometheus has them.

        The last bound is infinite. Buckets below the first and above the last duration are left
        out.
        """
        found: list[tuple[float, int]] = []
        below = 0
        filled = [e for e in range(_LOWEST, HIGHEST + 1) if self.buckets[e]]
        for exponent in range(filled[0], filled[-1] + 1) if filled else ():
            below += self.buckets[exponent]
            found.append((2.0**exponent, below))
        return [*found, (inf, below)]

    def up_to(self, exponents: range) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, number of durations up to it) for the same bounds always.

        :param exponents: the powers of two that are the bounds, in order.
        """
        below = sum(self.buckets[e] for e in range(_LOWEST, exponents[0]))
        found = []
        for exponent in exponents:
            below += self.buckets[exponent]
            found.append((2.0**exponent, below))
        return found


def add_buckets(to: list[int], other: Iterable[int]) -> None:
    """Add the buckets of *other* to those of *to*."""
    to[:] = map(int.__add__, to, other)


def quantile(buckets: list[int], share: float, maximum: float) -> float:
    """Return `Histogram.quantile` of *buckets*."""
    wanted = share * sum(buckets)
    below = 0
    for exponent in range(_LOWEST, HIGHEST + 1):
        if (here := buckets[exponent]) and below + here >= wanted:
            lowest = 2.0 ** (exponent - 1)
            return min(lowest + lowest * (wanted - below) / here, maximum)
        below += here
    return 0.0
