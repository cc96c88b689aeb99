"""First use: what happens once to each connection that a pool has opened.

Django's connect() runs for it. So backends that do something to new connections do it, the
server's version is checked, and ``connection_created`` is sent, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relet.core import Event, Lease
from relet.core.status import TransactionStatus

from . import ending, holders, session_rules
from .host import DJANGO_STATE

if TYPE_CHECKING:
    from typing import Any


def initialize_connection(runner: Any, outer: Lease) -> None:
    """Run Django's connect() for the new connection of *outer*, in a lease of its own.

    Receivers of ``connection_created`` run queries in autocommit, whatever the wrapper was about to
    do: what they SET is to outlive the transaction that the connection happened to be opened for.
    """
    connection, pool = ending.leased(outer)
    host = runner.host
    django_state = {name: getattr(host, name) for name in DJANGO_STATE}
    state = {
        "lease": runner.lease,
        "closed": runner.closed,
        "pending_savepoints": runner.pending_savepoints,
        "initializing": None,
    }
    inner = Lease(outer.alias, thread=outer.thread)
    inner.pool, inner.connection, inner.leased_at = pool, connection, outer.leased_at
    inner.pins[inner] = None
    inner.send(Event.CONNECT)
    runner.configured = set()

    def restore() -> None:
        # Each in one step, so that no interrupt strikes in the middle of it.
        host.__dict__.update(django_state)
        runner.__dict__.update(state)

    try:
        runner.initializing = connection.raw
        runner.pending_savepoints = []
        runner.closed = False
        runner.lease = inner
        host.connect()
        if pool.transaction_status(connection.raw) != TransactionStatus.IDLE:
            ending.end_transaction(pool, connection.raw, "COMMIT")
        connection.raw.autocommit = True
        restore()
    except BaseException:
        restore()
        raise
    finally:
        holders.clear_holder(inner, pool)
    if pool.pooled:
        connection.baseline = session_rules.read_baseline(pool, connection.raw, runner.configured)
    pool.known_facts = pool.facts(connection.raw)
    connection.initialized = True
