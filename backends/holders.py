"""Holders: who has the connections of a pool, for those who wait for one.

A lease that ends with its statement is seen in its thread's stack. One that outlasts its
statement is noted when that has ended, once; so nothing is written down for each statement.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from relet.core import Lease, PoolAdapter, TransactionStatus
from relet.core.fingerprint import fingerprint

from .tasks import frames_of, task_of

if TYPE_CHECKING:
    from .leasing import Leasing

#: Packages whose frames are not where a connection was taken: they are on the way to it.
_INSIDE = ("relet", "django", "contextlib", "asgiref", "asyncio", "concurrent", "threading")
#: The methods of cursors that run statements.
_RUNNING = ("execute", "_run")
_UNKNOWN = "an unknown place"
#: How many holders a message shows.
_SHOWN = 10


class Holder(NamedTuple):
    """Who keeps a lease: its thread, since when, and where it was taken.

    :param wrapper: returns it, or None if it has been dropped, and its lease is about to end.
    :param since: in seconds of `time.monotonic`.
    :param place: file and line of the first frame outside Django and relet, if there is one.
    """

    wrapper: Callable[[], Leasing | None]
    thread: int
    since: float
    place: str | None


def note(wrapper: Leasing, lease: Lease, pool: PoolAdapter[Any]) -> None:
    """*lease* outlasts its statement: note who keeps it."""
    lease.holder = holder = Holder(ref(wrapper), get_ident(), monotonic(), place(sys._getframe(1)))
    pool.kept[lease] = holder


def forget(lease: Lease, pool: PoolAdapter[Any]) -> None:
    """*lease* has ended."""
    pool.kept.pop(lease, None)
    lease.holder = lease.ran = None


def waits_for_itself(pool: PoolAdapter[Any]) -> bool:
    """Whether this thread keeps all connections of *pool*: it would wait for ever."""
    thread = get_ident()
    mine = sum(
        holder.thread == thread and holder.wrapper() is not None
        for holder in list(pool.kept.values())
    )
    return mine > 0 and (size := pool.stats().max_size) is not None and mine >= size


def describe(pool: PoolAdapter[Any], wrappers: Iterable[Leasing]) -> Sequence[str]:
    """Return a line for each lease of *pool*, the oldest first."""
    now = monotonic()
    threads = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    lines: list[tuple[float, str]] = []
    for wrapper in wrappers:
        lease = wrapper._lease
        connection, holder = lease.connection, lease.holder
        if lease.pool is not pool or connection is None:
            continue
        thread = wrapper._thread_ident if holder is None else holder.thread
        frame = frames.get(thread)
        name = f"thread {threads[thread]!r}" if thread in threads else "a thread that has ended"
        where = (place(frame) if holder is None else holder.place) or _UNKNOWN
        if (task := task_of(frame)) is not None:
            name = f"task {task.get_name()!r} in {name}"
            where = next(filter(None, map(place, reversed(list(frames_of(task))))), where)
        since = None if holder is None else now - holder.since
        took = "" if since is None else f" for {since:.1f} s"
        running = _running(frame, wrapper)
        sql = lease.ran if running is None else running
        shown_sql = "nothing" if sql is None else fingerprint(str(sql))
        text = f"{name}{took}, {_why(lease, pool)}, from {where}; ran last: {shown_sql}"
        lines.append((since or 0, text))
    lines.sort(reverse=True)
    shown = [line for _, line in lines[:_SHOWN]]
    return [*shown, f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else shown


def lost(lease: Lease, pool: PoolAdapter[Any]) -> str:
    """Return what was kept by whoever had *lease*, and where it was taken."""
    holder = lease.holder
    return f"{_why(lease, pool)}, from {_UNKNOWN if holder is None else holder.place or _UNKNOWN}"


def _why(lease: Lease, pool: PoolAdapter[Any]) -> str:
    """Return what keeps *lease*."""
    connection = lease.connection
    raw = None if connection is None else connection.raw
    status = TransactionStatus.ACTIVE if raw is None else pool.transaction_status(raw)
    if lease.holder is None or status == TransactionStatus.ACTIVE:
        return "running a statement"
    if status == TransactionStatus.UNKNOWN:
        return "on a connection that is lost"
    if status != TransactionStatus.IDLE:
        return "in a transaction"
    if any(open_cursor is not None for open_cursor in lease.pins.values()):
        return "with a server-side cursor open"
    if lease.pins:
        return "with a cursor or COPY open"
    if lease.session is not None and lease.session.keeps:
        return "with session state, or a hold()"
    return "until close()"


def _running(frame: FrameType | None, wrapper: Leasing) -> object:
    """Return the statement that *wrapper* runs, in the stack of its thread, if it runs one."""
    while frame is not None:
        cursor = frame.f_locals.get("self") if frame.f_code.co_name in _RUNNING else None
        if getattr(cursor, "_db", None) is wrapper:
            return cursor._sql  # type: ignore[union-attr]
        frame = frame.f_back
    return None


def place(frame: FrameType | None) -> str | None:
    """Return file and line of the first frame, from *frame* out, outside Django and relet."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _INSIDE:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None
