"""Tables: every statement that relet runs on the tables of the fleet.

Each is one statement without parameters, in a transaction of its own: so it can go over any
connection, also through PgBouncer. All times are the server's; a process only tells how long ago
something was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relet.core.sql.quoting import quote_literal

from .packing import pack

PROCESS, ASK, MINUTE = "relet_dashboard_process", "relet_dashboard_ask", "relet_dashboard_minute"

#: Seconds for which a process counts as living after its last beat, at least.
STALE_S = 30.0
#: Seconds after which its row is deleted.
GONE_S = 300.0
#: Seconds for which one look at the page lets the processes beat faster, and bring stacks.
LOOK_S = 30
#: Minutes of which the rollups are kept.
HOUR = 60


@dataclass(frozen=True)
class Rollup:
    """What happened in the pools of one alias of this process in the minute that has ended."""

    alias: str
    size: float
    in_use: float
    waiting: float
    checkouts: int
    waits: int
    waited: float
    timeouts: int


@dataclass(frozen=True)
class Beat:
    """What a process reports.

    :param age: seconds since it began.
    :param interval: seconds until it means to report again.
    :param now: what it has and does, as `json.dumps` takes it.
    :param totals: what it has counted; None to leave what it has last reported.
    :param rollups: of the minute that has ended, if one has.
    :param sweep: whether to delete what is too old.
    """

    id: str
    host: str
    pid: int
    version: str
    age: float
    interval: float
    now: Mapping[str, Any]
    totals: Mapping[str, Any] | None = None
    rollups: tuple[Rollup, ...] = ()
    sweep: bool = False


def beat(one: Beat) -> str:
    """Return the statement of a beat.

    Its one row says for how many seconds yet somebody looks; NULL or not above 0 if nobody does.
    """
    parts = [_process(one)]
    if one.rollups:
        parts.append(_minutes(one.host, one.rollups))
    if one.sweep:
        # Skipping what another process deletes, so that no two wait for each other.
        # Nor its own row, which is written at the same time.
        own = f"AND id <> {quote_literal(one.id)}::uuid "
        parts.append(_swept("gone", PROCESS, "beat_at", GONE_S, own))
        parts.append(_swept("past", MINUTE, "minute", (HOUR + 1) * 60))
    return (
        f"WITH {', '.join(parts)} "
        f"SELECT extract(epoch FROM max(until) - now())::float8 FROM {ASK} WHERE what = 'stacks'"
    )


def _process(one: Beat) -> str:
    values = ", ".join(
        (
            f"{quote_literal(one.id)}::uuid",
            _text(one.host),
            str(int(one.pid)),
            _text(one.version),
            f"now() - {float(one.age)!r} * interval '1 second'",
            "now()",
            repr(float(one.interval)),
            quote_literal(pack(one.now)),
            quote_literal("" if one.totals is None else pack(one.totals)),
        )
    )
    totals = "" if one.totals is None else ", totals = excluded.totals"
    return (
        f"beat AS (INSERT INTO {PROCESS} "
        "(id, host, pid, version, started_at, beat_at, interval, now, totals) "
        f"VALUES ({values}) ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at, "
        f"interval = excluded.interval, now = excluded.now{totals})"
    )


def _minutes(host: str, rollups: Iterable[Rollup]) -> str:
    # Half a minute ago: a beat that ends a minute comes some seconds later.
    rows = ", ".join(
        f"(date_trunc('minute', now() - interval '30 seconds'), {_text(host)}, {_text(one.alias)}, "
        f"{float(one.size)!r}, {float(one.in_use)!r}, {float(one.waiting)!r}, "
        f"{int(one.checkouts)}, {int(one.waits)}, {float(one.waited)!r}, {int(one.timeouts)})"
        for one in rollups
    )
    return (
        f"minutes AS (INSERT INTO {MINUTE} (minute, host, alias, size, in_use, waiting, "
        f"checkouts, waits, waited, timeouts) VALUES {rows})"
    )


def _swept(name: str, table: str, column: str, seconds: float, but: str = "") -> str:
    return (
        f"{name} AS (DELETE FROM {table} WHERE id IN (SELECT id FROM {table} "
        f"WHERE NOT {_since(column, seconds)} {but}FOR UPDATE SKIP LOCKED))"
    )


def _since(column: str, seconds: float) -> str:
    """Return the condition that *column* is at most *seconds* ago, and not in the future.

    Clocks are set back, and who may write to the table may write "infinity".
    """
    return (
        f"{column} BETWEEN now() - {float(seconds)!r} * interval '1 second' "
        f"AND now() + {STALE_S!r} * interval '1 second'"
    )


def goodbye(id: str) -> str:  # noqa: A002 - as the column
    """Return the statement that removes a process."""
    return f"DELETE FROM {PROCESS} WHERE id = {quote_literal(id)}::uuid"


def look() -> str:
    """Return the statement that asks all processes to beat faster, and to bring stacks."""
    return (
        f"INSERT INTO {ASK} AS old (what, until) "
        f"VALUES ('stacks', now() + {LOOK_S} * interval '1 second') "
        "ON CONFLICT (what) DO UPDATE SET until = greatest(old.until, excluded.until)"
    )


def is_stale(silent: float, interval: float) -> bool:
    """Return whether a process does not count as living.

    :param silent: seconds since its last beat.
    :param interval: seconds after which it meant to beat again.
    """
    return silent > max(STALE_S, 3 * interval)


def processes() -> str:
    """Return the query for all processes: facts, and at the end `now` and `totals`, packed.

    The facts are id, host, pid, version, age, seconds since the beat, and the interval. Processes
    that are stale are among them.
    """
    # Each number is one of which Python and JSON know, whatever is in the table.
    began = "least(greatest(started_at, now() - interval '100 years'), now())"
    interval = "CASE WHEN interval BETWEEN 0 AND 86400 THEN interval ELSE 0 END"
    return (
        f"SELECT id::text, host, pid, version, extract(epoch FROM now() - {began})::float8, "
        f"extract(epoch FROM now() - beat_at)::float8, {interval}, now, totals FROM {PROCESS} "
        f"WHERE {_since('beat_at', GONE_S)} ORDER BY host, pid, started_at"
    )


def minutes(host: str | None) -> str:
    """Return the query for the last hour: minutes ago, alias, and the sums of all processes.

    :param host: of this host only.
    """
    of_host = "" if host is None else f"AND host = {_text(host)} "
    columns = ("size", "in_use", "waiting", "checkouts", "waits", "waited", "timeouts")
    numbers = ", ".join(columns)
    sums = ", ".join(f"sum({column}) AS {column}" for column in columns)
    return (
        "SELECT (extract(epoch FROM date_trunc('minute', now()) - minute) / 60)::int, alias, "
        f"{', '.join(f'sum({column})::float8' for column in columns)} "
        # First by the minute as it is: to count how long ago it was for each row takes as long as
        # to add them up.
        f"FROM (SELECT minute, alias, {sums} FROM {MINUTE} "
        f"WHERE minute BETWEEN date_trunc('minute', now()) - {HOUR} * interval '1 minute' "
        # NaN is above all numbers, and the sum of two may be above all that there are.
        f"AND now() AND least({numbers}) >= 0 AND greatest({numbers}) < 1e15 {of_host}"
        "GROUP BY minute, alias) AS sums GROUP BY 1, 2"
    )


def as_stored(text: str) -> str:
    """Return *text* as it is in the tables."""
    # The server takes no zero byte, and not every database has all letters.
    return text.replace("\0", "?").encode("ascii", "backslashreplace").decode()


def _text(text: str) -> str:
    return quote_literal(as_stored(text))
