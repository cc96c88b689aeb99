"""Bounded: counts of the most important keys, with the rest in one sum.

This is the space-saving algorithm of Metwally, Agrawal and El Abbadi (2005): a new key takes the
place of the lightest one. There, the new key also inherits the count of the old one. Here it
inherits that as credit only, which decides who is replaced next. So each number is true, and all of
them and `other` together are the whole.

https://doi.org/10.1007/978-3-540-30570-5_27
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar


class Counts(Protocol):
    """What `Bounded` needs of the counts that it keeps."""

    credit: float

    @property
    def weight(self) -> float: ...

    def merge(self, other: Any, /) -> None: ...


C = TypeVar("C", bound=Counts)


class Bounded(Generic[C]):
    """Counts by key, for at most *limit* keys.

    :param make: makes the counts of a new key.
    :ivar other: the counts of all keys that were replaced.
    """

    def __init__(self, make: Callable[[], C], limit: int) -> None:
        self._make, self._limit = make, limit
        self._kept: dict[str, C] = {}
        #: (weight when it was last looked at, key), the lightest first. Weights only grow.
        self._lightest: list[tuple[float, str]] = []
        self.other = make()

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[str, C]]:
        return iter(self._kept.items())

    def get(self, key: str) -> C | None:
        """Return the counts of *key*, or None if it has none of its own."""
        return self._kept.get(key)

    def __getitem__(self, key: str) -> C:
        """Return the counts of *key*. If they are new, another key may lose its own."""
        if (found := self._kept.get(key)) is not None:
            return found
        if self._limit < 1:
            return self.other
        counts = self._make()
        if len(self._kept) >= self._limit:
            counts.credit = self._replace_lightest()
        self._kept[key] = counts
        heapq.heappush(self._lightest, (counts.weight, key))
        return counts

    def _replace_lightest(self) -> float:
        heap, kept = self._lightest, self._kept
        while (weight := kept[heap[0][1]].weight) > heap[0][0]:
            heapq.heapreplace(heap, (weight, heap[0][1]))
        _, key = heapq.heappop(heap)
        self.other.merge(kept.pop(key))
        return weight

    def merge(self, other: Bounded[C]) -> None:
        """Add the counts of *other*, the heaviest first."""
        self.other.merge(other.other)
        for key, counts in sorted(other, key=lambda item: -item[1].weight):
            mine = self[key]
            mine.merge(counts)
            mine.credit = max(mine.credit, counts.credit)
