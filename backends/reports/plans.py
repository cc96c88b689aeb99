"""``relet.plans``: which statements are prepared, and what it brings."""

from __future__ import annotations

from dataclasses import dataclass

from relet.backends.plans.declared import declared_aliases, targets_of
from relet.backends.pools import pools as open_pools
from relet.core.plans import PlanBook, PlanCounts, Target

from .ordering import checked_limit
from .reason import reasons_of_alias
from .report import Column, Report, number, seconds


@dataclass(frozen=True)
class PlanRow:
    """A target. All times are in seconds.

    :param alias: the key in ``DATABASES``.
    :param name: its name, or a hash of its text.
    :param sql: its text without values.
    :param plan: "auto", "generic" or "custom"; "custom" also if its generic plan was slower.
    :param hits: how often it was run prepared.
    :param connections: how many open connections have it prepared.
    :param custom: how long an execution took with a plan for its values, on average; None if there
        was none.
    :param generic: how long an execution took with a plan for any values, on average; this includes
        those for which the server has chosen a plan for the values after all.
    :param healed: how often its plan had become invalid, so that it was prepared and run again.
    :param problem: the last error, or why it is not prepared; or "".
    """

    alias: str
    name: str
    sql: str
    plan: str
    hits: int
    connections: int
    custom: float | None
    generic: float | None
    healed: int
    problem: str


class PlansReport(Report[PlanRow]):
    """What ``relet.plans()`` returns."""

    columns = (
        Column("alias", lambda row: row.alias),
        Column("name", lambda row: row.name, wide=True),
        Column("plan", lambda row: row.plan),
        Column("hits", lambda row: number(row.hits), right=True),
        Column("connections", lambda row: number(row.connections), right=True),
        Column("custom", lambda row: seconds(row.custom), right=True),
        Column("generic", lambda row: seconds(row.generic), right=True),
        Column("healed", lambda row: number(row.healed), right=True, optional=True),
        Column("problem", lambda row: row.problem, wide=True, optional=True),
        Column("sql", lambda row: row.sql, wide=True),
    )


def plans(alias: str | None = None, limit: int | None = None) -> PlansReport:
    """Return the targets of this process, those that were run most often first.

    :param alias: the key in ``DATABASES``; by default, all that have targets. If it has no relet
        engine, the report's `notes` say so.
    :param limit: how many rows to return; None for all.
    :raises ValueError: *limit* is not one of these.
    """
    checked_limit("plans", limit)
    books: dict[str, list[PlanBook]] = {}
    for handle in open_pools:
        if alias is not None and handle.alias != alias:
            continue
        if handle.pool.plans is not None:
            books.setdefault(handle.alias, []).append(handle.pool.plans)
    declared = declared_aliases()
    aliases = [each for each in declared if alias is None or each == alias]
    rows = [_row(target, books.get(each, ())) for each in aliases for target in targets_of(each)]
    rows.sort(key=lambda row: -row.hits)
    known = alias is None or books or alias in declared
    notes = [] if known else reasons_of_alias(alias)
    notes += [
        f"{name}: nothing is prepared: {book.off}."
        for name, found in books.items()
        for book in found
        if book.off
    ]
    return PlansReport(rows[:limit], notes)


def _row(target: Target, books: list[PlanBook] | tuple[()]) -> PlanRow:
    counts, connections = PlanCounts(), 0
    for book in books:
        more, sessions = book.counts(target)
        counts.add(more)
        connections += sessions
    counts.add(target.ended)
    return PlanRow(
        alias=target.alias,
        name=target.name,
        sql=target.sql,
        plan=target.mode,
        hits=counts.runs,
        connections=connections,
        custom=counts.custom_mean,
        generic=counts.generic_mean,
        healed=target.healed,
        problem=target.problem,
    )
