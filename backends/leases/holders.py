"""Holders: lists who holds the connections of a pool, for the error after a checkout timeout.

While a statement runs, its call site is found in the thread's stack. A lease that outlasts its
statement is recorded once, when the statement ends. So plain statements cost nothing.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from types import FrameType
from typing import Any

from relet.core import Lease, PoolAdapter, TransactionStatus
from relet.core.sql.fingerprint import fingerprint

from . import call_site
from .tasks import Tasks, frames_of
from .thread_names import ThreadNames
from .transfer import Transfer

#: How many holders a message shows.
_SHOWN = 10


def record_holder(lease: Lease, pool: PoolAdapter[Any]) -> None:
    """Record that *lease* outlasts its statement, and where it was taken."""
    lease.call_site = call_site.current()
    pool.long_leases[lease] = None


def clear_holder(lease: Lease, pool: PoolAdapter[Any]) -> None:
    """Record that *lease* has ended."""
    pool.long_leases.pop(lease, None)
    lease.call_site = lease.sql = None


def would_deadlock(pool: PoolAdapter[Any]) -> bool:
    """Whether this thread holds all connections of *pool*, so that waiting would deadlock."""
    if pool.max_size is None or len(pool.long_leases) < pool.max_size:
        return False
    thread = get_ident()
    # A shared lease does not count, because another thread may end it.
    mine = sum(lease.thread == thread and not lease.shared for lease in list(pool.long_leases))
    return mine > 0 and (size := pool.stats().max_size) is not None and mine >= size


def describe(pool: PoolAdapter[Any], leases: Iterable[Lease]) -> Sequence[str]:
    """Return a line for each of *leases* that has a connection of *pool*, the oldest first."""
    frames = sys._current_frames()
    try:
        lines = _lines(pool, leases, frames)
    finally:
        # This function's frame is among them; without this, they would form a reference cycle.
        frames.clear()
    lines.sort(reverse=True)
    shown = [line for _, line in lines[:_SHOWN]]
    return [*shown, f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else shown


def _lines(
    pool: PoolAdapter[Any], leases: Iterable[Lease], frames: Mapping[int, FrameType]
) -> list[tuple[float, str]]:
    """Return a pair for each lease of *pool*: its age in seconds, and its line."""
    now = monotonic()
    threads = ThreadNames(frames)
    tasks = Tasks()
    lines: list[tuple[float, str]] = []
    for lease in leases:
        if lease.pool is not pool or lease.connection is None:
            continue
        frame, site = frames.get(lease.thread), lease.call_site
        thread = threads.of(lease.thread)
        name = "a thread that has ended" if thread is None else f"thread {thread!r}"
        where = call_site.of_running(frame) if site is None else site
        if (task := tasks.of(frame)) is not None:
            name = f"task {task.get_name()!r} in {name}"
            outer_first = map(call_site.first_outside, reversed([*frames_of(task)]))
            where = next(filter(None, outer_first), where)
        sql = "none" if lease.sql is None else fingerprint(pool.sql_text(lease.sql))
        took = now - lease.leased_at
        why, shown_where = _why(lease, pool), call_site.format_site(where)
        line = f"{name} for {took:.1f} s, {why}, taken at {shown_where}; last SQL: {sql}"
        lines.append((took, line))
    return lines


def describe_abandoned(lease: Lease, pool: PoolAdapter[Any]) -> str:
    """Return why *lease* was kept and where it was taken, after its thread has ended."""
    return f"{_why(lease, pool)}, taken at {call_site.format_site(lease.call_site)}"


def _why(lease: Lease, pool: PoolAdapter[Any]) -> str:
    """Return why *lease* is kept."""
    connection = lease.connection
    raw = None if connection is None else connection.raw
    status = TransactionStatus.ACTIVE if raw is None else pool.transaction_status(raw)
    if lease.call_site is None or status == TransactionStatus.ACTIVE:
        return "running a statement"
    if status == TransactionStatus.UNKNOWN:
        return "on a lost connection"
    if status != TransactionStatus.IDLE:
        return "in a transaction"
    opened = [*lease.pins.values()]
    if not all(one is None or isinstance(one, Transfer) for one in opened):
        return "with a server-side cursor open"
    if opened:
        return "with a cursor or COPY open"
    if lease.session is not None and lease.session.keeps_lease:
        return "with session state, or in hold()"
    return "kept until close()"
