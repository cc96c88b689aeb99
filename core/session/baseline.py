"""Baseline: the state of a session once its connection was configured, and the SQL to restore it.

This module writes the SQL that reads a baseline and the SQL that restores it. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from relet.core.budget import of_class
from relet.core.session.own_statements import is_foreign
from relet.core.sql.effects import ALL, Kind
from relet.core.sql.quoting import quote_identifier, quote_literal

#: Kind -> the SQL that undoes all state of that kind.
#: https://www.postgresql.org/docs/current/sql-discard.html lists the parts of DISCARD ALL, which
#: itself would drop the driver's own prepared statements, too.
_UNDO = {
    Kind.CURSOR: "CLOSE ALL",
    Kind.CHANNEL: "UNLISTEN *",
    Kind.LOCK: "SELECT pg_catalog.pg_advisory_unlock_all()",
    Kind.TEMPORARY: "DISCARD TEMP",
    Kind.SEQUENCE: "DISCARD SEQUENCES",
    # The old seed cannot be read, so set another random one of 52 bits. It comes from the server's
    # strong random source: a UUID ends in random digits.
    Kind.SEED: (
        "SELECT pg_catalog.setseed(('x' || pg_catalog.right(pg_catalog.replace("
        "pg_catalog.gen_random_uuid()::text, '-', ''), 13))::bit(52)::int8 / 2 ^ 51 - 1)"
    ),
}
#: The driver's own prepared statements were not made by SQL, and stay. So do those of targets,
#: which are for all leases; see `relet.core.plans`.
_DEALLOCATE = f"""DO $relet$
DECLARE name text;
BEGIN
  FOR name IN SELECT p.name FROM pg_catalog.pg_prepared_statements p
    WHERE p.from_sql AND {is_foreign("p.name")} LOOP
    EXECUTE pg_catalog.format('DEALLOCATE %I', name);
  END LOOP;
END $relet$"""
#: As pg_advisory_unlock_all(), except for locks of a budget; see `relet.core.budget`. A lock that
#: was taken twice is listed once, so it is released in two rounds. If the session has lost its
#: permit, the error makes relet close the connection.
_UNLOCK = """DO $relet$
DECLARE held record; released boolean;
BEGIN
  LOOP
    FOR held IN SELECT l.classid, l.objid, l.objsubid, l.mode = 'ShareLock' AS shared
      FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory'
      AND l.pid = pg_catalog.pg_backend_pid() AND NOT ({budget})
    LOOP
      IF held.objsubid = 2 AND held.shared THEN
        released := pg_catalog.pg_advisory_unlock_shared(held.classid::int4, held.objid::int4);
      ELSIF held.objsubid = 2 THEN
        released := pg_catalog.pg_advisory_unlock(held.classid::int4, held.objid::int4);
      ELSIF held.shared THEN
        released := pg_catalog.pg_advisory_unlock_shared(
          (held.classid::int8 << 32) | held.objid::int8);
      ELSE
        released := pg_catalog.pg_advisory_unlock((held.classid::int8 << 32) | held.objid::int8);
      END IF;
      IF NOT released THEN RAISE EXCEPTION 'an advisory lock cannot be released'; END IF;
    END LOOP;
    EXIT WHEN NOT FOUND;
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
    WHERE l.pid = pg_catalog.pg_backend_pid() AND {budget} AND l.mode = 'ExclusiveLock') THEN
    RAISE EXCEPTION 'the session has lost its part of the budget';
  END IF;
END $relet$"""


#: Kinds that stand for state of any other kind.
_ANYTHING = {Kind.UNKNOWN, Kind.DYNAMIC}
#: Kinds that only the end of the session undoes.
_FOR_GOOD = {Kind.LIBRARY, Kind.EXTENSION}

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
  (SELECT FROM pg_catalog.pg_prepared_statements
   WHERE from_sql AND {is_foreign("name")})
UNION ALL SELECT 'kind', '{Kind.CURSOR.name}', NULL WHERE EXISTS
  (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)
"""
_LOCKS = f"""UNION ALL SELECT 'kind', '{Kind.LOCK.name}', NULL WHERE EXISTS
  (SELECT FROM pg_catalog.pg_locks
   WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()"""


class Baseline(NamedTuple):
    """The state of a session once its connection was configured.

    :param settings: settings that were set in the session, by name.
    :param role: the value of ``current_setting('role')``.
    :param session_user: the value of ``session_user``.
    :param kinds: other kinds of state that existed, such as temporary tables. They cannot be told
        apart from state made later, so state of these kinds is never undone.
    :param driver: the state of the driver's connection, see `PoolAdapter.driver_state`. It is
        compared; SQL cannot restore it.
    :param known: whether this describes the whole session. If not, the session cannot be restored.
    :param lock_class: `relet.core.budget.Budget.lock_class`, if the pool has a budget. Locks of
        that class are no session state.
    """

    settings: dict[str, str]
    role: str
    session_user: str
    kinds: frozenset[Kind]
    driver: object = None
    known: bool = True
    lock_class: int | None = None

    @staticmethod
    def query(settings: Iterable[str] = (), lock_class: int | None = None) -> str:
        """Return the SQL whose rows `from_rows` takes. It is one round trip.

        :param settings: names of settings that have been set. ``pg_settings`` lists the server's
            own and those of extensions, but not custom ones such as ``app.tenant``.
        :param lock_class: see `Baseline`.
        """
        budget = "" if lock_class is None else f" AND NOT ({of_class(lock_class)})"
        query = f"{_BASELINE}{_LOCKS}{budget})"
        custom = [quote_literal(name) for name in settings if "." in name]
        if not custom:
            return query
        return (
            f"{query}\nUNION ALL SELECT 'setting', name, pg_catalog.current_setting(name, true)"
            f"\n  FROM pg_catalog.unnest(ARRAY[{', '.join(custom)}]) AS name"
            "\n  WHERE pg_catalog.current_setting(name, true) <> ''"
        )

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Sequence[Any]],
        driver: object = None,
        known: bool = True,
        lock_class: int | None = None,
    ) -> Baseline:
        """Return the baseline described by the rows of `query`."""
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
            lock_class=lock_class,
        )

    def sets(self, kind: Kind, name: tuple[Any, ...] | None) -> bool:
        """Return whether the baseline includes state of *kind* called *name*."""
        if kind is Kind.SETTING:
            names = {setting.lower() for setting in self.settings}
            return bool(names) if name in (None, ALL) else "".join(name or ()) in names
        if kind is Kind.ROLE:
            return self.role != "none"
        return kind in self.kinds or (kind is Kind.LOCK and self.has_permit and name in (None, ALL))

    @property
    def has_permit(self) -> bool:
        """Whether the session holds locks of a budget, which undoing all locks releases, too."""
        return self.lock_class is not None

    def undo(self, left: frozenset[Kind]) -> str | None:
        """Return SQL that undoes all session state, in one round trip.

        :param left: the kinds of state to undo. The SQL undoes the others as well, because one
            statement can hide another: with a ``search_path`` of ``pg_temp``, each CREATE TABLE
            creates a temporary table.
        :return: None if *left* cannot be undone.
        """
        ambiguous = self.kinds if _ANYTHING & left else self.kinds & left
        if ambiguous or _FOR_GOOD & left or not self.known:
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
        undo = dict(_UNDO)
        if self.lock_class is not None:
            undo[Kind.LOCK] = _UNLOCK.format(budget=of_class(self.lock_class, "l"))
        parts += [sql for kind, sql in undo.items() if kind not in self.kinds]
        if {Kind.PREPARED, *_ANYTHING} & left:
            parts.append(_DEALLOCATE)
        return "; ".join(parts)


def reset(name: str, baseline: Baseline | None) -> str:
    """Return SQL that sets the setting *name* to its baseline value.

    :param baseline: the session's baseline; None if nothing was set in it.
    """
    for known, value in baseline.settings.items() if baseline is not None else ():
        if known.lower() == name:
            setting = f"{quote_literal(known)}, {quote_literal(value)}"
            return f"SELECT pg_catalog.set_config({setting}, false)"
    return "RESET " + ".".join(map(quote_identifier, name.split(".")))
