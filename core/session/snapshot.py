"""Snapshot: all session state that the server lists at one moment, to compare two moments.

This module writes the SQL that reads a snapshot, and compares snapshots. It does no I/O. Unlike
`Baseline`, a snapshot tells pieces of state apart, and it keeps no value of any of them.

https://www.postgresql.org/docs/current/views.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from relet.core.budget import of_class
from relet.core.session.own_statements import is_foreign
from relet.core.sql.effects import Kind
from relet.core.sql.quoting import quote_literal

#: Names have their schema, and there is no backslash, because the session's settings can be
#: anything. A setting with its reset value is as if it had never been set.
_SNAPSHOT = f"""
SELECT '{Kind.SETTING.name}' AS kind, name, setting AS detail FROM pg_catalog.pg_settings
  WHERE source = 'session' AND setting IS DISTINCT FROM reset_val AND name NOT IN
    ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
UNION ALL SELECT '{Kind.ROLE.name}', '',
  pg_catalog.concat_ws(' ', session_user::text, pg_catalog.current_setting('role'))
UNION ALL SELECT '{Kind.TEMPORARY.name}', relname::text, 'relation ' || oid::text
  FROM pg_catalog.pg_class
  WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relkind NOT IN ('i', 'I', 't')
UNION ALL SELECT '{Kind.TEMPORARY.name}', proname::text, 'routine ' || oid::text
  FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()
UNION ALL SELECT '{Kind.TEMPORARY.name}', typname::text, 'type ' || oid::text
  FROM pg_catalog.pg_type
  WHERE typnamespace = pg_catalog.pg_my_temp_schema() AND typtype IN ('d', 'e', 'r')
UNION ALL SELECT '{Kind.CHANNEL.name}', channel, ''
  FROM pg_catalog.pg_listening_channels() AS channel
UNION ALL SELECT '{Kind.LOCK.name}', '',
  pg_catalog.concat_ws(' ', database::text, classid::text, objid::text, objsubid::text, mode)
  FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()
  {{budget}}
UNION ALL SELECT '{Kind.PREPARED.name}', name, prepare_time::text
  FROM pg_catalog.pg_prepared_statements
  WHERE from_sql AND {is_foreign("name")}
UNION ALL SELECT '{Kind.CURSOR.name}', name, creation_time::text
  FROM pg_catalog.pg_cursors WHERE is_holdable
UNION ALL SELECT 'FUNCTIONS', '',
  pg_catalog.concat_ws(' ', pg_catalog.count(*)::text, pg_catalog.sum(xmin::text::int8)::text)
  FROM pg_catalog.pg_proc WHERE oid >= 16384"""

#: The source of each function, from where `names_in` takes the settings that it mentions.
FUNCTIONS = """
SELECT pg_catalog.pg_get_functiondef(p.oid)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384 AND p.prokind <> 'a' AND l.lanname NOT IN ('c', 'internal')"""

#: The name of a setting that PostgreSQL does not know has a dot.
_DOTTED = r"[a-z_][\w$]*(?:\.[a-z_][\w$]*)+"
_SETTING_NAME = re.compile(rf"'({_DOTTED})'|\bset\s+(?:session\s+)?({_DOTTED})", re.IGNORECASE)
#: The server's limit on the length of other names is 63 bytes.
_LONGEST_NAME = 200


def names_in(text: str) -> set[str]:
    """Return what may be the names of settings with a dot in *text*, which is SQL.

    No view lists such settings, so the server has to be asked for each by its name.
    """
    found = (match[1] or match[2] for match in _SETTING_NAME.finditer(text))
    return {name.lower() for name in found if len(name) <= _LONGEST_NAME}


class Piece(NamedTuple):
    """A piece of session state.

    :param name: its name; empty if what identifies it is a value, as with the key of a lock.
    :param detail: a hash of what tells it from others of that name, such as a setting's value.
    """

    kind: Kind
    name: str
    detail: int


@dataclass(frozen=True)
class Snapshot:
    """All session state that the server lists at one moment.

    :param functions: differs after any function of the database was created, changed or dropped.
    """

    pieces: frozenset[Piece]
    functions: str = ""

    @staticmethod
    def query(settings: Iterable[str] = (), lock_class: int | None = None) -> str:
        """Return the SQL whose rows `from_rows` takes. It is one round trip.

        :param settings: names of settings that no view lists; see `names_in`.
        :param lock_class: the class of locks that are no session state; see `Baseline`.
        """
        budget = "" if lock_class is None else f"AND NOT ({of_class(lock_class)})"
        query = _SNAPSHOT.replace("{budget}", budget)
        custom = [quote_literal(name) for name in sorted(settings)]
        if not custom:
            return query
        return (
            f"{query}\nUNION ALL SELECT '{Kind.SETTING.name}', name, "
            "pg_catalog.current_setting(name, true)"
            f"\n  FROM pg_catalog.unnest(ARRAY[{', '.join(custom)}]) AS name"
            "\n  WHERE pg_catalog.current_setting(name, true) <> ''"
        )

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> Snapshot:
        """Return the snapshot described by the rows of `query`."""
        pieces, functions = set(), ""
        for kind, name, detail in rows:
            if _text(kind) == "FUNCTIONS":
                functions = _text(detail)
            else:
                pieces.add(Piece(Kind[_text(kind)], _text(name), hash(detail)))
        return cls(frozenset(pieces), functions)

    def changes(self, later: Snapshot, ignored: Iterable[str] = ()) -> frozenset[Piece]:
        """Return the pieces that *later* has and this has not, or the reverse.

        :param ignored: names of settings to leave out.
        """
        changed = self.pieces ^ later.pieces
        if not ignored:
            return changed
        return frozenset(
            piece
            for piece in changed
            if piece.kind is not Kind.SETTING or piece.name not in ignored
        )


def _text(value: object) -> str:
    # It is bytes if client_encoding is SQL_ASCII.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
