"""Health: checks that a connection just taken from the pool works."""

from __future__ import annotations

from enum import Enum
from time import monotonic
from typing import Any

from relet.core import Lease, PoolAdapter, PooledConnection


class HealthCheck(Enum):
    """How a connection is checked before it is used."""

    NONE = "no check: it was used recently"
    PEEK = "look for unread data: the server may have ended the session"
    PING = "send a query to the server"


def validate(
    lease: Lease, pool: PoolAdapter[Any], check_idle: float, *, pings: bool, may_retry: bool
) -> None:
    """Check the connection of *lease*; while it is broken, replace it with the next one.

    A connection that was used recently is trusted, unless another connection of the same pool was
    found broken since.

    :param check_idle: `ReleasePolicy.check_idle`, in seconds.
    :param pings: whether to ping connections that were idle for longer than *check_idle*.
    :param may_retry: whether the policy lets the statement move to another connection, so that
        even a recently used one is peeked at.
    """
    while (connection := lease.connection) is not None:
        check = _needed(connection, pool, check_idle, pings, may_retry)
        if check is HealthCheck.NONE:
            return
        if check is HealthCheck.PEEK and not pool.has_unread_data(connection.raw):
            return
        if pool.ping(connection.raw):
            # What was opened since then would lead to the same server, if it is replaced again.
            if connection.last_used_at >= pool.standby_at or not pool.is_standby(connection.raw):
                connection.last_used_at = monotonic()
                return
        else:
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
