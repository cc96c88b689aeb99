"""Holders: who has the connections of a pool, for those who wait for one.

A lease that ends with its statement is seen in its thread's stack. One that outlasts its
statement is noted when that has ended, once; so nothing is written down for each statement.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from django.db.backends.utils import CursorWrapper

from relet.backends.wrapper.transfers import Transfer
from relet.core import Lease, PoolAdapter, TransactionStatus
from relet.core.sql.fingerprint import fingerprint

from .tasks import Tasks, frames_of

if TYPE_CHECKING:
    from .runner import Leasing

#: Packages whose frames are not where a connection was taken: they are on the way to it.
_INSIDE = (
    *("relet", "django", "contextlib", "asgiref", "asyncio", "concurrent", "threading"),
    # Tools that lay themselves around each statement.
    *("ddtrace", "debug_toolbar", "elasticapm", "newrelic", "opentelemetry", "scout_apm"),
    *("sentry_sdk", "silk", "wrapt"),
)
#: The methods of cursors that run statements.
_RUNNING = ("execute", "_run")
#: How many holders a message shows.
_SHOWN = 10


#: A code object, and how far it has come: to look up the line takes longer than all the rest.
#: Nothing, if no frame is outside Django and relet.
Place = tuple[CodeType, int] | tuple[()]


def note(wrapper: Leasing, lease: Lease, pool: PoolAdapter[Any]) -> None:
    """*lease* outlasts its statement: note who keeps it, and where it was taken."""
    lease.place = _caller()
    pool.long_leases[lease] = wrapper.ref


def forget(lease: Lease, pool: PoolAdapter[Any]) -> None:
    """*lease* has ended."""
    pool.long_leases.pop(lease, None)
    lease.place = lease.ran = None


def waits_for_itself(pool: PoolAdapter[Any]) -> bool:
    """Whether this thread keeps all connections of *pool*: it would wait for ever."""
    if pool.max_size is None or len(pool.long_leases) < pool.max_size:
        return False
    thread = get_ident()
    mine = sum(
        # One that has been dropped is about to give its connection back; one that is shared,
        # another thread may.
        (wrapper := found()) is not None
        and wrapper._thread_ident == thread
        and not wrapper._lease.shared
        for found in list(pool.long_leases.values())
    )
    return mine > 0 and (size := pool.stats().max_size) is not None and mine >= size


def describe(pool: PoolAdapter[Any], wrappers: Iterable[Leasing]) -> Sequence[str]:
    """Return a line for each lease of *pool*, the oldest first."""
    frames = sys._current_frames()
    try:
        lines = _lines(pool, wrappers, frames)
    finally:
        # This frame is among them, and would keep them all in a cycle.
        frames.clear()
    lines.sort(reverse=True)
    shown = [line for _, line in lines[:_SHOWN]]
    return [*shown, f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else shown


def _lines(
    pool: PoolAdapter[Any], wrappers: Iterable[Leasing], frames: Mapping[int, FrameType]
) -> list[tuple[float, str]]:
    """Return, for each lease of *pool*, for how long it has lasted, and what is to be told."""
    now = monotonic()
    threads = {thread.ident: thread.name for thread in threading.enumerate()}
    tasks = Tasks()
    lines: list[tuple[float, str]] = []
    for wrapper in wrappers:
        lease = wrapper._lease
        if lease.pool is not pool or lease.connection is None:
            continue
        thread = wrapper._thread_ident
        frame = frames.get(thread)
        name = f"thread {threads[thread]!r}" if thread in threads else "a thread that has ended"
        where = place(frame) if lease.place is None else lease.place
        if (task := tasks.of(frame)) is not None:
            name = f"task {task.get_name()!r} in {name}"
            where = next(filter(None, map(place, reversed([*frames_of(task)]))), where)
        running = _running(frame, wrapper)
        sql = lease.ran if running is None else running
        shown_sql = "nothing" if sql is None else fingerprint(wrapper.adapter_class.sql_text(sql))
        took = now - lease.since
        why, shown_where = _why(lease, pool), _written(where)
        lines.append(
            (took, f"{name} for {took:.1f} s, {why}, from {shown_where}; ran last: {shown_sql}")
        )
    return lines


def lost(lease: Lease, pool: PoolAdapter[Any]) -> str:
    """Return what was kept by whoever had *lease*, and where it was taken."""
    return f"{_why(lease, pool)}, from {_written(lease.place)}"


def _why(lease: Lease, pool: PoolAdapter[Any]) -> str:
    """Return what keeps *lease*."""
    connection = lease.connection
    raw = None if connection is None else connection.raw
    status = TransactionStatus.ACTIVE if raw is None else pool.transaction_status(raw)
    if lease.place is None or status == TransactionStatus.ACTIVE:
        return "running a statement"
    if status == TransactionStatus.UNKNOWN:
        return "on a connection that is lost"
    if status != TransactionStatus.IDLE:
        return "in a transaction"
    opened = [*lease.pins.values()]
    if not all(one is None or isinstance(one, Transfer) for one in opened):
        return "with a server-side cursor open"
    if opened:
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


#: The names of modules that were found to be inside.
_inside: set[str | None] = set()


def _is_inside(module: str | None) -> bool:
    """Whether the frames of that module are on the way."""
    if module in _inside:
        return True
    if (module or "").partition(".")[0] not in _INSIDE:
        return False
    _inside.add(module)
    return True


def place(frame: FrameType | None) -> Place:
    """Return where the first frame stands, from *frame* out, outside Django and relet."""
    while frame is not None:
        if not _is_inside(frame.f_globals.get("__name__")):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return ()


#: From `_caller` to whoever calls relet's cursor, and, by way of Django's, to whoever calls that.
_CURSOR, _DJANGOS_CURSOR = 4, 7


def _caller() -> Place:
    """Return the `place` of whoever has a cursor run something."""
    return place(sys._getframe(_CURSOR))


if sys.version_info >= (3, 12):  # it tells modules; frame objects take three times as long

    def _caller() -> Place:
        name, inside = sys._getframemodulename, _inside
        try:
            depth = _DJANGOS_CURSOR if name(_CURSOR) == _UTILS else _CURSOR
            while name(depth) in inside or _is_inside(name(depth)):
                depth += 1
            # A function that was decorated by Django has the name of the project's module.
            return place(sys._getframe(depth))
        except ValueError:
            return ()


#: The module of Django's cursors.
_UTILS = CursorWrapper.__module__


def _written(place: Place | None) -> str:
    if not place:
        return "an unknown place"
    code, instruction = place
    lines = (line for start, end, line in code.co_lines() if start <= instruction < end)
    return f"{code.co_filename}:{next(lines, code.co_firstlineno)}"
