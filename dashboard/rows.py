"""Rows: what is shown of the fleet, each kind with its columns.

The same frozen dataclasses feed the page, the terminal and JSON. All times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from relet.backends.reports.report import Column, Report, number, seconds


@dataclass(frozen=True)
class FleetColumn(Column):
    """A column that can be explained, and sorted by.

    :param help: what it means, and its unit.
    :param key: returns what to sort a row by.
    """

    help: str = ""
    key: Callable[[Any], Any] = str


def _time(name: str, attribute: str, help: str, **options: Any) -> FleetColumn:  # noqa: A002
    get = attrgetter(attribute)
    return FleetColumn(
        name,
        lambda row: seconds(get(row)),
        right=True,
        help=f"{help} Times have their unit: s, ms or us.",
        key=lambda row: get(row) or 0.0,
        **options,
    )


def _count(name: str, attribute: str, help: str, **options: Any) -> FleetColumn:  # noqa: A002
    get = attrgetter(attribute)
    return FleetColumn(
        name,
        lambda row: number(get(row)),
        right=True,
        help=help,
        key=lambda row: get(row) or 0,
        **options,
    )


def _text(name: str, attribute: str, help: str, **options: Any) -> FleetColumn:  # noqa: A002
    get = attrgetter(attribute)
    shown: Callable[[Any], str] = lambda row: str(get(row) or "")  # noqa: E731
    return FleetColumn(name, shown, wide=True, help=help, key=shown, **options)


@dataclass(frozen=True)
class ProcessRow:
    """A process that reports itself.

    :param age: since it began to report.
    :param silent: since its last beat.
    :param stale: whether that is too long.
    """

    host: str
    pid: int
    version: str
    age: float
    silent: float
    stale: bool
    size: int
    in_use: int
    waiting: int

    @property
    def instance(self) -> str:
        """Its name: ``HOST:PID``."""
        return f"{self.host}:{self.pid}"


PROCESS_COLUMNS = (
    _text("host", "host", "The name of its host."),
    FleetColumn(
        "pid",
        lambda row: str(row.pid),
        right=True,
        help="Its process id there.",
        key=lambda row: row.pid,
    ),
    _text("relet", "version", "The version of relet that it runs."),
    _time("age", "age", "How long ago it began to report."),
    _time("last beat", "silent", "How long ago it last reported."),
    FleetColumn(
        "state",
        lambda row: "silent" if row.stale else "reports",
        help="Silent: it has not reported for 30 s, or three beats. What is shown of it is old.",
        key=lambda row: row.stale,
    ),
    _count("connections", "size", "Connections that its pools have open."),
    _count("in use", "in_use", "Connections that are leased."),
    _count("waiting", "waiting", "Threads that wait for a connection."),
)


@dataclass(frozen=True)
class PoolRow:
    """The pools of one alias of one process; with `host` None those of the whole fleet.

    :param wait_p50: half of those who had to wait for a connection waited at most that long.
    """

    alias: str
    host: str | None
    pid: int | None
    size: int
    max_size: int | None
    idle: int
    in_use: int
    waiting: int
    checkouts: int
    waits: int
    waited: float
    wait_p50: float
    wait_p99: float
    longest_wait: float
    timeouts: int
    created: int
    discarded: int


POOL_COLUMNS = (
    _text("alias", "alias", "The key in DATABASES."),
    _text("host", "host", "The host of the process.", optional=True),
    FleetColumn(
        "pid",
        lambda row: number(row.pid),
        right=True,
        optional=True,
        help="The process.",
        key=lambda row: row.pid or 0,
    ),
    FleetColumn(
        "size",
        lambda row: f"{row.size}/{number(row.max_size) or '-'}",
        right=True,
        help="Connections that are open, and how many there may be.",
        key=lambda row: row.size,
    ),
    _count("in use", "in_use", "Connections that are leased."),
    _count("idle", "idle", "Connections that are idle in the pool."),
    _count("waiting", "waiting", "Threads that wait for a connection."),
    _count(
        "checkouts", "checkouts", "How often a connection was leased, since the processes began."
    ),
    _count("waits", "waits", "How often a thread had to wait for one."),
    _time("wait p50", "wait_p50", "Half of the threads that had to wait waited at most this long."),
    _time("wait p99", "wait_p99", "99 % of the threads that had to wait waited at most this long."),
    _time("longest", "longest_wait", "The longest wait."),
    _count("timeouts", "timeouts", "How often no connection came free in time."),
    _count("created", "created", "Connections that were opened."),
    _count("discarded", "discarded", "Connections that were closed instead of given back."),
)


@dataclass(frozen=True)
class RouteRow:
    """A route in all processes; see `relet.routes`."""

    route: str
    processes: int
    leases: int
    idle: float
    held: float
    ran: float
    waited: float
    longest: float
    blocked: float


ROUTE_COLUMNS = (
    _text("route", "route", "The URL pattern, task, command or label."),
    _time("idle", "idle", "How long its leases lasted while no statement ran."),
    _time("held", "held", "How long its leases lasted."),
    _time("ran", "ran", "How long statements ran in them."),
    _time("waited", "waited", "How long its statements waited for a connection."),
    _time("blocked", "blocked", "How long others waited because of its leases."),
    _time("longest", "longest", "The longest lease."),
    _count("leases", "leases", "How many connections it leased."),
    _count("processes", "processes", "How many processes have run it."),
)


@dataclass(frozen=True)
class QueryRow:
    """A statement in all processes; see `relet.queries`.

    :param p95: the highest of all processes.
    """

    sql: str
    processes: int
    calls: int
    total: float
    mean: float
    p95: float
    max: float
    rows: int
    waited: float
    errors: int
    route: str


QUERY_COLUMNS = (
    _time("total", "total", "How long it ran in all."),
    _count("calls", "calls", "How often it ran."),
    _time("mean", "mean", "How long it ran on average."),
    _time("p95", "p95", "95 % of its calls ran at most that long: the highest of all processes."),
    _time("max", "max", "The longest call."),
    _count("rows", "rows", "Rows that it returned or changed."),
    _time("waited", "waited", "How long it waited for a connection."),
    _count("errors", "errors", "Calls that failed."),
    _text("route", "route", "The route that ran it most."),
    _text("statement", "sql", "Its text without values."),
)


#: The stacks of `relet.connections`, and their titles.
STACKS = {
    "leased_at": "leased at",
    "cursor_at": "last cursor at",
    "ran_at": "last statement at",
    "now_at": "now at",
}


#: A line of a stack: a file, the number of its line, and a function.
Line = tuple[str, int, str]


def _text_of(stack: Iterable[Line]) -> str:
    return "\n".join(f"{file}:{number} in {function}" for file, number, function in stack)


@dataclass(frozen=True)
class SessionRow:
    """A session of the server: a connection of a process, or a session of somebody else's.

    :param alias: the alias by which its server is known.
    :param pid: the process id of the session on the server.
    :param host: None if no process that reports has it, as all of `process` to `stacks`.
    :param process: the process id of the process that has it.
    :param stacks: as the process has reported them, see `STACKS` and `shown_stacks`.
    :param started: when it began, in microseconds of the server's clock since 1970; what tells it
        from a later session with the same pid. None if the server was not asked, or does not know
        it, as all that follow.
    :param blocked_by: the pids of the sessions that it waits for.
    :param chain: these, and whom they wait for, up to the one that waits for nobody.
    :param database: the first of the aliases of its database, in which its pid is that of no other.
    """

    alias: str
    pid: int | None
    host: str | None = None
    process: int | None = None
    state: str = ""
    seconds: float | None = None
    leased_seconds: float | None = None
    thread: str | None = None
    task: str | None = None
    route: str | None = None
    sql: str | None = None
    stacks: Mapping[str, Sequence[Line]] = field(default_factory=dict)
    started: int | None = None
    application_name: str | None = None
    user: str | None = None
    server_state: str | None = None
    server_seconds: float | None = None
    xact_seconds: float | None = None
    wait_event: str | None = None
    blocked_by: tuple[int, ...] = ()
    chain: tuple[int, ...] = ()
    database: str | None = None

    @property
    def shown_stacks(self) -> list[tuple[str, str]]:
        """Title -> the lines of the stack, the innermost first."""
        found = [(title, _text_of(self.stacks.get(name, ()))) for name, title in STACKS.items()]
        return [(title, text) for title, text in found if text]

    @property
    def owner(self) -> str:
        """The process that has it, as ``HOST:PID``, else its application name."""
        return (
            f"{self.host}:{self.process}" if self.host is not None else self.application_name or ""
        )


SESSION_COLUMNS = (
    _text("alias", "alias", "The key in DATABASES."),
    FleetColumn(
        "session",
        lambda row: number(row.pid),
        right=True,
        help="The process id of the session on the server.",
        key=lambda row: row.pid or 0,
    ),
    _text("owner", "owner", "The process that has it, or the application name of somebody else's."),
    FleetColumn(
        "state",
        lambda row: row.state or row.server_state or "",
        wide=True,
        help="What it does: by its process, else by the server.",
        key=lambda row: row.state or row.server_state or "",
    ),
    FleetColumn(
        "for",
        lambda row: seconds(row.seconds if row.host is not None else row.server_seconds),
        right=True,
        help="How long it has been in this state. Times have their unit: s, ms or us.",
        key=lambda row: (row.seconds if row.host is not None else row.server_seconds) or 0.0,
    ),
    _time("leased", "leased_seconds", "How long it has been leased.", optional=True),
    _time(
        "transaction",
        "xact_seconds",
        "How long its transaction has been open, by the server.",
        optional=True,
    ),
    _text("server", "server_state", "Its state, by the server.", optional=True),
    _text("waits for", "wait_event", "What it waits for on the server.", optional=True),
    FleetColumn(
        "blocked by",
        lambda row: " ← ".join(map(str, row.chain)),
        wide=True,
        optional=True,
        help="The session that it waits for, the one that this one waits for, and so on.",
        key=lambda row: len(row.chain),
    ),
    _text("route", "route", "What it was leased for.", optional=True),
    FleetColumn(
        "thread",
        lambda row: row.task or row.thread or "",
        wide=True,
        optional=True,
        help="The thread or task that has it.",
        key=lambda row: row.task or row.thread or "",
    ),
    _text("statement", "sql", "What runs, or ran last, without values.", optional=True),
)


class ProcessesReport(Report[ProcessRow]):
    """The processes that report themselves."""

    columns = PROCESS_COLUMNS


class FleetPoolsReport(Report[PoolRow]):
    """Their pools: of each alias those of the fleet, then of each process."""

    columns = POOL_COLUMNS


class FleetRoutesReport(Report[RouteRow]):
    """Their routes, the most idle first."""

    columns = ROUTE_COLUMNS


class FleetQueriesReport(Report[QueryRow]):
    """Their statements, the costliest first."""

    columns = QUERY_COLUMNS


class SessionsReport(Report[SessionRow]):
    """The sessions of the server, those that matter first."""

    columns = SESSION_COLUMNS
