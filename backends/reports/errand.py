"""Errand: one statement of relet's own, beside what the users of a pool do.

It takes no connection from anybody: it runs on an idle connection of the pool, without waiting for
one, else on a connection that is opened for it. So it works while the pool is exhausted.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from relet.backends.pools import PoolHandle
from relet.core import PoolAdapter, TransactionStatus

#: Seconds to wait for a new connection.
CONNECT_TIMEOUT_S = 5

Rows = list[tuple[Any, ...]]


def run(handle: PoolHandle, sql: str) -> Rows:
    """Run *sql* on an idle connection of the pool, else on one of its own; return the rows.

    :param sql: one statement without parameters, in which a percent sign means itself.
    """
    found = on_idle_connection(handle.pool, sql)
    if found is not None:
        return found
    wrappers = (find() for find in list(handle.users))
    wrapper: Any = next((one for one in wrappers if one is not None), None)
    if wrapper is None:
        return []  # nobody uses the pool any more
    return on_own_connection(wrapper, sql)


def on_idle_connection(pool: PoolAdapter[Any], sql: str) -> Rows | None:
    """Run *sql* on an idle connection, without waiting for one; None if there is none."""
    if pool.closed or not pool.stats().idle:
        return None
    slot = _Slot()
    try:
        with suppress(Exception):  # another thread was faster
            pool.checkout_into(slot, 0.0)
        if slot.connection is None:
            return None
        # It commits: connections are in autocommit in the pool, whatever their users set.
        found = pool.execute_internal(slot.connection.raw, sql)
        pool.checkin_from(slot)
    except BaseException:
        _give_up(pool, slot)
        raise
    return found


def _give_up(pool: PoolAdapter[Any], slot: _Slot) -> None:
    """Give the connection of *slot* back after an error: the server's may have left it intact."""
    if (connection := slot.connection) is not None:
        # A lost connection is UNKNOWN.
        if pool.transaction_status(connection.raw) == TransactionStatus.IDLE:
            pool.checkin_from(slot)
        else:
            pool.discard_from(slot)


class _Slot:
    connection: Any = None


def on_own_connection(wrapper: Any, sql: str) -> Rows:
    """Run *sql* on a connection that is opened for it, with the settings of *wrapper*.

    :param wrapper: a wrapper of relet's. Any thread may call this.
    """
    with wrapper.outside_pool(connect_timeout=CONNECT_TIMEOUT_S) as cursor:
        # The driver's cursor, so that nothing of this is logged.
        cursor.cursor.execute(sql)
        found = list(cursor.cursor.fetchall()) if cursor.cursor.description else []
        if not cursor.db.get_autocommit():
            cursor.db.commit()
        return found
