"""Dump: all reports in one text, for a process that hangs."""

from __future__ import annotations

import os
from collections.abc import Callable

from .connections import connections
from .pools import pools
from .queries import queries
from .routes import routes

_WIDTH = 160


def dump() -> str:
    """Return all reports of this process, with all stacks. It takes no connection."""
    parts = [f"relet: process {os.getpid()}"]
    for title, report in (
        ("pools", lambda: pools().as_table(width=_WIDTH)),
        ("connections", lambda: connections().as_table(width=_WIDTH, stacks=True)),
        ("routes, by idle", lambda: routes(limit=10).as_table(width=_WIDTH)),
        ("queries, by total", lambda: queries(limit=10).as_table(width=_WIDTH)),
    ):
        parts.append(f"\n{title}\n{_report(report)}")
    return "\n".join([*parts, ""])


def _report(report: Callable[[], str]) -> str:
    try:
        return report()
    except Exception as error:  # noqa: BLE001 - the other reports may be all the better
        return f"failed: {type(error).__name__}"
