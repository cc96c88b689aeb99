"""Ending: how the connection of a lease goes back to its pool, or does not."""

from __future__ import annotations

from time import monotonic
from typing import Any

from relet.core import Lease, PoolAdapter, PooledConnection, State
from relet.core.status import TransactionStatus

from . import holders, session_rules

IDLE, UNKNOWN = TransactionStatus.IDLE, TransactionStatus.UNKNOWN
_OPEN = (TransactionStatus.IN_TRANSACTION, TransactionStatus.IN_ERROR)


def leased(lease: Lease) -> tuple[PooledConnection, PoolAdapter[Any]]:
    """Return the connection of *lease*, which has one, and its pool."""
    connection, pool = lease.connection, lease.pool
    assert connection is not None and pool is not None
    return connection, pool


def discard(lease: Lease) -> None:
    """Throw the connection away."""
    connection, pool = leased(lease)
    lease.pins.clear()
    holders.clear_holder(lease, pool)
    if pool.transaction_status(connection.raw) == UNKNOWN:
        pool.broken_at = monotonic()
    pool.discard_from(lease)
    lease.clean()


def discard_after_interrupt(lease: Lease) -> None:
    """Discard, if the lease has ended and its action has not: an exception came between."""
    pool = lease.pool
    if lease.state is State.RELEASED and lease.connection is not None and pool is not None:
        lease.pins.clear()
        holders.clear_holder(lease, pool)
        pool.discard_from(lease)
        lease.clean()


def close_what_is_open(lease: Lease) -> None:
    """Close cursors, COPY and streams that pin *lease*, and roll an open transaction back.

    :raises Error: the driver's; the connection is of no use then.
    """
    connection, pool = leased(lease)
    for open_cursor in lease.pins.values():
        if open_cursor is not None:
            open_cursor.close()
    if pool.transaction_status(connection.raw) not in (IDLE, UNKNOWN):
        end_transaction(pool, connection.raw, "ROLLBACK")


def undo(lease: Lease) -> bool:
    """Undo session state, in one round trip; return whether the session is as it was.

    :raises Error: the driver's; the session is not as it was.
    """
    session = lease.session
    if session is None or not session.left:
        return True
    connection, pool = leased(lease)
    return session_rules.undo(pool, connection, session.left)


def end_transaction(pool: PoolAdapter[Any], raw: Any, sql: str) -> None:
    """End whatever transaction is open on *raw*, a raw ``BEGIN``'s too.

    :param sql: COMMIT or ROLLBACK.
    """
    getattr(raw, sql.lower())()
    # psycopg2 in autocommit does nothing about one that it has not begun.
    if pool.transaction_status(raw) in _OPEN:
        pool.execute_internal(raw, sql)
