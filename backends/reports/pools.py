"""``relet.pools``: the pools of this process, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isinf

from relet.backends.observe import collection
from relet.backends.pools import pools as open_pools
from relet.core.observe import PoolCounts

from .reason import reasons_of_unobserved
from .report import Column, Report, number, seconds


@dataclass(frozen=True)
class PoolRow:
    """The pool of one alias. All times are in seconds.

    The first nine are those of `relet.core.PoolStats`, at this moment. The others are counted since
    the process began, for all pools that the alias has had, by wrappers that observe.

    :param waits_histogram: pairs of (upper bound, how many threads waited at most that long). The
        last bound is None: no bound.
    :param longest_wait: the longest wait.
    :param timeouts: how often no connection came free in time.
    :param created: connections that were opened.
    :param discarded: connections that were closed instead of returned, because they were lost or
        could not be restored.
    :param reset: how often session state was undone before a connection was returned.
    :param abandoned: connections that were discarded because their thread had ended.
    """

    alias: str
    min_size: int
    max_size: int | None
    size: int
    idle: int
    in_use: int
    waiting: int
    checkouts: int
    waits: int
    waited: float
    longest_wait: float
    waits_histogram: tuple[tuple[float | None, int], ...]
    timeouts: int
    created: int
    discarded: int
    reset: int
    abandoned: int


class PoolsReport(Report[PoolRow]):
    """What ``relet.pools()`` returns."""

    columns = (
        Column("alias", lambda row: row.alias, wide=True),
        Column("size", lambda row: f"{row.size}/{number(row.max_size) or '-'}", right=True),
        Column("idle", lambda row: number(row.idle), right=True),
        Column("in use", lambda row: number(row.in_use), right=True),
        Column("waiting", lambda row: number(row.waiting), right=True, optional=True),
        Column("checkouts", lambda row: number(row.checkouts), right=True),
        Column("waits", lambda row: number(row.waits), right=True, optional=True),
        Column("waited", lambda row: seconds(row.waited), right=True, optional=True),
        Column("longest", lambda row: seconds(row.longest_wait), right=True, optional=True),
        Column("timeouts", lambda row: number(row.timeouts), right=True, optional=True),
        Column("created", lambda row: number(row.created), right=True),
        Column("discarded", lambda row: number(row.discarded), right=True, optional=True),
        Column("reset", lambda row: number(row.reset), right=True, optional=True),
        Column("abandoned", lambda row: number(row.abandoned), right=True, optional=True),
    )


def pools() -> PoolsReport:
    """Return the pools that are open in this process."""
    counts = collection.totals().pools
    notes = reasons_of_unobserved("longest wait, timeouts, created, discarded and reset are")
    return PoolsReport(_rows(counts), notes)


def _rows(counts: dict[str, PoolCounts]) -> Iterator[PoolRow]:
    for handle in sorted(open_pools, key=lambda handle: handle.alias):
        stats = handle.pool.stats()
        counted = counts.get(handle.alias) or PoolCounts()
        yield PoolRow(
            alias=handle.alias,
            min_size=stats.min_size,
            max_size=stats.max_size,
            size=stats.size,
            idle=stats.idle,
            in_use=stats.in_use,
            waiting=stats.waiting,
            checkouts=stats.checkouts,
            waits=stats.waits,
            waited=stats.wait_ms / 1000,
            longest_wait=counted.waits.maximum,
            waits_histogram=tuple(
                (None if isinf(bound) else bound, count)
                for bound, count in counted.waits.cumulative()
            ),
            timeouts=counted.timeouts,
            created=counted.created,
            discarded=counted.discarded,
            reset=counted.resets,
            abandoned=handle.pool.abandoned,
        )
