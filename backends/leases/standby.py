"""Standby: what to do when the server of a pool no longer takes writes.

After a failover, a name or a proxy may lead to the old primary, which is a standby by then. Its
sessions work, but refuse to write. A pool would keep them for as long as they live.
"""

from __future__ import annotations

from time import monotonic

from relet.core import Lease
from relet.core.session.ledger import SessionLedger

from .messages import Messages
from .session_rules import sqlstate

#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_READ_ONLY = "25006"


def is_refused_by_one(error: BaseException, lease: Lease) -> bool:
    """Return whether *error* is that the server of *lease*, a standby, takes no writes."""
    connection, pool = lease.connection, lease.pool
    return (
        sqlstate(error) == _READ_ONLY
        and connection is not None
        and pool is not None
        and pool.is_standby(connection.raw)
    )


def replace_connections(lease: Lease, messages: Messages) -> None:
    """Have the pool of *lease* replace its connections, each when it is next checked out.

    That of *lease* is discarded when the lease ends, at the latest.
    """
    pool = lease.pool
    assert pool is not None
    first = pool.standby_at < 0
    pool.broken_at = pool.standby_at = monotonic()
    if lease.session is None:
        lease.session = SessionLedger()
    lease.session.condemned = True
    if first:
        messages.warning(
            "DATABASES[%r]: the server is a standby and takes no writes. The pool replaces its "
            "connections, so that new ones find the primary. Check where HOST leads to, or name "
            "all servers in HOST and set OPTIONS['target_session_attrs'] to 'read-write'.",
            lease.alias,
        )
