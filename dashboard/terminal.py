"""Terminal: the fleet for ``relet top``, and for the commands that print one table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import sleep
from typing import TYPE_CHECKING, Any

from relet.backends.config.dsn import database_of
from relet.backends.reports.reason import reason_of_settings
from relet.backends.reports.report import Column, Report, width_of
from relet.core.sql.fingerprint import one_line

from .fleet import Filter, Fleet, read

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

#: Command -> the report of the fleet that it prints.
REPORTS = {
    "pools": "pools",
    "routes": "routes",
    "queries": "queries",
    "connections": "sessions",
    "processes": "processes",
}
#: Rows of each table of ``relet top``, from top to bottom.
_ROWS = {"pools": 8, "sessions": 15, "routes": 8, "queries": 8}


class NotSetUp(Exception):
    """The fleet cannot be read; the text says why, and what to do."""


@dataclass(frozen=True)
class Options:
    """What the commands have in common.

    :param settings: the module of a project's settings.
    :param dsn: a libpq URI, for where there is no project.
    """

    settings: str | None = None
    dsn: str | None = None
    only: Filter = field(default_factory=Filter)
    as_json: bool = False


def set_up(options: Options) -> None:
    """Set Django up with the project's settings, or with a database only.

    :raises NotSetUp: neither is given, or it is not right.
    """
    import django
    from django.conf import settings

    if options.dsn is not None:
        settings.configure(
            DATABASES={"default": _database(options.dsn)},
            INSTALLED_APPS=["relet.dashboard"],
            USE_TZ=True,
        )
    elif options.settings or os.environ.get("DJANGO_SETTINGS_MODULE"):
        if options.settings:
            os.environ["DJANGO_SETTINGS_MODULE"] = options.settings
        sys.path.insert(0, os.curdir)  # as manage.py has it
    else:
        raise NotSetUp(
            "which database? Give --settings, the module of a project's settings, or --dsn, a URI "
            "such as postgresql://user@host/name; or set DJANGO_SETTINGS_MODULE."
        )
    try:
        django.setup()
    except Exception as error:
        raise NotSetUp(reason_of_settings(error)) from error
    from django.apps import apps

    if not apps.is_installed("relet.dashboard"):
        raise NotSetUp("INSTALLED_APPS of these settings has no 'relet.dashboard'.")


def _database(dsn: str) -> dict[str, Any]:
    try:
        return database_of(dsn)
    except ValueError as error:
        raise NotSetUp(f"--dsn: {error}") from error


def show(command: str, options: Options, *, limit: int | None = 20) -> int:
    """Print one table of the fleet; return the exit code: 1 if it could not be read.

    :param command: one of `REPORTS`.
    :param limit: how many rows to print; None for all.
    """
    fleet = read(options.only, ask=False)
    report: Report[Any] = getattr(fleet, REPORTS[command])
    report.rows = report.rows[:limit]
    report.notes = fleet.notes
    if options.as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        report.notes = ()
        print(report.as_table())
        for note in fleet.notes:
            print(f"relet: {one_line(note)}", file=sys.stderr)
    return _code(fleet)


def _code(fleet: Fleet) -> int:
    """Return the exit code: 1 if nothing could be read."""
    return 1 if fleet.notes and not fleet.processes.rows else 0


def top(options: Options, *, interval: float = 2.0, once: bool = False) -> int:
    """Show the fleet until interrupted; return the exit code: 1 if it could not be read.

    :param interval: seconds from one look to the next.
    :param once: look once, and print it. So it does where nobody could see it change.
    :raises NotSetUp: rich is not installed.
    """
    if options.as_json:
        fleet = read(options.only)
        print(json.dumps(fleet.as_dict(), indent=2))
        return _code(fleet)
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise NotSetUp("relet top needs rich: pip install 'relet[top]'.") from error

    console = Console()
    if once or not sys.stdout.isatty():
        fleet = read(options.only)
        console.print(picture(fleet, console.width))
        return _code(fleet)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(picture(read(options.only), console.width), refresh=True)
            sleep(interval)


def picture(fleet: Fleet, width: int = sys.maxsize) -> RenderableType:
    """Return what ``relet top`` shows of the fleet at one moment.

    :param width: the columns of the terminal. By default, it has room for all tables.
    """
    from rich.console import Group
    from rich.text import Text

    living = [row for row in fleet.processes.rows if not row.stale]
    processes = _counted(len(living), "process", "processes")
    hosts = _counted(len({row.host for row in living}), "host", "hosts")
    words = f"relet: {processes} on {hosts}, Ctrl-C ends"
    parts: list[Any] = [Text(words, style="bold")]
    parts += [Text(one_line(note), style="yellow") for note in fleet.notes]
    for name, rows in _ROWS.items():
        report: Report[Any] = getattr(fleet, name)
        shown = report.rows
        if name == "pools":
            shown = tuple(row for row in shown if row.host is None)
        elif name == "sessions":
            # Idle ones, of which there are many, say nothing that the pools do not.
            shown = tuple(row for row in shown if row.leased_seconds is not None or row.chain)
        parts.append(_table(name, report, shown[:rows], width))
    return Group(*parts)


def _counted(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


_TITLES: Mapping[str, str] = {
    "pools": "Pools",
    "sessions": "Connections that are leased, and who is blocked",
    "routes": "Routes, by idle",
    "queries": "Queries, by total",
}


#: The columns of a terminal to which a wide column is cut, at least, and those between two.
_NARROWEST, _GAP = 12, 2


def _table(name: str, report: Report[Any], rows: tuple[Any, ...], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=_TITLES[name], title_justify="left", expand=True, box=None, pad_edge=False)
    columns = [
        column
        for column in report.columns
        if not column.optional or any(column.text(row) not in ("", "0") for row in rows)
    ]
    columns, least = _fitting(columns, rows, width)
    for column in columns:
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            # What is left over is shared out, so that each gets its least width or more.
            ratio=least[column.name] if column.wide else None,
        )
    for row in rows:
        # Texts of others: no markup of rich's, and nothing that a terminal obeys.
        cells = (Text(one_line(column.text(row))) for column in columns)
        table.add_row(*cells, style="red" if getattr(row, "chain", ()) else None)
    return table


def _fitting(
    columns: list[Column], rows: tuple[Any, ...], width: int
) -> tuple[list[Column], Mapping[str, int]]:
    """Return those of *columns* that *width* has room for, and the least width of each.

    The last ones are left out first, but neither of the first two, nor the text of a statement.
    """
    least = {}
    for column in columns:
        most = max(width_of(text) for text in (column.name, *map(column.text, rows)))
        least[column.name] = min(most, _NARROWEST) if column.wide else most
    kept = list(columns)
    last = -1 if columns[-1].wide else len(columns)
    while kept[2:last] and sum(least[column.name] + _GAP for column in kept) > width + _GAP:
        kept.remove(kept[2:last][-1])
    return kept, least
