"""Sessions: what a server says of all sessions of its database, and how one is ended."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import connections

from . import home
from .rows import SessionRow

#: Not the texts of statements, which have values. The time at which a session began is a whole
#: number of microseconds: exact, and the same in every time zone.
_STARTED = "(extract(epoch FROM backend_start) * 1000000)::bigint"
_SESSIONS = f"""
SELECT pid, {_STARTED}, application_name, usename::text, state,
  extract(epoch FROM clock_timestamp() - state_change)::float8,
  extract(epoch FROM clock_timestamp() - xact_start)::float8,
  nullif(wait_event_type || ': ' || wait_event, 'Client: ClientRead'),
  CASE WHEN wait_event_type = 'Lock' THEN array_to_string(pg_blocking_pids(pid), ',') END
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
_END = f"""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = {{pid}} AND {_STARTED} = {{started}}
  AND datname = current_database() AND backend_type = 'client backend'
"""


def server_sessions(alias: str) -> tuple[Mapping[int, SessionRow], str | None]:
    """Return pid -> what the server of *alias* says of a session, and why it says nothing, if so.

    Every role may ask, and sees the names and pids of others' sessions at least.
    """
    if alias not in connections.settings:
        return {}, f"The server of {alias!r} is not asked: this process has no such alias."
    try:
        found = home.run(_SESSIONS, alias)
    except Exception as error:  # noqa: BLE001 - anything that a driver raises
        reason = str(error).strip().partition("\n")[0]
        return {}, f"The server of {alias!r} could not be asked: {reason}"
    return {
        pid: SessionRow(
            alias=alias,
            pid=pid,
            started=started,
            application_name=name,
            user=user,
            server_state=state,
            server_seconds=seconds,
            xact_seconds=xact_seconds,
            wait_event=wait_event,
            blocked_by=tuple(map(int, blocked_by.split(","))) if blocked_by else (),
        )
        for pid, started, name, user, state, seconds, xact_seconds, wait_event, blocked_by in found
    }, None


def end(alias: str, pid: int, started: int) -> bool:
    """End a session of the database of *alias*; return whether it was there and may be ended.

    :param started: as `SessionRow.started`: another session with the same pid is left alone.
    """
    if alias not in connections.settings:
        return False
    found = home.run(_END.format(pid=int(pid), started=int(started)), alias)
    return bool(found and found[0][0])
