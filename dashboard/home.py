"""Home: the alias whose database has the tables, and how statements get there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from relet.backends.leases.idle import idle_connection
from relet.backends.pools import pools
from relet.core import PoolAdapter, TransactionStatus
from relet.core.outside import from_handler

Rows = list[tuple[Any, ...]]

#: Seconds to wait for a new connection.
_CONNECT_TIMEOUT_S = 5
#: Milliseconds for which a statement may wait for a lock, and run. A table that somebody has locked
#: would keep a connection of the pool otherwise.
_LOCK_TIMEOUT_MS, _STATEMENT_TIMEOUT_MS = 1_000, 10_000
#: The limits end with the transaction, so nothing is left in the session, nor in one of a pooler's.
_BEGIN = "BEGIN"
_LIMIT = (
    f"SELECT pg_catalog.set_config('lock_timeout', '{_LOCK_TIMEOUT_MS}', true), "
    f"pg_catalog.set_config('statement_timeout', '{_STATEMENT_TIMEOUT_MS}', true)"
)
#: The setting of the app: a dict.
SETTING = "RELET_DASHBOARD"
_KEYS = {"alias": "an alias of DATABASES, whose database has the tables"}


def check_setting() -> dict[str, Any]:
    """Return the setting.

    :raises ImproperlyConfigured: it is no dict, or has an unknown key or value.
    """
    given = getattr(settings, SETTING, {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"{SETTING} must be a dict, not {type(given).__name__}.")
    if unknown := sorted(map(str, given.keys() - _KEYS.keys())):
        raise ImproperlyConfigured(
            f"{SETTING} has an unknown key {unknown[0]!r}. Known: {', '.join(map(repr, _KEYS))}."
        )
    alias = given.get("alias")
    if alias is not None and not _is_alias(alias):
        raise ImproperlyConfigured(
            f"{SETTING}['alias'] is {alias!r}, which is not in DATABASES. It must be "
            f"{_KEYS['alias']}."
        )
    return given


def _is_alias(found: object) -> bool:
    return isinstance(found, str) and found in connections.settings


def alias() -> str:
    """Return the alias that has the tables: the setting's, else what the routers say.

    :raises ImproperlyConfigured: the setting is wrong, or DATABASES has no such alias.
    """
    from .models import Process

    found: str = check_setting().get("alias") or router.db_for_write(Process)
    if not _is_alias(found):
        raise ImproperlyConfigured(
            f"The routers put the tables of relet.dashboard on the alias {found!r}, which is "
            f"not in DATABASES. Set {SETTING} = {{'alias': ...}}."
        )
    return found


def run(sql: str, alias: str, *, idle: bool = True) -> Rows:
    """Run one statement in the database of *alias*, and commit; return its rows.

    It runs on an idle connection of the pool, else on one that is opened for it and closed: so it
    waits for nobody, and works while the pool is exhausted. It fails if it has to wait for a lock
    for more than a second, or runs for more than ten. Any thread may call this.

    :param sql: without parameters; a percent sign means itself.
    :param idle: whether an idle connection will do. If not, one is opened for it.
    """
    wrapper: Any = connections[alias]
    if not hasattr(wrapper, "outside_pool"):
        return _on_djangos_own(wrapper, sql)
    for handle in pools:
        if idle and handle.alias == alias and handle.declared:
            found = _on_idle_connection(handle.pool, sql)
            if found is not None:
                return found
    with wrapper.outside_pool(connect_timeout=_CONNECT_TIMEOUT_S) as cursor:
        return _on_own_connection(cursor, sql)


def _on_idle_connection(pool: PoolAdapter[Any], sql: str) -> Rows | None:
    """Run *sql* on an idle connection; return None if there is none, or it is broken."""
    failed = None
    try:
        with idle_connection(pool) as raw:
            if raw is None:
                return None
            execute = partial(pool.execute_internal, raw)
            try:
                execute(f"{_BEGIN}; {_LIMIT}")
                # By itself: drivers do not agree on which of several statements' rows they return.
                found = execute(sql)
                execute("COMMIT")
                return found
            except Exception as error:
                if from_handler(error) or not _rolled_back(pool, raw):
                    raise
                # The statement is at fault: the connection is not to be thrown away.
                failed = error
    except Exception as error:
        if from_handler(error):
            raise
        # Its server may have ended it while it was idle, which says nothing of the next one.
        return None
    raise failed


def _rolled_back(pool: PoolAdapter[Any], raw: Any) -> bool:
    """Roll the transaction of *raw* back; return whether the connection can be used again."""
    open_ = (TransactionStatus.IN_TRANSACTION, TransactionStatus.IN_ERROR)
    if pool.transaction_status(raw) in open_:
        pool.execute_internal(raw, "ROLLBACK")
    return pool.transaction_status(raw) == TransactionStatus.IDLE


def _on_own_connection(cursor: Any, sql: str) -> Rows:
    """Run *sql* on a connection that is closed afterwards."""
    if not cursor.db.get_autocommit():
        cursor.db.set_autocommit(True)
    # The driver's cursor, so that nothing of this is logged.
    execute: Callable[[str], object] = cursor.cursor.execute
    execute(_BEGIN)
    execute(_LIMIT)
    execute(sql)
    found = list(cursor.cursor.fetchall()) if cursor.cursor.description else []
    execute("COMMIT")
    return found


def _on_djangos_own(wrapper: Any, sql: str) -> Rows:
    """Run *sql* on a copy of *wrapper*, whose engine is not relet's."""
    copied = wrapper.copy()
    options = dict(copied.settings_dict["OPTIONS"])
    # Django's own pool, in which this would wait for others.
    options.pop("pool", None)
    if copied.vendor == "postgresql":
        options = {"connect_timeout": _CONNECT_TIMEOUT_S, **options}
    copied.settings_dict["OPTIONS"] = options
    try:
        with copied.cursor() as cursor:
            return _on_own_connection(cursor, sql)
    finally:
        copied.close()
