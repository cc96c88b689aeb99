"""Durations one by one, for exporters that cannot take them in buckets."""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from relet.core.observe import Tally

from . import collection

Kind = Literal["creations", "uses", "waits"]


class Duration(NamedTuple):
    """A duration that was counted.

    :param alias: the key in ``DATABASES``.
    :param kind: the attribute of `relet.core.observe.PoolCounts` that counts it.
    :param seconds: the duration.
    """

    alias: str
    kind: Kind
    seconds: float


_followers: list[deque[Duration]] = []


def follow(limit: int) -> deque[Duration]:
    """Return a queue that gets each duration from now on. The reader removes them.

    :param limit: if there are more of them, the oldest are dropped.
    """
    queue: deque[Duration] = deque(maxlen=limit)
    _followers.append(queue)
    return queue


def add(alias: str, kind: Kind, seconds: float) -> Tally:
    """Count a duration in the tally of this thread, and return that.

    Nothing is locked: a finalizer may call this anywhere.
    """
    tally = collection.here(alias)
    note(tally, kind, seconds)
    return tally


def note(tally: Tally, kind: Kind, seconds: float) -> None:
    """Count a duration in *tally*, which is one of this thread."""
    getattr(tally.pool, kind).add(seconds)
    for queue in _followers:
        queue.append(Duration(tally.alias, kind, seconds))


def forked() -> None:
    """Drop the durations of the parent, in a forked child."""
    for queue in _followers:
        queue.clear()
