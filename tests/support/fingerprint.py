"""The session state of a connection, by the server's own views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from relet.core import Kind

from .driver import execute

#: What a fingerprint has parts of, and the kind of session state that each shows.
PARTS = {
    "setting": Kind.SETTING,
    "role": Kind.ROLE,
    "temporary": Kind.TEMPORARY,
    "channel": Kind.CHANNEL,
    "lock": Kind.LOCK,
    "prepared": Kind.PREPARED,
    "cursor": Kind.CURSOR,
}

Fingerprint = frozenset[tuple[str, str]]

#: What a setting ends with if RESET would not change it.
AS_RESET = ", as RESET has it"

# Names have their schema, as the session's search_path can be anything.
_QUERY = """
SELECT 'setting', name || ' = ' || setting
       || CASE setting WHEN reset_val THEN ', as RESET has it' ELSE '' END
  FROM pg_catalog.pg_settings
 WHERE source = 'session'
   AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
UNION ALL
SELECT 'role', pg_catalog.concat_ws(', ', current_user, session_user,
                                    pg_catalog.current_setting('role'))
UNION ALL
SELECT 'temporary', 'relation ' || relname FROM pg_catalog.pg_class
 WHERE relnamespace = pg_catalog.pg_my_temp_schema()
UNION ALL
SELECT 'temporary', 'routine ' || proname FROM pg_catalog.pg_proc
 WHERE pronamespace = pg_catalog.pg_my_temp_schema()
UNION ALL
SELECT 'temporary', 'type ' || typname FROM pg_catalog.pg_type
 WHERE typnamespace = pg_catalog.pg_my_temp_schema()
UNION ALL
SELECT 'temporary', 'statistics ' || stxname FROM pg_catalog.pg_statistic_ext
 WHERE stxnamespace = pg_catalog.pg_my_temp_schema()
UNION ALL
SELECT 'channel', pg_listening_channels FROM pg_catalog.pg_listening_channels()
UNION ALL
SELECT 'lock', pg_catalog.concat_ws(' ', classid, objid, objsubid, mode)
  FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()
UNION ALL
SELECT 'prepared', name FROM pg_catalog.pg_prepared_statements
 WHERE from_sql AND pg_catalog.left(name, 11) <> 'relet_plan_'
UNION ALL
SELECT 'cursor', name FROM pg_catalog.pg_cursors WHERE is_holdable
"""


def fingerprint(raw: Any, custom: Iterable[str] = (), more: str = "") -> Fingerprint:
    """Return the session state of *raw*, a connection of the driver, in one round trip.

    How often a lock is held is not in it; the driver's own prepared statements and
    cursors without HOLD are left out.

    :param custom: settings with a dot in their name. No view lists them.
    :param more: SELECT of two columns, what the part is called and what is in it.
    """
    query = _QUERY
    if names := ", ".join(f"'{name}'" for name in custom):
        query += _CUSTOM.format(names)
    if more:
        query += f"UNION ALL {more}"
    rows = execute(raw, query).fetchall()
    return frozenset((_text(part), _text(what)) for part, what in rows)


# What was reset is empty, and not null.
_CUSTOM = """
UNION ALL
SELECT 'setting', name || ' = ' || pg_catalog.current_setting(name, true)
  FROM pg_catalog.unnest(ARRAY[{}]) AS name
 WHERE pg_catalog.current_setting(name, true) <> ''
"""


def _text(value: str | bytes) -> str:
    # It is bytes if client_encoding is SQL_ASCII.
    return value if isinstance(value, str) else value.decode("ascii", "backslashreplace")


def difference(before: Fingerprint, after: Fingerprint) -> str:
    """Return what has changed, a line for each."""
    lines = [(part, what, "-") for part, what in before - after]
    lines += [(part, what, "+") for part, what in after - before]
    return "\n".join(f"{sign} {part}: {what}" for part, what, sign in sorted(lines))
