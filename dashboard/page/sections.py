"""Sections: the tables of the page, sorted as the address says, ready for the template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from django.http import HttpRequest

from relet.backends.reports.report import Report, seconds
from relet.dashboard.fleet import Fleet, Series
from relet.dashboard.rows import FleetColumn, SessionRow

from .markup import Line, more, table_rows
from .sparkline import sparkline

#: How many rows of a table are shown unless all are asked for.
ROWS = 50
#: Texts of cells that say nothing.
_NOTHING = frozenset(("", "0"))


@dataclass(frozen=True)
class Address:
    """The page's address: what is filtered, sorted and shown, and links to more of it."""

    parameters: dict[str, str]

    def get(self, name: str) -> str | None:
        return self.parameters.get(name) or None

    def link(self, fragment: str = "", **changes: str | None) -> str:
        """Return the address with *changes*; None removes a parameter."""
        merged = {**self.parameters, **changes}
        query = urlencode({name: value for name, value in merged.items() if value})
        return f"?{query}{'#' + fragment if fragment else ''}"


def address(request: HttpRequest, known: Sequence[str]) -> Address:
    """Return the address of *request*, with the parameters that are *known*."""
    return Address({name: request.GET[name][:200] for name in known if request.GET.get(name)})


@dataclass(frozen=True)
class Heading:
    """A column's heading, which is a link that sorts by it.

    :param order: ``ascending`` or ``descending`` if the table is sorted by it.
    """

    name: str
    help: str
    right: bool
    link: str
    order: str = ""

    @property
    def arrow(self) -> str:
        return {"ascending": "▲", "descending": "▼"}.get(self.order, "")


@dataclass(frozen=True)
class Section:
    """A table with a title.

    :param name: its parameter in the address, and its anchor.
    :param empty: what to say if there are no rows.
    :param rows: those that are shown, as HTML.
    :param left_out: how many rows are not shown.
    """

    name: str
    title: str
    intro: str
    empty: str
    headings: list[Heading] = field(default_factory=list)
    rows: str = ""
    left_out: int = 0
    all_link: str = ""


def section(
    name: str,
    title: str,
    intro: str,
    report: Report[Any],
    address: Address,
    *,
    empty: str = "Nothing yet.",
    line: Callable[[Any], Line] = lambda row: Line(),
) -> Section:
    """Return the section of a report.

    :param line: what a row has beside its cells.
    """
    columns: list[FleetColumn] = [
        column
        for column in report.columns
        if isinstance(column, FleetColumn)
        and not (column.optional and all(map(_NOTHING.__contains__, map(column.text, report.rows))))
    ]
    given = address.get(name) or ""
    by, falling = given.lstrip("-"), given.startswith("-")
    rows = list(report.rows)
    for column in columns:
        if column.name == by:
            rows.sort(key=column.key, reverse=falling)
    limit = None if address.get("all") == name else ROWS
    return Section(
        name=name,
        title=title,
        intro=intro,
        empty=empty,
        headings=[_heading(name, column, by, falling, address) for column in columns],
        rows=table_rows(columns, ((row, line(row)) for row in rows[:limit])),
        left_out=0 if limit is None else max(0, len(rows) - limit),
        all_link=address.link(name, all=name),
    )


def _heading(name: str, column: FleetColumn, by: str, falling: bool, address: Address) -> Heading:
    sorted_by = column.name == by
    # Of numbers the largest are looked for, of texts the first.
    next_falling = not falling if sorted_by else column.right
    return Heading(
        name=column.name,
        help=column.help,
        right=column.right,
        link=address.link(name, **{name: f"{'-' if next_falling else ''}{column.name}"}),
        order="" if not sorted_by else "descending" if falling else "ascending",
    )


def sections(fleet: Fleet, address: Address, token: str | None) -> list[Section]:
    """Return all tables of the page, in order.

    :param token: the CSRF token of who may end sessions; None for others.
    """
    is_open = address.get("stacks") is not None
    return [
        section(
            "sessions",
            "Connections",
            "The sessions of the server: who has them, what they do, and whom they wait for. What "
            "is blocked comes first, then what is leased for longest.",
            fleet.sessions,
            address,
            empty="No session.",
            line=lambda row: _session(row, is_open=is_open, token=token),
        ),
        section(
            "pools",
            "Pools",
            "For each alias the pools of all processes together, then of each process. Counts and "
            "waits are since the processes began.",
            fleet.pools,
            address,
            empty="No process has reported a pool.",
            line=lambda row: Line(kind="total" if row.host is None else ""),
        ),
        section(
            "routes",
            "Routes",
            "Which part of the project holds connections. Idle: leased while no statement ran.",
            fleet.routes,
            address,
        ),
        section(
            "queries",
            "Queries",
            "The statements that cost most, without values. Times are the clients'.",
            fleet.queries,
            address,
        ),
        section(
            "processes",
            "Processes",
            "Processes that have reported in the last five minutes.",
            fleet.processes,
            address,
            empty="No process has reported.",
            line=lambda row: Line(kind="stale" if row.stale else ""),
        ),
    ]


def _id(row: SessionRow, pid: int) -> str:
    return f"s-{quote(row.database or row.alias)}-{pid}"


def _session(row: SessionRow, *, is_open: bool, token: str | None) -> Line:
    ahead = _id(row, row.chain[0]) if row.chain else ""
    return Line(
        id=_id(row, row.pid) if row.pid is not None else "",
        kind="blocked" if row.chain else "",
        more=more(row, ahead=ahead, is_open=is_open, token=token),
    )


@dataclass(frozen=True)
class Picture:
    """A sparkline with its legend: the highest and the last value, with their units."""

    title: str
    svg: str
    highest: str
    last: str


@dataclass(frozen=True)
class Hour:
    """The pictures of one alias."""

    alias: str
    pictures: list[Picture]


def hours(fleet: Fleet) -> list[Hour]:
    """Return the pictures of the last hour."""
    return [Hour(one.alias, _pictures(one)) for one in fleet.series]


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _pictures(series: Series) -> list[Picture]:
    kinds: tuple[tuple[str, Sequence[float | None], Callable[[float], str]], ...] = (
        ("connections in use", series.in_use, _plain),
        ("threads waiting", series.waiting, _plain),
        ("waited per minute", series.waited, seconds),
        ("checkouts per minute", series.checkouts, _plain),
        ("timeouts per minute", series.timeouts, _plain),
    )
    pictures = []
    for title, values, text in kinds:
        known = [value for value in values if value is not None]
        highest = text(max(known)) if known else "none"
        last = text(known[-1]) if known else "none"
        words = f"{series.alias}, {title}, the last hour: {highest} at most, {last} at last"
        pictures.append(Picture(title, sparkline(values, words), highest, last))
    return pictures
