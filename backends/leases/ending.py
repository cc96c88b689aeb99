"""Ending: returns the connection of a lease to its pool, or discards it."""

from __future__ import annotations

from time import monotonic
from typing import Any

from relet.core import Lease, PoolAdapter, PooledConnection, State
from relet.core.restoring import restore
from relet.core.status import TransactionStatus

from . import holders

IDLE, UNKNOWN = TransactionStatus.IDLE, TransactionStatus.UNKNOWN
_OPEN = (TransactionStatus.IN_TRANSACTION, TransactionStatus.IN_ERROR)


def leased(lease: Lease) -> tuple[PooledConnection, PoolAdapter[Any]]:
    """Return the connection and the pool of *lease*, which must have a connection."""
    connection, pool = lease.connection, lease.pool
    assert connection is not None and pool is not None
    return connection, pool


def discard(lease: Lease) -> None:
    """Discard the connection of *lease*."""
    connection, pool = leased(lease)
    lease.pins.clear()
    holders.clear_holder(lease, pool)
    if pool.transaction_status(connection.raw) == UNKNOWN:
        pool.broken_at = monotonic()
    pool.discard_from(lease)
    lease.clean()


def discard_after_interrupt(lease: Lease) -> None:
    """Discard the connection if an interrupt ended *lease* before its action was done."""
    pool = lease.pool
    if lease.state is State.RELEASED and lease.connection is not None and pool is not None:
        lease.pins.clear()
        holders.clear_holder(lease, pool)
        pool.discard_from(lease)
        lease.clean()


def close_what_is_open(lease: Lease) -> None:
    """Close the cursors, COPY and streams that pin *lease*; roll back an open transaction.

    :raises Error: the driver's; the connection must then be discarded.
    """
    connection, pool = leased(lease)
    for open_cursor in lease.pins.values():
        if open_cursor is not None:
            open_cursor.close()
    if pool.transaction_status(connection.raw) not in (IDLE, UNKNOWN):
        end_transaction(pool, connection.raw, "ROLLBACK")


def undo(lease: Lease) -> bool:
    """Undo session state in one round trip; return whether the session is restored.

    :raises Error: the driver's; the session is not restored.
    """
    session = lease.session
    if session is None:
        return True
    if session.condemned:
        return False
    if not session.left:
        return True
    connection, pool = leased(lease)
    return restore(pool, connection.raw, connection.baseline, session.left)


def end_transaction(pool: PoolAdapter[Any], raw: Any, sql: str) -> None:
    """End any transaction that is open on *raw*, even one begun with a raw ``BEGIN``.

    :param sql: COMMIT or ROLLBACK.
    """
    getattr(raw, sql.lower())()
    # In autocommit, psycopg2 does not end a transaction that it has not begun.
    if pool.transaction_status(raw) in _OPEN:
        pool.execute_internal(raw, sql)
