"""``relet.queries``: which statements cost most."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal

from relet.backends.observe import collection
from relet.backends.pools import pools
from relet.core.observe import StatementTotals

from .ordering import checked_limit, checked_order
from .reason import reasons_of_unobserved
from .report import Column, Report, number, seconds
from .server_means import comparable, server_means

Order = Literal["total", "calls", "mean", "p95", "max", "rows", "waited", "errors"]
_ORDERS = ("total", "calls", "mean", "p95", "max", "rows", "waited", "errors")


@dataclass(frozen=True)
class QueryRow:
    """A statement that this process has run. All times are in seconds.

    :param sql: its text without values; ``"(other)"`` for all that there was no room for.
    :param calls: how often it was run, with and without success, or was to be run when no
        connection came.
    :param rows: the rows that it returned or changed.
    :param total: how long it ran in all. Waiting for a connection is not included.
    :param mean: how long one call ran, on average of those that ran.
    :param p95: how long 95 % of these ran at most. Off by less than a factor of two.
    :param max: how long the longest call ran.
    :param waited: how long it waited for a connection in all.
    :param route: the route that ran it most often.
    :param errors: how many calls failed.
    :param server_mean: how long one call ran on the server, on average over all its clients; None
        if the server was not asked or does not know.
    """

    sql: str
    calls: int
    rows: int
    total: float
    mean: float
    p95: float
    max: float
    waited: float
    route: str
    errors: int
    server_mean: float | None = None


class QueriesReport(Report[QueryRow]):
    """What ``relet.queries()`` returns."""

    columns = (
        Column("total", lambda row: seconds(row.total), right=True),
        Column("calls", lambda row: number(row.calls), right=True),
        Column("mean", lambda row: seconds(row.mean), right=True),
        Column("on server", lambda row: seconds(row.server_mean), right=True, optional=True),
        Column("p95", lambda row: seconds(row.p95), right=True),
        Column("max", lambda row: seconds(row.max), right=True),
        Column("rows", lambda row: number(row.rows), right=True, optional=True),
        Column("waited", lambda row: seconds(row.waited), right=True, optional=True),
        Column("errors", lambda row: number(row.errors), right=True, optional=True),
        Column("route", lambda row: row.route, wide=True, optional=True),
        Column("sql", lambda row: row.sql, wide=True),
    )


class Queries:
    """The statements that this process has run. The only instance is ``relet.queries``."""

    def __call__(
        self, by: Order = "total", limit: int | None = 20, server: bool = False
    ) -> QueriesReport:
        """Return the statements that cost most, the costliest first.

        At most 1,000 statements are kept, those that took longest; the others are one row,
        ``"(other)"``, at the end. Statements that differ only in their values, or in the length
        of an ``IN`` list, are one.

        :param by: ``"total"``, ``"calls"``, ``"mean"``, ``"p95"``, ``"max"``, ``"rows"``,
            ``"waited"`` or ``"errors"``.
        :param limit: how many rows to return; None for all.
        :param server: whether to add the mean that pg_stat_statements knows, with two queries for
            each pool. Where it cannot be read, the report's `notes` say why.
        :raises ValueError: *by* or *limit* is not one of these.
        """
        checked_order("queries", by, _ORDERS)
        checked_limit("queries", limit)
        totals = collection.totals().statements
        rows = sorted(
            (_row(sql, counts) for sql, counts in totals if sql),
            key=attrgetter(by, "calls"),
            reverse=True,
        )[:limit]
        if totals.other.calls and (limit is None or len(rows) < limit):
            rows.append(_row("(other)", totals.other))
        notes = reasons_of_unobserved("its statements are", "queries")
        if not server:
            return QueriesReport(rows, notes)
        means, problems = server_means(pools)
        rows = [replace(row, server_mean=means.get(comparable(row.sql))) for row in rows]
        return QueriesReport(rows, [*notes, *problems])

    def reset(self) -> None:
        """Start counting statements again. Counts of routes and pools stay."""
        collection.forget_statements()

    def __repr__(self) -> str:
        return "<relet.queries>"


def _row(sql: str, counts: StatementTotals) -> QueryRow:
    return QueryRow(
        sql=sql,
        calls=counts.calls,
        rows=counts.rows,
        total=counts.total,
        mean=counts.mean,
        p95=counts.p95,
        max=counts.maximum,
        waited=counts.waited,
        route=counts.route,
        errors=counts.errors,
    )


queries = Queries()
