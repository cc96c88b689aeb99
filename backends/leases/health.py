"""Health: whether a connection that was just taken from the pool works."""

from __future__ import annotations

from enum import Enum
from time import monotonic
from typing import Any

from relet.core import Lease, PoolAdapter, PooledConnection


class HealthCheck(Enum):
    """How a connection is checked before it is used."""

    NONE = "it was in use a moment ago"
    PEEK = "see whether the server has ended the session"
    PING = "ask the server"


def validate(
    lease: Lease, pool: PoolAdapter[Any], check_idle: float, *, pings: bool, may_retry: bool
) -> None:
    """Replace the connection of *lease*, which was just taken, by the first that works.

    A connection that was in use a moment ago is taken to work, unless another one of the same pool
    was found broken since.

    :param check_idle: `ReleasePolicy.check_idle`, seconds.
    :param pings: whether connections that were idle longer than that are pinged.
    :param may_retry: whether the statement may go to another connection because none of it has
        been sent yet.
    """
    while (connection := lease.connection) is not None:
        check = _needed(connection, pool, check_idle, pings, may_retry)
        if check is HealthCheck.NONE:
            return
        if check is HealthCheck.PEEK and not pool.has_unread_data(connection.raw):
            return
        if pool.ping(connection.raw):
            connection.last_used_at = monotonic()
            return
        pool.broken_at = monotonic()
        pool.discard_from(lease)
        pool.checkout_into(lease)


def _needed(
    connection: PooledConnection,
    pool: PoolAdapter[Any],
    check_idle: float,
    pings: bool,
    may_retry: bool,
) -> HealthCheck:
    if connection.last_used_at < pool.broken_at:
        return HealthCheck.PING
    if monotonic() - connection.last_used_at > check_idle:
        return HealthCheck.PING if pings else HealthCheck.PEEK
    return HealthCheck.PEEK if may_retry else HealthCheck.NONE
