"""First use: initializes each connection once, when it is first leased.

Django's connect() runs for it once. It lets backends set new connections up, checks the server's
version, and sends ``connection_created``.
"""

from __future__ import annotations

from typing import Any

from relet.core import Event, Lease
from relet.core.restoring import read_baseline
from relet.core.status import TransactionStatus

from . import ending, holders
from .host import DJANGO_STATE


def initialize_connection(runner: Any, outer: Lease) -> None:
    """Run Django's connect() for the new connection of *outer*, in a lease of its own.

    Receivers of ``connection_created`` always run queries in autocommit. Their settings must
    outlive the transaction for which the connection happened to be opened.
    """
    connection, pool = ending.leased(outer)
    host = runner.host
    django_state = {name: getattr(host, name) for name in DJANGO_STATE}
    state = {
        "lease": runner.lease,
        "closed": runner.closed,
        "pending_savepoints": runner.pending_savepoints,
        "initializing": None,
        "prepared": runner.prepared,
    }
    inner = type(outer)(outer.alias, thread=outer.thread)
    inner.pool, inner.connection, inner.leased_at = pool, connection, outer.leased_at
    inner.pins[inner] = None
    inner.send(Event.CONNECT)
    runner.configured = set()

    def restore() -> None:
        # Each in one step, so that an interrupt cannot leave it half done.
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
        connection.baseline = read_baseline(pool, connection.raw, runner.configured)
        baseline = connection.baseline
        if "search_path" in baseline.settings or baseline.role != "none":
            # Set after the definitions were read, perhaps on the driver's connection. With a role,
            # "$user" in the path is another schema.
            pool.definitions.memo.look_anywhere()
    if pool.plans is not None:
        pool.plans.restored(connection.raw)
    if pool.definitions.late:
        # A statement that needs them waits for the thread that reads them.
        pool.definitions.compare(pool, connection.raw, wait=False)
    pool.known_facts = pool.facts(connection.raw)
    connection.initialized = True
