"""Payload: what a process reports of itself, with the public reports of this process.

It has no value of a statement, because those have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import relet
from relet.backends.metrics import readings
from relet.backends.metrics.readings import Reading
from relet.backends.observe import collection
from relet.backends.reports.pools import PoolRow
from relet.core.observe import Histogram, PoolCounts

from .tables import Rollup

#: The statements and routes that a process reports: the top ones. And the connections.
QUERIES, ROUTES, CONNECTIONS = 50, 50, 200
#: Characters of a text that are reported, such as a statement, and lines of all stacks.
LONGEST_TEXT, LINES = 2_000, 20_000
_STACKS = ("leased_at", "cursor_at", "ran_at", "now_at")


def now(pools: Iterable[PoolRow], *, stacks: bool) -> dict[str, Any]:
    """Return what this process has and does at this moment.

    :param pools: the rows of ``relet.pools()``.
    :param stacks: whether to add the stacks of connections.
    """
    connections = relet.connections().as_dict()["rows"][:CONNECTIONS]
    if not stacks:
        for row in connections:
            for name in _STACKS:
                row.pop(name, None)
    return {
        "pools": [_shortened(vars(row)) for row in pools],
        "lines": number_lines(connections),
        "connections": [_shortened(row) for row in connections],
    }


def number_lines(connections: Iterable[dict[str, Any]]) -> list[Any]:
    """Return the lines of all stacks, each once; the stacks become their numbers in it.

    As texts: a page reads the numbers of few of them.
    """
    numbers: dict[tuple[Any, ...], int] = {}
    for row in connections:
        for name in _STACKS:
            if stack := row.get(name):
                found = [numbers.setdefault(tuple(line), len(numbers)) for line in stack]
                row[name] = " ".join(map(str, found))
    return [*map(list, numbers)]


_QUOTES = str.maketrans({'"': "'", "'": '"'})


def swap_quotes(text: str) -> str:
    """Return *text* with single quotes for double ones, and double ones for single ones.

    JSON escapes double quotes, of which statements are full: that takes most of the time of reading
    them. Of single ones those without values have few.
    """
    return text.translate(_QUOTES)


@dataclass(frozen=True)
class Table:
    """How routes or statements are reported: as columns.

    There are thousands of them in a fleet, and columns of whole numbers are read and added up in a
    third of the time of rows.

    :param texts: names of columns; rows with the same under the first are added up. Their quotes
        are swapped.
    :param counts: names of columns.
    :param times: names of columns of durations, in microseconds.
    """

    texts: tuple[str, ...]
    counts: tuple[str, ...]
    times: tuple[str, ...]

    def columns(self, rows: Iterable[Any]) -> dict[str, list[Any]]:
        """Return *rows*, whose attributes are those columns, with durations in seconds."""
        rows = list(rows)
        return {
            **{
                name: [_short(swap_quotes(getattr(row, name))) for row in rows]
                for name in self.texts
            },
            **{name: [getattr(row, name) for row in rows] for name in self.counts},
            **{name: [round(getattr(row, name) * 1e6) for row in rows] for name in self.times},
        }


ROUTE_TABLE = Table(
    texts=("route",),
    counts=("leases",),
    times=("idle", "held", "ran", "waited", "blocked", "longest"),
)
QUERY_TABLE = Table(
    texts=("sql", "route"),
    counts=("calls", "rows", "errors"),
    times=("total", "p95", "max", "waited"),
)


def totals() -> dict[str, Any]:
    """Return what this process has counted so far."""
    return {
        "routes": ROUTE_TABLE.columns(relet.routes(limit=ROUTES).rows),
        "queries": QUERY_TABLE.columns(relet.queries(limit=QUERIES).rows),
        "metrics": metrics(),
    }


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Return *row* with times of whole microseconds, because more digits only take room.

    So do texts of any length.
    """
    return {name: _short(value) for name, value in row.items()}


def _short(value: Any) -> Any:
    if type(value) is float:
        return round(value, 6)
    if type(value) is str and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}…"
    return value


_HISTOGRAMS = ("operations", "waits", "uses", "creations")
_COUNTERS = ("timeouts", "discarded", "resets")


def metrics() -> dict[str, Any]:
    """Return alias -> what `relet.metrics` exports of its pools."""
    counted = collection.pools()
    return {
        alias: {
            "reading": vars(reading),
            "counts": _counts(counted[alias]) if alias in counted else None,
        }
        for alias, reading in readings.read().items()
    }


def _counts(counts: PoolCounts) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(counts, name) for name in _COUNTERS}
    for name in _HISTOGRAMS:
        histogram: Histogram = getattr(counts, name)
        filled = {n: count for n, count in enumerate(histogram.buckets) if count}
        found[name] = [histogram.total, histogram.maximum, filled]
    return found


def read_metrics(found: dict[str, Any]) -> tuple[Reading, PoolCounts | None]:
    """Return what one alias of `metrics` was made from.

    :raises Exception: *found* is something else, such as another version's.
    """
    given = found["reading"]
    reading = Reading(
        idle=_count(given["idle"]),
        used=_count(given["used"]),
        pending=_count(given["pending"]),
        min_idle=_count(given["min_idle"]),
        max_idle=_limit(given["max_idle"]),
        max_size=_limit(given["max_size"]),
    )
    if found["counts"] is None:
        return reading, None
    counts = PoolCounts()
    for name in _COUNTERS:
        setattr(counts, name, _count(found["counts"][name]))
    for name in _HISTOGRAMS:
        histogram: Histogram = getattr(counts, name)
        total, maximum, filled = found["counts"][name]
        histogram.total, histogram.maximum = _duration(total), _duration(maximum)
        for number, count in filled.items():
            histogram.buckets[_count(int(number))] = _count(count)
    return reading, counts


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("it is no count")
    return value


def _limit(value: Any) -> int | None:
    return None if value is None else _count(value)


def _duration(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < inf:
        raise ValueError("it is no duration")
    return float(value)


@dataclass
class _Seen:
    """What was seen of the pools of one alias since the last minute ended."""

    looks: int = 0
    size: int = 0
    in_use: int = 0
    waiting: int = 0


@dataclass
class Minutes:
    """Makes the rollups of minutes from what is seen of the pools at each beat."""

    _seen: dict[str, _Seen] = field(default_factory=dict)
    _counted: dict[str, tuple[int, int, float, int]] = field(default_factory=dict)
    _minute: int | None = None

    def add(self, pools: Iterable[PoolRow], minute: int) -> tuple[Rollup, ...]:
        """Note the pools; return the rollups of the minute that has ended, if one has.

        :param minute: the number of the minute, by any clock.
        """
        rows = {row.alias: row for row in pools}
        for alias, row in rows.items():
            seen = self._seen.setdefault(alias, _Seen())
            seen.looks += 1
            seen.size += row.size
            seen.in_use += row.in_use
            seen.waiting += row.waiting
        first = self._minute is None
        if minute == self._minute:
            return ()
        self._minute = minute
        made = [] if first else [self._rollup(row) for row in rows.values()]
        self._seen.clear()
        self._counted = {alias: _counted(row) for alias, row in rows.items()}
        return tuple(made)

    def _rollup(self, row: PoolRow) -> Rollup:
        seen = self._seen[row.alias]
        before = self._counted.get(row.alias, (0, 0, 0.0, 0))
        # A pool that was opened anew counts from 0.
        since: Callable[[int], Any] = lambda n: max(0, _counted(row)[n] - before[n])  # noqa: E731
        return Rollup(
            alias=row.alias,
            size=seen.size / seen.looks,
            in_use=seen.in_use / seen.looks,
            waiting=seen.waiting / seen.looks,
            checkouts=since(0),
            waits=since(1),
            waited=since(2),
            timeouts=since(3),
        )


def _counted(row: PoolRow) -> tuple[int, int, float, int]:
    return row.checkouts, row.waits, row.waited, row.timeouts
