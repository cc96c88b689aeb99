"""``relet.connections``: who has the connections of this process' pools."""

from __future__ import annotations

from relet.backends.leases.snapshot import ConnectionRow, Snapshot, format_stacks
from relet.backends.observe.stacks import Line
from relet.backends.pools import pools

from . import server_view
from .reason import reasons_of_alias
from .report import Column, Report, number, seconds


def _innermost(stack: tuple[Line, ...]) -> str:
    return f"{stack[0][0]}:{stack[0][1]}" if stack else ""


class ConnectionsReport(Report[ConnectionRow]):
    """What ``relet.connections()`` returns."""

    columns = (
        Column("alias", lambda row: row.alias),
        Column("pid", lambda row: number(row.pid), right=True),
        Column("state", lambda row: row.state, wide=True),
        Column("for", lambda row: seconds(row.seconds), right=True),
        Column("leased", lambda row: seconds(row.leased_seconds), right=True, optional=True),
        Column("thread", lambda row: row.task or row.thread or "", wide=True, optional=True),
        Column("route", lambda row: row.route or "", wide=True, optional=True),
        Column(
            "leased at",
            lambda row: _innermost(row.leased_at),
            wide=True,
            cut_left=True,
            optional=True,
        ),
        Column(
            "cursor at",
            lambda row: "" if row.cursor_at == row.ran_at else _innermost(row.cursor_at),
            wide=True,
            cut_left=True,
            optional=True,
        ),
        Column(
            "ran at", lambda row: _innermost(row.ran_at), wide=True, cut_left=True, optional=True
        ),
        Column(
            "now at", lambda row: _innermost(row.now_at), wide=True, cut_left=True, optional=True
        ),
        Column("server", lambda row: row.server_state or "", optional=True),
        Column("xact", lambda row: seconds(row.xact_seconds), right=True, optional=True),
        Column("waits for", lambda row: row.wait_event or "", wide=True, optional=True),
        Column("blocked by", lambda row: ", ".join(map(str, row.blocked_by)), optional=True),
        Column("sql", lambda row: row.sql or "", wide=True, optional=True),
    )

    def as_table(self, *, width: int | None = None, stacks: bool = False) -> str:
        """Return the connections as an aligned table.

        It shows the innermost line of the project's code for each stack.

        :param width: the columns of a line. By default, those of the terminal.
        :param stacks: whether to add all lines of all stacks below the table.
        """
        found = super().as_table(width=width)
        return "\n".join([found, *map(_with_stacks, self.rows)]) if stacks else found


def _with_stacks(row: ConnectionRow) -> str:
    return f"\n{row.alias}, pid {row.pid}: {row.state}\n{format_stacks(row)}".rstrip()


def connections(alias: str | None = None, server: bool = False) -> ConnectionsReport:
    """Return every connection of this process's pools, the oldest leases first.

    It takes no connection, and costs nothing to threads that have one. Without
    ``OPTIONS["observe"]``, idle connections and routes are not known, and few stacks.

    :param alias: the key in ``DATABASES``; by default, all aliases. If it has no relet engine, the
        report's `notes` say so.
    :param server: whether to add what the server knows of each, with one query to pg_stat_activity
        for each pool. It runs on an idle connection of the pool, else on one of its own, so that it
        works while the pool is exhausted. If that fails, the report's `notes` say why.
    """
    rows: list[ConnectionRow] = []
    known = alias is None or any(handle.alias == alias for handle in pools)
    notes = [] if known else reasons_of_alias(alias)
    for handle in pools:
        if alias is not None and handle.alias != alias:
            continue
        with Snapshot() as snapshot:
            found = list(snapshot.rows(handle.pool))
        if server:
            found, problem = server_view.joined(handle, found)
            if problem:
                notes.append(problem)
        rows += found
    rows.sort(key=lambda row: (row.alias, -(row.leased_seconds or 0.0), -(row.seconds or 0.0)))
    return ConnectionsReport(rows, notes)
