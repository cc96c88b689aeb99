"""Snapshot: what each connection of a pool does at this moment, for reports and logs.

Other threads go on meanwhile, so the rows of two connections may be a moment apart.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from types import FrameType
from typing import Any

from relet.backends.observe import stacks
from relet.backends.observe.kept import KeptLeases, ObservedLease, Trace
from relet.backends.observe.stacks import Line
from relet.core import Lease, PoolAdapter, State, TransactionStatus
from relet.core.lease import CURSOR_MODE, REQUEST_MODE
from relet.core.sql.fingerprint import normalized

from . import lifetimes
from .tasks import Tasks, frames_of
from .thread_names import ThreadNames
from .transfer import Transfer

_RUNNING = (State.RUNNING, State.RUNNING_IN_TRANSACTION)


@dataclass(frozen=True)
class ConnectionRow:
    """A connection of a pool of this process. All times are in seconds.

    Stacks are tuples of (file, line, function), the innermost first. They begin with the project's
    own code: frames of relet, Django and drivers are left out there.

    :param alias: the key in ``DATABASES``.
    :param pid: the process id of the server's session; None if the driver does not tell.
    :param state: ``"idle"``, ``"running"``, ``"idle in transaction"``, ``"idle in transaction
        (aborted)"``, ``"pinned: <why>"`` or ``"broken"``.
    :param seconds: how long it has been in this state; None if that is not known.
    :param leased_seconds: how long it has been leased; None if it is idle in the pool.
    :param thread: the name of the thread that leases it.
    :param task: the name of the asyncio task that waits for that thread.
    :param route: what it was leased for, see `relet.routes`; None if that is not known.
    :param leased_at: where the statement ran that began the lease. Empty for a plain statement,
        whose place is in `now_at`.
    :param cursor_at: where the last cursor was taken.
    :param ran_at: where the last statement ran.
    :param now_at: where the thread is at this moment, or the task that waits for it.
    :param sql: the statement that runs, or ran last, without values.
    :param server_state: with ``server=True``, as all that follow: the state in pg_stat_activity.
    :param xact_seconds: how long its transaction has been open.
    :param wait_event: what the session waits for, such as ``"Lock: transactionid"``.
    :param blocked_by: the process ids of the sessions that it waits for.
    """

    alias: str
    pid: int | None
    state: str
    seconds: float | None
    leased_seconds: float | None
    thread: str | None = None
    task: str | None = None
    route: str | None = None
    leased_at: tuple[Line, ...] = ()
    cursor_at: tuple[Line, ...] = ()
    ran_at: tuple[Line, ...] = ()
    now_at: tuple[Line, ...] = ()
    sql: str | None = None
    server_state: str | None = None
    xact_seconds: float | None = None
    wait_event: str | None = None
    blocked_by: tuple[int, ...] = ()


def format_stacks(row: ConnectionRow) -> str:
    """Return all stacks of *row*, the innermost line first."""
    lines = []
    above: tuple[object, ...] = ()
    for title, stack in (
        ("leased at", row.leased_at),
        ("last cursor at", row.cursor_at),
        ("last statement at", row.ran_at),
        ("now at", row.now_at),
    ):
        if stack and stack == above:
            lines.append(f"  {title}: as above")
        elif stack:
            lines.append(f"  {title}")
            lines += [f"    {file}:{line} in {function}" for file, line, function in stack]
            above = stack
    return "\n".join(lines)


class Snapshot:
    """The threads and tasks of this process at one moment. Use it as a context manager."""

    def __init__(self) -> None:
        self.now = monotonic()
        self._frames: Mapping[int, FrameType] = sys._current_frames()
        self._threads = ThreadNames(self._frames)
        self._tasks = Tasks()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # The frames refer to this object: without this, they would form a reference cycle.
        self._frames = {}

    def rows(self, pool: PoolAdapter[Any]) -> Iterator[ConnectionRow]:
        """Yield a row for each connection of *pool*."""
        leased = set()
        for runner in lifetimes.runners():
            lease: Lease = runner.lease
            connection = lease.connection
            if lease.pool is pool and connection is not None and connection.raw is not None:
                leased.add(id(connection.raw))
                yield self.row(runner, lease, pool)
        if isinstance(pool.long_leases, KeptLeases):
            for session in pool.long_leases.sessions:
                raw = session.raw
                if raw is not None and id(raw) not in leased and not getattr(raw, "closed", False):
                    yield ConnectionRow(
                        alias=pool.config.alias,
                        pid=pool.backend_pid(raw),
                        state=_state_of_driver(pool.transaction_status(raw)) or "idle",
                        seconds=max(0.0, self.now - session.last_used_at),
                        leased_seconds=None,
                    )

    def row(self, runner: Any, lease: Lease, pool: PoolAdapter[Any]) -> ConnectionRow:
        """Return the row of a lease."""
        trace: Trace | None = pool.long_leases.get(lease)
        running = lease.state in _RUNNING
        frame = self._frames.get(lease.thread)
        task = self._tasks.of(frame)
        # A thread that waits for its next call stands in a pool of threads; its task says more.
        inner_first = [*frames_of(task)][::-1] if task is not None and not running else []
        now_at = stacks.of_frames(inner_first) if inner_first else stacks.of(frame, _ALL)
        since = lease.leased_at if trace is None else trace.since
        cursor_at = () if trace is None else stacks.completed(trace.cursor_at, trace.ran_at)
        sql = lease.sql
        connection = lease.connection
        return ConnectionRow(
            alias=lease.alias,
            pid=None if connection is None else pool.backend_pid(connection.raw),
            state="running" if running else _state(runner, lease, pool),
            seconds=max(0.0, self.now - since),
            leased_seconds=max(0.0, self.now - lease.leased_at),
            thread=self._threads.of(lease.thread),
            task=None if task is None else task.get_name(),
            route=self._route(lease, trace),
            leased_at=stacks.lines((lease.call_site or ()) if trace is None else trace.leased_at),
            cursor_at=stacks.lines(cursor_at),
            ran_at=() if trace is None else stacks.lines(trace.ran_at),
            now_at=stacks.lines(now_at),
            sql=None if sql is None else normalized(pool.sql_text(sql)),
        )

    @staticmethod
    def _route(lease: Lease, trace: Trace | None) -> str | None:
        if trace is not None:
            return trace.route or None
        # A plain statement, which runs.
        scope = lease.running_for if isinstance(lease, ObservedLease) else None
        return None if scope is None else scope.route or None


#: Frames of a stack that is read now.
_ALL = 200


def _state_of_driver(status: int) -> str | None:
    """Return the state that the driver's transaction *status* shows; None if it shows none."""
    return {
        TransactionStatus.ACTIVE: "running",
        TransactionStatus.IN_TRANSACTION: "idle in transaction",
        TransactionStatus.IN_ERROR: "idle in transaction (aborted)",
        TransactionStatus.UNKNOWN: "broken",
    }.get(TransactionStatus(status))


def _state(runner: Any, lease: Lease, pool: PoolAdapter[Any]) -> str:
    """Return the state of a lease that runs no statement."""
    connection = lease.connection
    raw = None if connection is None else connection.raw
    if raw is None:
        return "idle"
    opened = [*lease.pins.values()]
    status = pool.transaction_status(raw)
    if status != TransactionStatus.UNKNOWN and any(isinstance(one, Transfer) for one in opened):
        return "pinned: COPY or stream()"
    if (state := _state_of_driver(status)) is not None:
        return state
    return f"pinned: {_pin(runner, lease, opened)}"


def _pin(runner: Any, lease: Lease, opened: list[Any]) -> str:
    """Return why a lease outside a transaction is kept."""
    if any(one is not None for one in opened):
        return "server-side cursor"
    if opened and lease.table is not CURSOR_MODE:
        return "cursor.connection"
    if lease.session is not None and lease.session.kinds_kept:
        return ", ".join(sorted(kind.noun for kind in lease.session.kinds_kept))
    if runner.holds:
        return "hold()"
    if lease.table is CURSOR_MODE:
        return "release='cursor'"
    if lease.table is REQUEST_MODE:
        return "release='request'"
    return (
        "atomic()" if runner.host is not None and runner.host.in_atomic_block else "until close()"
    )
