"""Server view: what pg_stat_activity knows of the connections of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from relet.backends.leases.snapshot import ConnectionRow
from relet.backends.pools import PoolHandle
from relet.core import PoolAdapter
from relet.core.outside import from_handler

#: Seconds to wait for a new connection.
_CONNECT_TIMEOUT_S = 5
#: Not the text of the statement, which has values.
_SQL = """
SELECT pid, state, extract(epoch FROM clock_timestamp() - xact_start)::float8,
  wait_event_type || ': ' || wait_event,
  CASE WHEN wait_event_type = 'Lock' THEN array_to_string(pg_blocking_pids(pid), ',') END
FROM pg_stat_activity WHERE pid IN ({})
"""


def joined(
    handle: PoolHandle, rows: Sequence[ConnectionRow]
) -> tuple[list[ConnectionRow], str | None]:
    """Return *rows* with what the server says of them, and why it could not be asked, if so."""
    pids = sorted({row.pid for row in rows if row.pid is not None})
    if not pids:
        return list(rows), None
    sql = _SQL.format(", ".join(map(str, pids)))
    try:
        found = _on_idle_connection(handle.pool, sql)
        if found is None:
            found = _on_own_connection(handle, sql)
    except Exception as error:
        if from_handler(error):
            raise
        text = str(error).strip().partition("\n")[0]
        return list(rows), f"DATABASES[{handle.alias!r}]: the server could not be asked: {text}"
    by_pid = {line[0]: line for line in found}
    return [_with(row, by_pid.get(row.pid)) for row in rows], None


def _with(row: ConnectionRow, line: Any) -> ConnectionRow:
    if line is None:
        return row
    _, state, xact_seconds, wait_event, blocked_by = line
    # Between statements, every session waits for its client.
    waits = None if wait_event == "Client: ClientRead" else wait_event
    return replace(
        row,
        server_state=state,
        xact_seconds=None if xact_seconds is None else float(xact_seconds),
        wait_event=waits,
        blocked_by=tuple(map(int, blocked_by.split(","))) if blocked_by else (),
    )


def _on_idle_connection(pool: PoolAdapter[Any], sql: str) -> list[tuple[Any, ...]] | None:
    """Run *sql* on an idle connection, without waiting for one; None if there is none."""
    if pool.closed or not pool.stats().idle:
        return None
    slot = _Slot()
    try:
        with suppress(Exception):  # another thread was faster
            pool.checkout_into(slot, 0.0)
        if slot.connection is None:
            return None
        found = pool.execute_internal(slot.connection.raw, sql)
        pool.checkin_from(slot)
    except BaseException:
        if slot.connection is not None:
            pool.discard_from(slot)
        raise
    return found


class _Slot:
    connection: Any = None


def _on_own_connection(handle: PoolHandle, sql: str) -> list[tuple[Any, ...]]:
    """Run *sql* on a connection that is opened for it, because the pool is exhausted."""
    wrappers = (find() for find in list(handle.users))
    wrapper: Any = next((one for one in wrappers if one is not None), None)
    if wrapper is None:
        return []  # nobody uses the pool any more
    with wrapper.outside_pool(connect_timeout=_CONNECT_TIMEOUT_S) as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
