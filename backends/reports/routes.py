"""``relet.routes``: which parts of the project hold connections, and make others wait."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from relet.backends.observe import collection
from relet.core.observe import RouteCounts

from .ordering import checked_limit, checked_order
from .reason import reasons_of_unobserved
from .report import Column, Report, number, seconds

Order = Literal["idle", "held", "waited", "ran", "leases", "longest", "blocked"]
_ORDERS = ("idle", "held", "waited", "ran", "leases", "longest", "blocked")


@dataclass(frozen=True)
class RouteRow:
    """The leases of one route. All times are in seconds.

    :param route: the URL pattern, the Celery task, the management command, the `relet.label`, or
        else ``"(middleware)"`` or ``"(thread NAME)"``; ``"(other)"`` for all that there was no room
        for.
    :param leases: how many connections it leased, including those that it has now.
    :param waited: how long its statements waited for a connection.
    :param held: how long its leases lasted.
    :param ran: how long statements ran in them.
    :param idle: how long its leases lasted while no statement ran: ``held - ran``.
    :param longest: the longest lease.
    :param blocked: how long others waited because of its leases. While threads wait, every lease of
        their pool is charged an equal share.
    """

    route: str
    leases: int
    waited: float
    held: float
    ran: float
    idle: float
    longest: float
    blocked: float


class RoutesReport(Report[RouteRow]):
    """What ``relet.routes()`` returns."""

    columns = (
        Column("route", lambda row: row.route, wide=True),
        Column("leases", lambda row: number(row.leases), right=True),
        Column("waited", lambda row: seconds(row.waited), right=True, optional=True),
        Column("held", lambda row: seconds(row.held), right=True),
        Column("ran", lambda row: seconds(row.ran), right=True),
        Column("idle", lambda row: seconds(row.idle), right=True),
        Column("longest", lambda row: seconds(row.longest), right=True),
        Column("blocked", lambda row: seconds(row.blocked), right=True, optional=True),
    )


class Routes:
    """The routes of this process. The only instance is ``relet.routes``."""

    def __call__(self, by: Order = "idle", limit: int | None = 20) -> RoutesReport:
        """Return the routes that hold connections most, the worst first.

        At most 500 routes are kept, those that held connections longest; the others are one row,
        ``"(other)"``, at the end.

        :param by: ``"idle"``, ``"held"``, ``"waited"``, ``"ran"``, ``"leases"``, ``"longest"`` or
            ``"blocked"``.
        :param limit: how many rows to return; None for all.
        :raises ValueError: *by* or *limit* is not one of these.
        """
        checked_order("routes", by, _ORDERS)
        checked_limit("routes", limit)
        totals = collection.totals().routes
        rows = sorted(
            (_row(route, counts) for route, counts in totals if route),
            key=attrgetter(by, "leases"),
            reverse=True,
        )[:limit]
        if totals.other.leases and (limit is None or len(rows) < limit):
            rows.append(_row("(other)", totals.other))
        return RoutesReport(rows, reasons_of_unobserved("its leases are", "routes"))

    def reset(self) -> None:
        """Start counting routes again. Counts of statements and pools stay."""
        collection.forget_routes()

    def __repr__(self) -> str:
        return "<relet.routes>"


def _row(route: str, counts: RouteCounts) -> RouteRow:
    return RouteRow(
        route=route,
        leases=counts.leases,
        waited=counts.waited,
        held=counts.held,
        ran=counts.ran,
        idle=counts.idle,
        longest=counts.longest,
        blocked=counts.blocked,
    )


routes = Routes()
