"""Baseline: what a session was when its connection had been configured, and the way back to it.

It writes the SQL that asks for it, and that which leads back. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from relet.core.sql.effects import ALL, Kind
from relet.core.sql.quoting import quote_identifier, quote_literal

#: Kind -> the SQL that does away with all of it.
#: https://www.postgresql.org/docs/current/sql-discard.html lists what DISCARD ALL is made of.
#: It is not used itself: it would drop the driver's own prepared statements, too.
_UNDO = {
    Kind.CURSOR: "CLOSE ALL",
    Kind.CHANNEL: "UNLISTEN *",
    Kind.LOCK: "SELECT pg_catalog.pg_advisory_unlock_all()",
    Kind.TEMPORARY: "DISCARD TEMP",
    Kind.SEQUENCE: "DISCARD SEQUENCES",
    # There is no way back to a random one but to take another: of 52 bits, as the server's own
    # source of strong randomness has it. A UUID ends in random digits.
    Kind.SEED: (
        "SELECT pg_catalog.setseed(('x' || pg_catalog.right(pg_catalog.replace("
        "pg_catalog.gen_random_uuid()::text, '-', ''), 13))::bit(52)::int8 / 2 ^ 51 - 1)"
    ),
}
#: Those of the driver were not made by SQL.
_DEALLOCATE = """DO $relet$
DECLARE name text;
BEGIN
  FOR name IN SELECT p.name FROM pg_catalog.pg_prepared_statements p WHERE p.from_sql LOOP
    EXECUTE pg_catalog.format('DEALLOCATE %I', name);
  END LOOP;
END $relet$"""


_BASELINE = f"""
SELECT 'role' AS what, NULL AS name, pg_catalog.current_setting('role') AS setting
UNION ALL SELECT 'user', NULL, session_user::text
UNION ALL SELECT 'setting', name, setting FROM pg_catalog.pg_settings
  WHERE source = 'session' AND name NOT IN
    ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
UNION ALL SELECT 'kind', '{Kind.TEMPORARY.name}', NULL WHERE EXISTS
  (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())
UNION ALL SELECT 'kind', '{Kind.CHANNEL.name}', NULL WHERE EXISTS
  (SELECT FROM pg_catalog.pg_listening_channels())
UNION ALL SELECT 'kind', '{Kind.PREPARED.name}', NULL WHERE EXISTS
  (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)
UNION ALL SELECT 'kind', '{Kind.CURSOR.name}', NULL WHERE EXISTS
  (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)
UNION ALL SELECT 'kind', '{Kind.LOCK.name}', NULL WHERE EXISTS
  (SELECT FROM pg_catalog.pg_locks
   WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())"""


@dataclass(frozen=True)
class Baseline:
    """What a session was when its connection had been configured.

    :param settings: settings made in the session, by name.
    :param role: as ``current_setting('role')`` has it.
    :param session_user: as ``session_user`` has it.
    :param kinds: what else there was, such as temporary tables. It cannot be told from
        what was made later, so state of that kind is never undone.
    :param driver: what the driver's connection was, see `PoolAdapter.driver_state`. It is only
        compared; no SQL leads back to it.
    :param known: whether this is all of it; if not, nothing leads back to it.
    """

    settings: dict[str, str]
    role: str
    session_user: str
    kinds: frozenset[Kind]
    driver: object = None
    known: bool = True

    @staticmethod
    def query(settings: Iterable[str] = ()) -> str:
        """Return the SQL that returns what `from_rows` takes, in one round trip.

        :param settings: names that have been set. The server lists its own and those of
            extensions, but none that it does not know, such as ``app.tenant``.
        """
        custom = [quote_literal(name) for name in settings if "." in name]
        if not custom:
            return _BASELINE
        return (
            f"{_BASELINE}\nUNION ALL SELECT 'setting', name, pg_catalog.current_setting(name, true)"
            f"\n  FROM pg_catalog.unnest(ARRAY[{', '.join(custom)}]) AS name"
            "\n  WHERE pg_catalog.current_setting(name, true) <> ''"
        )

    @classmethod
    def from_rows(
        cls, rows: Iterable[Sequence[Any]], driver: object = None, known: bool = True
    ) -> Baseline:
        """Return the baseline that the rows of `query` describe."""
        found: dict[str, dict[Any, Any]] = {"role": {}, "user": {}, "setting": {}, "kind": {}}
        for what, name, setting in rows:
            found[what][name] = setting
        return cls(
            settings=found["setting"],
            role=found["role"][None],
            session_user=found["user"][None],
            kinds=frozenset(Kind[name] for name in found["kind"]),
            driver=driver,
            known=known,
        )

    def sets(self, kind: Kind, name: tuple[Any, ...] | None) -> bool:
        """Whether state of *kind* called *name* was there from the beginning."""
        if kind is Kind.SETTING:
            names = {setting.lower() for setting in self.settings}
            return bool(names) if name in (None, ALL) else "".join(name or ()) in names
        if kind is Kind.ROLE:
            return self.role != "none"
        return kind in self.kinds

    def undo(self, left: frozenset[Kind]) -> str | None:
        """Return SQL that undoes all session state, in one round trip.

        :param left: what there is to undo. All is undone, whatever it is, for one
            statement can hide another (with a ``search_path`` of ``pg_temp``, each
            CREATE TABLE makes a temporary one).
        :return: None if that cannot be undone.
        """
        beyond = self.kinds if Kind.UNKNOWN in left else self.kinds & left
        if beyond or Kind.LIBRARY in left or not self.known:
            return None
        parts = ["SET SESSION AUTHORIZATION DEFAULT"]
        parts += [f"SET SESSION AUTHORIZATION {quote_literal(self.session_user)}", "RESET ALL"]
        if self.settings:
            calls = (
                f"pg_catalog.set_config({quote_literal(name)}, {quote_literal(value)}, false)"
                for name, value in self.settings.items()
            )
            parts.append(f"SELECT {', '.join(calls)}")
        parts.append(f"SET ROLE {'NONE' if self.role == 'none' else quote_literal(self.role)}")
        parts += [sql for kind, sql in _UNDO.items() if kind not in self.kinds]
        if {Kind.PREPARED, Kind.UNKNOWN} & left:
            parts.append(_DEALLOCATE)
        return "; ".join(parts)


def reset(name: str, baseline: Baseline | None) -> str:
    """Return SQL that makes the setting *name* what it was when the connection was new.

    :param baseline: the session's; None if nothing was set in it.
    """
    for known, value in baseline.settings.items() if baseline is not None else ():
        if known.lower() == name:
            setting = f"{quote_literal(known)}, {quote_literal(value)}"
            return f"SELECT pg_catalog.set_config({setting}, false)"
    return "RESET " + ".".join(map(quote_identifier, name.split(".")))
