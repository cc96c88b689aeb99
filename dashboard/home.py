"""Home: the alias whose database has the tables, and how statements get there."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from relet.backends.leases.idle import idle_connection
from relet.backends.pools import pools
from relet.core import PoolAdapter, TransactionStatus

Rows = list[tuple[Any, ...]]

#: Seconds to wait for a new connection.
_CONNECT_TIMEOUT_S = 5
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
            f"{SETTING} has an unknown key {unknown[0]!r}. There is {', '.join(map(repr, _KEYS))}."
        )
    alias = given.get("alias")
    if alias is not None and alias not in connections.settings:
        raise ImproperlyConfigured(
            f"{SETTING}['alias'] is {alias!r}, which is not in DATABASES. It must be "
            f"{_KEYS['alias']}."
        )
    return given


def alias() -> str:
    """Return the alias that has the tables: the setting's, else what the routers say."""
    from .models import Process

    return check_setting().get("alias") or router.db_for_write(Process)


def run(sql: str, alias: str) -> Rows:
    """Run one statement in the database of *alias*, and commit; return its rows.

    It runs on an idle connection of the pool, else on one that is opened for it and closed: so it
    waits for nobody, and works while the pool is exhausted. Any thread may call this.

    :param sql: without parameters; a percent sign means itself.
    """
    wrapper: Any = connections[alias]
    if not hasattr(wrapper, "outside_pool"):
        return _on_djangos_own(wrapper, sql)
    for handle in pools:
        if handle.alias == alias and handle.declared:
            found = _on_idle_connection(handle.pool, sql)
            if found is not None:
                return found
    with wrapper.outside_pool(connect_timeout=_CONNECT_TIMEOUT_S) as cursor:
        found = _fetch(cursor, sql)
        if not cursor.db.get_autocommit():
            cursor.db.commit()
        return found


def _on_idle_connection(pool: PoolAdapter[Any], sql: str) -> Rows | None:
    """Run *sql* on an idle connection, if there is one, which commits by itself."""
    with idle_connection(pool) as raw:
        if raw is None:
            return None
        try:
            return pool.execute_internal(raw, sql)
        except Exception as error:
            if pool.transaction_status(raw) != TransactionStatus.IDLE:
                raise
            # The statement is at fault: the connection is not to be thrown away.
            failed = error
    raise failed


def _fetch(cursor: Any, sql: str) -> Rows:
    # The driver's cursor, so that nothing of this is logged.
    cursor.cursor.execute(sql)
    return list(cursor.cursor.fetchall()) if cursor.cursor.description else []


def _on_djangos_own(wrapper: Any, sql: str) -> Rows:
    """Run *sql* on a copy of *wrapper*, whose engine is not relet's."""
    copied = wrapper.copy()
    try:
        with copied.cursor() as cursor:
            found = _fetch(cursor, sql)
        if not copied.get_autocommit():
            copied.commit()
        return found
    finally:
        copied.close()
