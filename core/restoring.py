"""Restoring: reads the baseline of a session and restores the session to it, by an adapter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from relet.core.session.baseline import Baseline
from relet.core.sql.effects import Kind

if TYPE_CHECKING:
    from relet.core.adapter import PoolAdapter


def read_baseline(
    pool: PoolAdapter[Any], raw: Any, settings: Iterable[str | None] = ()
) -> Baseline:
    """Return the current state of a session, as its baseline. Takes one round trip.

    :param settings: names of the settings that have been changed; see `Baseline.query`. If None is
        among them, the session cannot be restored to this baseline.
    """
    budget = pool.config.budget
    lock_class = None if budget is None else budget.lock_class
    names = [name for name in settings if name is not None]
    return Baseline.from_rows(
        pool.execute_internal(raw, Baseline.query(names, lock_class)),
        driver=pool.driver_state(raw),
        known=None not in settings,
        lock_class=lock_class,
    )


def restore(
    pool: PoolAdapter[Any], raw: Any, baseline: Baseline | None, left: frozenset[Kind]
) -> bool:
    """Restore a session to its baseline in one round trip; return whether that succeeded.

    The state of the driver's connection is compared too, whatever the policy: the next user must
    not get this one's row factory or handlers, or an open transaction.

    :param raw: a connection without an open transaction.
    :param left: the kinds of state to undo.
    :raises Error: the driver's; the session is not restored.
    """
    sql = baseline.undo(left) if baseline is not None else None
    if baseline is None or sql is None:
        return False
    if pool.is_blocked(raw):
        return False
    if raw.autocommit is not True:
        raw.autocommit = True
    if pool.plans is not None and Kind.UNKNOWN in left and (proof := pool.plans.proof(raw)):
        sql = f"{sql}; {proof}"
    if Kind.PREPARED in left:
        pool.forget_prepared(raw)
    pool.execute_internal(raw, sql)
    if pool.plans is not None:
        pool.plans.restored(raw)
    pool.undo_unseen(raw)
    # Compare last, because notifications may have arrived with the response.
    return bool(pool.driver_state(raw) == baseline.driver)
