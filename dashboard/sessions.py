"""Sessions: what a server says of all sessions of its database, and how one is ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connections

from relet.backends.reports.reason import reason

from . import home
from .rows import SessionRow

#: A session: its process id, and when it began, in microseconds.
Session = tuple[int, int]

#: Not the texts of statements, which have values. The time at which a session began is a whole
#: number of microseconds: exact, and the same in every time zone.
_STARTED = "(extract(epoch FROM backend_start) * 1000000)::bigint"
_SESSIONS = f"""
SELECT pid = pg_backend_pid(), pid, {_STARTED}, application_name, usename::text, state,
  extract(epoch FROM clock_timestamp() - state_change)::float8,
  extract(epoch FROM clock_timestamp() - xact_start)::float8,
  nullif(wait_event_type || ': ' || wait_event, 'Client: ClientRead'),
  CASE WHEN wait_event_type = 'Lock' THEN array_to_string(pg_blocking_pids(pid), ',') END
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
"""
_END = f"""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = {{pid}} AND {_STARTED} = {{started}}
  AND datname = current_database() AND backend_type = 'client backend'
"""


@dataclass
class Database:
    """The sessions of a database, and the aliases that it has here.

    :ivar asked: the sessions that have asked for them. What one does meanwhile says nothing.
    """

    aliases: list[str]
    sessions: dict[Session, SessionRow]
    asked: set[Session]

    def merge(self, other: Database) -> bool:
        """Take the sessions of *other*, if it is the same; return whether it is.

        No two servers have begun a session with the same number in the same microsecond.
        """
        same = not self.sessions.keys().isdisjoint(other.sessions)
        if same:
            self.aliases += other.aliases
            self.asked |= other.asked
            self.sessions = {**other.sessions, **self.sessions}
        return same


def databases(aliases: Iterable[str], notes: list[str]) -> list[Database]:
    """Return what their servers say of the databases of *aliases*, each database once.

    :param notes: takes why a server says nothing, if so.
    """
    found: list[Database] = []
    for alias in aliases:
        one, note = _read(alias)
        if note is not None:
            notes.append(note)
        if not any(known.merge(one) for known in found):
            found.append(one)
    return found


def _read(alias: str) -> tuple[Database, str | None]:
    """Every role may ask, and sees the names and pids of others' sessions at least."""
    nothing = Database([alias], {}, set())
    if alias not in connections.settings:
        return nothing, f"The server of {alias!r} was not asked: this process has no such alias."
    try:
        found = home.run(_SESSIONS, alias)
    except Exception as error:  # noqa: BLE001 - anything that a driver raises
        return nothing, f"The server of {alias!r} could not be asked: {reason(error)}"
    asked = {(pid, started) for asks, pid, started, *_ in found if asks}
    return Database([alias], {(row[1], row[2]): _row(alias, *row) for row in found}, asked), None


def _row(
    alias: str,
    asks: bool,
    pid: int,
    started: int,
    name: str,
    user: str,
    state: str | None,
    seconds: float | None,
    xact_seconds: float | None,
    wait_event: str | None,
    blocked_by: str | None,
) -> SessionRow:
    said: dict[str, Any] = {}
    if not asks:
        said = {
            "server_state": state,
            "server_seconds": seconds,
            "xact_seconds": xact_seconds,
            "wait_event": wait_event,
            "blocked_by": tuple(map(int, blocked_by.split(","))) if blocked_by else (),
        }
    return SessionRow(
        alias=alias,
        database=alias,
        pid=pid,
        started=started,
        application_name=name,
        user=user,
        **said,
    )


def end(alias: str, pid: int, started: int) -> bool:
    """End a session of the database of *alias*; return whether it was there and may be ended.

    :param started: as `SessionRow.started`: another session with the same pid is left alone.
    """
    if alias not in connections.settings:
        return False
    # Not on an idle connection of the pool: that may be the session.
    found = home.run(_END.format(pid=int(pid), started=int(started)), alias, idle=False)
    return bool(found and found[0][0])
