"""Server view: what pg_stat_activity knows of the connections of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from relet.backends.leases.snapshot import ConnectionRow
from relet.backends.pools import PoolHandle

from .asking import ask

#: Not the text of the statement, which has values. The session that asks is idle but for this.
_SQL = """
SELECT pid, CASE WHEN asks THEN 'idle' ELSE state END,
  CASE WHEN NOT asks THEN extract(epoch FROM clock_timestamp() - xact_start)::float8 END,
  CASE WHEN NOT asks THEN wait_event_type || ': ' || wait_event END,
  CASE WHEN wait_event_type = 'Lock' THEN array_to_string(pg_blocking_pids(pid), ',') END
FROM pg_stat_activity, LATERAL (SELECT pid = pg_backend_pid() AS asks) AS asker WHERE pid IN ({})
"""


def joined(
    handle: PoolHandle, rows: Sequence[ConnectionRow]
) -> tuple[list[ConnectionRow], str | None]:
    """Return *rows* with what the server says of them, and why it could not be asked, if so."""
    pids = sorted({row.pid for row in rows if row.pid is not None})
    if not pids:
        return list(rows), None
    found, problem = ask(handle, _SQL.format(", ".join(map(str, pids))))
    by_pid = {line[0]: line for line in found}
    return [_with(row, by_pid.get(row.pid)) for row in rows], problem


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
