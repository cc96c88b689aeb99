"""Session tracking: records in a lease the session state that its statements leave.

The policy decides whether this state keeps the lease. The runner undoes it when the lease ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from relet.core import Lease, ReleasePolicy
from relet.core.sql.effects import Effects

from . import session_rules
from .messages import Messages


class Statement(NamedTuple):
    """A statement with effects that has run.

    :param driver: the driver's cursor if it may have a result, else None.
    :param before: the transaction status before the statement.
    :param error: the error that the statement raised, if any.
    """

    effects: Effects
    sql: Any
    params: object
    driver: Any
    before: int
    error: BaseException | None


def account(lease: Lease, policy: ReleasePolicy, messages: Messages, ran: Statement) -> None:
    """Record what a statement has left in the session of *lease*."""
    connection, pool = lease.connection, lease.pool
    if connection is None or pool is None:
        return
    effects, driver = ran.effects, ran.driver
    after = pool.transaction_status(connection.raw)
    ok = session_rules.succeeded(effects, ran.before, after, ran.error)
    row = pool.boolean_columns(driver) if ok and driver is not None else None
    session_rules.account(
        lease,
        policy,
        effects.resolve(ran.params, row),
        pool.sql_text(ran.sql),
        messages,
        before=ran.before,
        after=after,
        ok=ok,
        single=effects.single,
    )


def transaction_ended(lease: Lease, messages: Messages, *, committed: bool | None) -> None:
    """Update the session state of *lease* after its transaction has ended.

    :param committed: None if it is unknown whether the transaction was committed.
    """
    if lease.session is not None:
        session_rules.transaction_ended(lease, lease.session, messages, committed=committed)
