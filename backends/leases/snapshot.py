"""Snapshot: what a lease or an idle connection looks like at this moment."""

from __future__ import annotations

from dataclasses import dataclass

from relet.backends.observe.stacks import Line


@dataclass(frozen=True)
class ConnectionRow:
    """A connection of a pool of this process. All times are in seconds.

    :param alias: the key in ``DATABASES``.
    :param pid: the process id of the server's session; None if the driver does not tell.
    :param state: ``"idle"``, ``"running"``, ``"idle in transaction"``, ``"idle in transaction
        (aborted)"``, ``"pinned: <why>"`` or ``"broken"``.
    :param seconds: how long it has been in this state.
    :param leased_seconds: how long it has been leased; None if it is idle in the pool.
    :param thread: the name of the thread that leases it.
    :param task: the name of the asyncio task that waits for the thread.
    :param route: see `relet.routes`.
    :param leased_at: where the lease began, as (file, line, function), the innermost first.
    :param cursor_at: where the last cursor was taken.
    :param ran_at: where the last statement ran.
    :param now_at: where the thread stands now.
    :param sql: the statement that runs, or ran last, without values.
    :param server_state: the state in ``pg_stat_activity``, with ``server=True``, as all below.
    :param xact_seconds: how long its transaction has been open.
    :param wait_event: what the session waits for, such as ``"Lock: transactionid"``.
    :param blocked_by: the process ids of the sessions that block it.
    """

    alias: str
    pid: int | None
    state: str
    seconds: float | None
    leased_seconds: float | None
    thread: str | None
    task: str | None
    route: str | None
    leased_at: tuple[Line, ...]
    cursor_at: tuple[Line, ...]
    ran_at: tuple[Line, ...]
    now_at: tuple[Line, ...]
    sql: str | None
    server_state: str | None = None
    xact_seconds: float | None = None
    wait_event: str | None = None
    blocked_by: tuple[int, ...] = ()
