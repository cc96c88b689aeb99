"""Fleet: what all processes have reported, read from the table and put together.

What a process reports was written by another process, perhaps of another version, and by whoever
may write to the table: so every part of it is read by its name, and what cannot be read is left out
and noted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import frexp
from typing import Any

from relet.backends.leases.session_rules import sqlstate
from relet.backends.reports.reason import reason
from relet.backends.reports.report import plain
from relet.core.observe import Histogram
from relet.core.observe.histogram import LONGEST_S, SHORTEST_S

from . import home, payload, tables
from .packing import unpack
from .payload import swap_quotes
from .rows import (
    STACKS,
    FleetPoolsReport,
    FleetQueriesReport,
    FleetRoutesReport,
    Line,
    PoolRow,
    ProcessesReport,
    ProcessRow,
    QueryRow,
    RouteRow,
    SessionRow,
    SessionsReport,
)
from .sessions import Database, databases

#: Sessions of which a chain names at most as many.
_LONGEST_CHAIN = 10
#: Rows of each kind that are read of a report.
_MOST_ROWS = 1_000
#: Characters of a text: one more than are reported, for what shows that it was cut.
_LONGEST_TEXT = payload.LONGEST_TEXT + 1
#: Characters of the name of a file or function in a stack.
_LONGEST_NAME = 200
#: The number of a line of a stack.
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Filter:
    """Which part of the fleet is looked at.

    :param route: what the name of a route has in it.
    """

    host: str | None = None
    alias: str | None = None
    route: str | None = None

    def has(self, *, host: str | None = None, alias: str | None = None) -> bool:
        return (self.host is None or host == self.host) and (
            self.alias is None or alias is None or alias == self.alias
        )

    def has_route(self, route: str | None) -> bool:
        return self.route is None or self.route.lower() in (route or "").lower()


@dataclass(frozen=True)
class Series:
    """The last hour of one alias, a value for each minute, the oldest first.

    None where no process has reported.
    """

    alias: str
    in_use: tuple[float | None, ...]
    waiting: tuple[float | None, ...]
    waited: tuple[float | None, ...]
    checkouts: tuple[float | None, ...]
    timeouts: tuple[float | None, ...]


@dataclass(frozen=True)
class Fleet:
    """All that is known.

    :ivar hosts: all of them, whatever is filtered, as `aliases`.
    :ivar notes: what could not be read, and why.
    """

    processes: ProcessesReport
    pools: FleetPoolsReport
    routes: FleetRoutesReport
    queries: FleetQueriesReport
    sessions: SessionsReport
    series: tuple[Series, ...]
    hosts: tuple[str, ...]
    aliases: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as ``json.dumps`` takes it. All times are in seconds."""
        reports = ("processes", "pools", "routes", "queries", "sessions")
        return {
            **{name: getattr(self, name).as_dict()["rows"] for name in reports},
            "series": [plain(vars(one)) for one in self.series],
            "hosts": [*self.hosts],
            "aliases": [*self.aliases],
            "notes": [*self.notes],
        }


def read(only: Filter = Filter(), *, ask: bool = True) -> Fleet:
    """Return the fleet as it is now.

    :param ask: whether to have all processes beat each second for a while, and bring stacks.
    """
    notes: list[str] = []
    alias = _attempt(home.alias, notes)
    found = minutes = None
    if alias is not None:
        found = _attempt(lambda: home.run(tables.processes(), alias), notes)
    if found is not None:
        minutes = _attempt(lambda: home.run(tables.minutes(only.host), alias), notes)
        if ask:
            _attempt(lambda: home.run(tables.look(), alias), notes)
    found = found or []
    reported = [one for one in map(_Reported.read, found) if one is not None]
    if len(reported) < len(found):
        notes.append(f"{len(found) - len(reported)} reports could not be read.")
    aliases = {_str(row.get("alias")) for one in reported for row in one.pools}
    known = sorted(filter(None, {alias, *aliases}))
    chosen = [one for one in reported if only.has(host=one.host)]
    living = [one for one in chosen if not one.stale]
    return Fleet(
        processes=ProcessesReport(one.process() for one in chosen),
        pools=FleetPoolsReport(_pools(chosen, only)),
        routes=FleetRoutesReport(_routes(living, only)),
        queries=FleetQueriesReport(_queries(living, only)),
        sessions=SessionsReport(_sessions(living, only, known, notes)),
        series=tuple(_series(minutes or [], only, known)),
        hosts=tuple(sorted({one.host for one in reported})),
        aliases=tuple(known),
        notes=tuple(notes),
    )


def _attempt(read: Callable[[], Any], notes: list[str]) -> Any:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - anything that a driver or a setting raises
        text = reason(error)
        if sqlstate(error) == _NO_TABLE or sqlstate(error.__cause__ or error) == _NO_TABLE:
            text += ". Run 'manage.py migrate' on the alias that has the tables of the fleet."
        notes.append(text)
        return None


#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_NO_TABLE = "42P01"


@dataclass
class _Reported:
    """What one process has reported."""

    host: str
    pid: int
    version: str
    age: float
    silent: float
    interval: float
    report: Mapping[str, Any]
    #: Lines of stacks that may be shown yet. A few numbers could name a long line without end.
    lines_left: int = payload.LINES

    @classmethod
    def read(cls, row: Any) -> _Reported | None:
        _, host, pid, version, age, silent, interval, now, totals = row
        try:
            report = {**unpack(totals), **unpack(now)}
        except ValueError:
            return None
        return cls(host, pid, version, age, silent, interval, report)

    def rows(self, name: str) -> Iterator[Mapping[str, Any]]:
        found = _list(self.report.get(name))[:_MOST_ROWS]
        return (row for row in found if isinstance(row, dict))

    @cached_property
    def pools(self) -> list[Mapping[str, Any]]:
        """What it has reported of its pools."""
        return [*self.rows("pools")]

    @cached_property
    def lines(self) -> list[Line | None]:
        """The lines of all its stacks."""
        return [*map(_line, _list(self.report.get("lines")))]

    def stacks(self, row: Mapping[str, Any]) -> _Stacks:
        """Return the stacks of a connection."""
        numbers = {}
        for name in STACKS:
            if found := row.get(name):
                text = found if isinstance(found, str) else ""
                count = min(text.count(" ") + 1, self.lines_left)
                numbers[name] = text, count
                self.lines_left -= count
        return _Stacks(self, numbers)

    @property
    def stale(self) -> bool:
        return tables.is_stale(self.silent, self.interval)

    def process(self) -> ProcessRow:
        sums = {
            name: sum([_int(row.get(name)) for row in self.pools])
            for name in ("size", "in_use", "waiting")
        }
        return ProcessRow(
            host=self.host,
            pid=self.pid,
            version=self.version,
            age=self.age,
            silent=self.silent,
            stale=self.stale,
            **sums,
        )


class _Stacks(Mapping[str, list[Line]]):
    """The stacks of a connection, reported as numbers of lines: texts, and how many to read.

    Read when they are asked for: a page shows those of a few connections of thousands.
    """

    def __init__(self, reported: _Reported, numbers: dict[str, tuple[str, int]]) -> None:
        self._reported, self._numbers = reported, numbers

    def __getitem__(self, name: str) -> list[Line]:
        (text, count), lines = self._numbers[name], self._reported.lines
        numbers = (int(n) for n in text.split(" ", count)[:count] if _NUMBER.fullmatch(n))
        found = (lines[n] for n in numbers if n < len(lines))
        return [line for line in found if line is not None]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


# What is found under a name may be of any kind.


def _int(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and abs(value) < 2**62 else 0


_NUMBERS = frozenset((int, float))
_LARGEST = 1e300


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and abs(value) < _LARGEST else 0.0


def _some(value: Any) -> float | None:
    return None if value is None else _float(value)


def _str(value: Any) -> str | None:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _line(value: Any) -> Line | None:
    """Return a line of a stack: a file, the number of a line, and a function."""
    if [*map(type, _list(value))] != [str, int, str] or not 0 <= value[1] < 2**31:
        return None
    file, number, function = value
    return file[-_LONGEST_NAME:], number, function[:_LONGEST_NAME]


_POOL_SUMS = (
    *("size", "idle", "in_use", "waiting", "checkouts", "waits", "timeouts"),
    *("created", "discarded"),
)


def _pools(reported: Iterable[_Reported], only: Filter) -> Iterator[PoolRow]:
    by_alias: dict[str, list[tuple[_Reported, PoolRow, Histogram]]] = defaultdict(list)
    for one in reported:
        for row in one.pools:
            alias = _alias(row)
            if only.has(host=one.host, alias=alias):
                waits = _waits(row)
                by_alias[alias].append((one, _pool(one, alias, row, waits), waits))
    for alias, found in sorted(by_alias.items()):
        living = [(pool, waits) for one, pool, waits in found if not one.stale]
        yield _pools_of(alias, living)
        for _, pool, _ in found:
            yield pool


def _pool(one: _Reported, alias: str, row: Mapping[str, Any], waits: Histogram) -> PoolRow:
    size = row.get("max_size")
    return PoolRow(
        alias=alias,
        host=one.host,
        pid=one.pid,
        max_size=None if size is None else _int(size),
        waited=_float(row.get("waited")),
        **_percentiles(waits),
        **{name: _int(row.get(name)) for name in _POOL_SUMS},
    )


def _pools_of(alias: str, pools: list[tuple[PoolRow, Histogram]]) -> PoolRow:
    """Return the pools of one alias all together."""
    all_waits = Histogram()
    for _, waits in pools:
        all_waits.merge(waits)
    sizes = [row.max_size for row, _ in pools]
    sums = {name: sum([getattr(row, name) for row, _ in pools]) for name in _POOL_SUMS}
    return PoolRow(
        alias=alias,
        host=None,
        pid=None,
        max_size=None if None in sizes else sum(filter(None, sizes)),
        waited=sum([row.waited for row, _ in pools]),
        **_percentiles(all_waits),
        **sums,
    )


def _percentiles(waits: Histogram) -> dict[str, Any]:
    return {
        "wait_p50": waits.quantile(0.5),
        "wait_p99": waits.quantile(0.99),
        "longest_wait": waits.maximum,
    }


def _waits(row: Mapping[str, Any]) -> Histogram:
    """Return the waits of a pool, which are reported as (upper bound, waits up to it)."""
    waits = Histogram()
    below = 0
    for pair in _list(row.get("waits_histogram")):
        if not isinstance(pair, list) or len(pair) != 2:
            continue
        bound = _float(pair[0])
        if not 2 * SHORTEST_S <= bound <= LONGEST_S:
            continue  # what is above the last bound is in none
        # A bound is a power of two, whose exponent is one less than frexp() says.
        count = _int(pair[1])
        waits.buckets[frexp(bound)[1] - 1] += max(0, count - below)
        below = count
    waits.maximum = max(0.0, _float(row.get("longest_wait")))
    return waits


class _Merged:
    """The rows of all processes under one name, put together by their first text.

    :ivar texts: the texts, in order, as what is returned for each of them.
    """

    def __init__(
        self, reported: Iterable[_Reported], name: str, table: payload.Table, only: Filter
    ) -> None:
        key, *others = (*table.texts, *table.counts, *table.times)
        columns: dict[str, list[Any]] = {column: [] for column in (key, *others)}
        for one in reported:
            given = one.report.get(name)
            if not isinstance(given, dict):
                continue
            keys = _list(given.get(key))[:_MOST_ROWS]
            columns[key] += keys
            for column in others:
                values = _list(given.get(column))[: len(keys)]
                columns[column] += values
                columns[column] += [None] * (len(keys) - len(values))
        for column in table.texts:
            columns[column] = _texts(columns[column])
        chosen = {text for text in {*columns["route"]} if only.has_route(swap_quotes(text))}
        rows: dict[str, list[int]] = defaultdict(list)
        for number, (text, route) in enumerate(zip(columns[key], columns["route"], strict=True)):
            if route in chosen:
                rows[text].append(number)
        self.texts = [*map(swap_quotes, rows)]
        self._rows = [*rows.values()]
        self._columns = columns

    def processes(self) -> list[int]:
        """Return how many processes have it."""
        return [*map(len, self._rows)]

    def counts(self, column: str) -> list[int]:
        """Return the sums of *column*."""
        return [*map(int, self._each(sum, column))]

    def times(self, column: str) -> list[float]:
        """Return the sums of *column*, in seconds."""
        return [found / 1e6 for found in self._each(sum, column)]

    def longest(self, column: str) -> list[float]:
        """Return the highest of *column*, in seconds."""
        return [found / 1e6 for found in self._each(max, column)]

    def _each(self, function: Callable[[list[Any]], float], column: str) -> list[float]:
        values = self._columns[column]
        return [_number(function, [values[row] for row in rows]) for rows in self._rows]

    def most(self, column: str, by: str) -> list[str]:
        """Return the texts under *column* that have the highest sums of *by*."""
        found = []
        texts, numbers = self._columns[column], self._columns[by]
        if not {int}.issuperset(map(type, numbers)):
            numbers = [*map(_float, numbers)]
        for rows in self._rows:
            sums: dict[str, float] = defaultdict(int)
            for row in rows:
                sums[texts[row]] += numbers[row]
            found.append(swap_quotes(max(sums, key=sums.__getitem__)))
        return found


def _texts(values: list[Any]) -> list[str]:
    # Nearly all columns have short texts only. To see that takes a tenth of reading each.
    if {str}.issuperset(map(type, values)) and max(map(len, values), default=0) <= _LONGEST_TEXT:
        return values
    return [_str(value) or "" for value in values]


def _number(function: Callable[[list[Any]], float], values: list[Any]) -> float:
    """Return the sum or the highest of *values*, which may be of any kind."""
    try:
        found = function(values)
    except (TypeError, OverflowError, RecursionError):
        pass
    else:
        # Nearly all are numbers. To see that of what comes out takes a tenth of looking at each.
        if type(found) in _NUMBERS and abs(found) < _LARGEST:
            return found
    return function([*map(_float, values)])


def _routes(reported: Iterable[_Reported], only: Filter) -> list[RouteRow]:
    found = _Merged(reported, "routes", payload.ROUTE_TABLE, only)
    rows = map(
        RouteRow,
        found.texts,
        found.processes(),
        found.counts("leases"),
        found.times("idle"),
        found.times("held"),
        found.times("ran"),
        found.times("waited"),
        found.longest("longest"),
        found.times("blocked"),
    )
    return sorted(rows, key=lambda row: row.idle, reverse=True)


def _queries(reported: Iterable[_Reported], only: Filter) -> list[QueryRow]:
    found = _Merged(reported, "queries", payload.QUERY_TABLE, only)
    calls, totals = found.counts("calls"), found.times("total")
    means = [total / count if count else 0.0 for total, count in zip(totals, calls, strict=True)]
    rows = map(
        QueryRow,
        found.texts,
        found.processes(),
        calls,
        totals,
        means,
        found.longest("p95"),
        found.longest("max"),
        found.counts("rows"),
        found.times("waited"),
        found.counts("errors"),
        found.most("route", "calls"),
    )
    return sorted(rows, key=lambda row: row.total, reverse=True)


def _sessions(
    reported: Iterable[_Reported], only: Filter, aliases: Iterable[str], notes: list[str]
) -> list[SessionRow]:
    """Return the connections of all processes, each with what its server says, and all others."""
    rows = [(one, row, _alias(row)) for one in reported for row in one.rows("connections")]
    asked = (alias for alias in aliases if only.alias in (None, alias))
    found: list[SessionRow] = []
    for database in databases(asked, notes):
        ours = (row for row in rows if row[2] in database.aliases)
        found += _chained(_joined(ours, database), database)
    chosen = (
        row
        for row in found
        if (only.host is None or row.host == only.host) and only.has_route(row.route)
    )
    return sorted(chosen, key=_importance)


def _alias(row: Mapping[str, Any]) -> str:
    return _str(row.get("alias")) or ""


_OF_SERVER = (
    *("started", "application_name", "user", "server_state", "server_seconds"),
    *("xact_seconds", "wait_event", "blocked_by"),
)


def _joined(
    ours: Iterable[tuple[_Reported, Mapping[str, Any], str]], database: Database
) -> Iterator[SessionRow]:
    by_pid = {row.pid: row for row in database.sessions.values()}
    known = set()
    for one, row, alias in ours:
        pid = row.get("pid")
        pid = pid if type(pid) is int and 0 < pid < 2**31 else None
        known.add(pid)
        said = by_pid.get(pid)
        of_server = {} if said is None else {name: getattr(said, name) for name in _OF_SERVER}
        yield SessionRow(
            alias=alias,
            pid=pid,
            host=one.host,
            process=one.pid,
            state=_str(row.get("state")) or "",
            seconds=_some(row.get("seconds")),
            leased_seconds=_some(row.get("leased_seconds")),
            thread=_str(row.get("thread")),
            task=_str(row.get("task")),
            route=_str(row.get("route")),
            sql=_str(row.get("sql")),
            stacks=one.stacks(row),
            database=database.aliases[0],
            **of_server,
        )
    for session, said in database.sessions.items():
        if said.pid not in known and session not in database.asked:
            yield said


def _chained(rows: Iterable[SessionRow], database: Database) -> Iterator[SessionRow]:
    """Yield *rows*, each with whom it waits for, and whom that waits for, and so on."""
    blocked_by = {row.pid: row.blocked_by for row in database.sessions.values() if row.blocked_by}
    for row in rows:
        chain: list[int] = []
        ahead = row.blocked_by
        while ahead and ahead[0] not in chain and len(chain) < _LONGEST_CHAIN:
            chain.append(ahead[0])
            ahead = blocked_by.get(ahead[0], ())
        yield replace(row, chain=tuple(chain)) if chain else row


def _importance(row: SessionRow) -> tuple[bool, bool, float]:
    """What is blocked first, then what is leased for longest, then what is idle."""
    leased = row.leased_seconds if row.leased_seconds is not None else row.xact_seconds
    return (not row.chain, leased is None, -(leased or 0.0))


def _series(minutes: Iterable[Any], only: Filter, known: Iterable[str]) -> Iterator[Series]:
    names = {tables.as_stored(alias): alias for alias in known}
    by_alias: dict[str, dict[int, Any]] = defaultdict(dict)
    for ago, stored, *sums in minutes:
        alias = names.get(stored, stored)
        if only.alias is None or alias == only.alias:
            by_alias[alias][ago] = sums
    for alias, found in sorted(by_alias.items()):
        # The minute that runs has not been reported by all.
        columns = zip(
            *(found.get(ago, [None] * 7) for ago in range(tables.HOUR, 0, -1)), strict=True
        )
        _, in_use, waiting, checkouts, _, waited, timeouts = columns
        yield Series(alias, in_use, waiting, waited, checkouts, timeouts)
