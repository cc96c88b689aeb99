"""Session state, at the Django layer: what is refused, kept account of, logged and undone.

`relet.core.sql.classifier` finds it in SQL, `relet.core.session.ledger` keeps account of it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence, Set
from typing import Any

from django.db import NotSupportedError

from relet.core import (
    ConfigurationError,
    Lease,
    PoolAdapter,
    PooledConnection,
    ReleasePolicy,
    ReletError,
)
from relet.core.policy import STATE_MODES
from relet.core.session.baseline import Baseline
from relet.core.session.ledger import SessionLedger
from relet.core.sql.effects import Change, Effects, Kind, Move, Step
from relet.core.sql.fingerprint import fingerprint
from relet.core.status import TransactionStatus

from .messages import Messages

Steps = Sequence[Step]

#: How much SQL a message shows.
_SHOWN = 500


class SessionStateError(ReletError, NotSupportedError):
    """A statement would leave something in its session, and the policy does not allow that."""


class SessionStateWarning(RuntimeWarning):
    """A statement reads session state that its own lease has not made."""


def _mode(policy: ReleasePolicy, kind: Kind) -> str:
    mode = policy.state_mode(kind)
    if mode not in STATE_MODES:
        known = ", ".join(map(repr, STATE_MODES))
        raise ConfigurationError(
            f"{type(policy).__name__}.state_mode({kind}) returned {mode!r}; it can be {known}."
        )
    return mode


def refuse(alias: str, policy: ReleasePolicy, steps: Steps, text: str) -> None:
    """Raise `SessionStateError` if *policy* does not allow what *steps* leave."""
    for step in steps:
        if isinstance(step, Change) and not step.undoes and _mode(policy, step.kind) == "error":
            raise SessionStateError(
                f"DATABASES[{alias!r}]: this statement leaves {step.kind.noun} in its session, "
                "which its policy does not allow ('session_state' is 'error'): "
                f"{fingerprint(text, _SHOWN)}\nUse {step.kind.cure}."
            )


def warn_of_sequence(alias: str, effects: Effects, text: str) -> None:
    """Warn of ``currval()`` and ``lastval()`` at the beginning of a lease."""
    if any(change.kind is Kind.SEQUENCE for change in effects.made):
        return
    warnings.warn(
        f"DATABASES[{alias!r}]: currval() and lastval() return what nextval() gave in the same "
        "session, and this statement is the first of its lease: what it returns is "
        f"somebody else's, or an error. Use {Kind.SEQUENCE.cure}. {fingerprint(text, _SHOWN)}",
        SessionStateWarning,
        stacklevel=_outside(),
    )


def _outside() -> int:
    """The stack level, as seen from the caller, of the code that uses Django."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in ("relet", "django", "contextlib")


def succeeded(
    effects: Effects, before: int, after: int, error: BaseException | None
) -> bool | None:
    """Return whether a statement with *effects* has succeeded; None if nobody knows.

    An error that has no SQLSTATE is not the server's, which may have done all of it. One that has
    is no rollback where something was committed before it came.

    :param before: the transaction status before.
    :param after: the same after.
    """
    if error is None:
        return True
    if after == TransactionStatus.IN_ERROR:
        return False  # what it did will be rolled back with the transaction, or to a savepoint
    undone = before == after == TransactionStatus.IDLE and not effects.may_commit
    return False if undone and sqlstate(error) is not None else None


def sqlstate(error: BaseException) -> str | None:
    """Return the server's code of *error*; None if it is not the server's.

    https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    # psycopg and pg8000 have it by one name, psycopg2 by the other.
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def account(
    lease: Lease,
    policy: ReleasePolicy,
    steps: Steps,
    text: str,
    messages: Messages,
    *,
    before: int,
    after: int,
    ok: bool | None,
    single: bool,
) -> None:
    """Keep account of *steps*, which the statement *text* has taken."""
    if after == TransactionStatus.UNKNOWN:
        return  # what it may have left is gone with its session
    session = lease.session
    held = session is not None and session.holds > 0
    if not held:
        steps = [
            step for step in steps if isinstance(step, Move) or _mode(policy, step.kind) != "ignore"
        ]
    if session is None:
        if not any(isinstance(step, Change) for step in steps):
            return
        session = lease.session = SessionLedger()

    def keep(kind: Kind) -> bool:
        # What is made in a hold() block is undone when it is left.
        return not held and _mode(policy, kind) == "pin"

    baseline = lease.connection.baseline if lease.connection is not None else None
    session.record(
        steps, before=before, after=after, ok=ok, single=single, keep=keep, baseline=baseline
    )
    made = {step.kind for step in steps if isinstance(step, Change) and not step.undoes}
    session.pinning_statements[text] = frozenset(kind for kind in made if keep(kind))
    _settled(lease, session, messages, after)


def transaction_ended(
    lease: Lease, session: SessionLedger, messages: Messages, *, committed: bool | None
) -> None:
    """Django has ended the transaction."""
    session.end_transaction(committed=committed)
    _settled(lease, session, messages, TransactionStatus.IDLE)


def _settled(lease: Lease, session: SessionLedger, messages: Messages, status: int) -> None:
    if session.is_empty:
        lease.session = None
    if status == TransactionStatus.IDLE:
        for text, kinds in session.pinning_statements.items():
            _tell(messages, lease.alias, text, kinds & session.kinds_kept)
        session.pinning_statements.clear()


#: Statements whose pins have been logged, without their values.
_logged: set[str] = set()
_MOST_LOGGED = 1000


def _tell(messages: Messages, alias: str, text: str, kinds: frozenset[Kind]) -> None:
    """Tell the log, once for all statements like it, what keeps the lease."""
    if not kinds or len(_logged) >= _MOST_LOGGED:
        return
    shown = fingerprint(text, _SHOWN)
    if shown in _logged:
        return
    _logged.add(shown)
    for kind in kinds:
        messages.warning(
            "DATABASES[%r]: the connection is kept until close(), because this statement leaves %s "
            "in its session: %s\nTo give it back earlier, use %s. (Logged once for all statements "
            "that differ in their values alone.)",
            alias,
            kind.noun,
            shown,
            kind.cure,
        )
    if len(_logged) == _MOST_LOGGED:
        messages.warning("No more such statements are logged.")


def settings_made(steps: Steps) -> set[str | None]:
    """Return the names of the settings that *steps* make; None is one that is not known."""
    return {
        None if step.name is None else "".join(map(str, step.name))
        for step in steps
        if isinstance(step, Change) and not step.undoes and step.kind is Kind.SETTING
    }


def read_baseline(pool: PoolAdapter[Any], raw: Any, settings: Set[str | None]) -> Baseline:
    """Return what the session of a connection is now: one round trip.

    :param settings: names that have been set; see `Baseline.query`. With None among them it
        is not known what the session is, and nothing leads back to it.
    """
    rows = pool.execute_internal(raw, Baseline.query(name for name in settings if name is not None))
    return Baseline.from_rows(rows, driver=pool.driver_state(raw), known=None not in settings)


def undo(pool: PoolAdapter[Any], connection: PooledConnection, left: frozenset[Kind]) -> bool:
    """Restore the session, in one round trip; return whether all is as it was.

    That includes the driver's connection, whatever the policy says of session state: the next
    borrower must not find a factory or a handler of this one, or a transaction that nobody
    commits.

    :param connection: no transaction is open on it.
    """
    baseline, raw = connection.baseline, connection.raw
    sql = baseline.undo(left) if baseline is not None else None
    if baseline is None or sql is None:
        return False
    if pool.is_blocked(raw):
        return False
    if raw.autocommit is not True:
        raw.autocommit = True
    pool.execute_internal(raw, sql)
    pool.undo_unseen(raw)
    # Compare last: notifications may have come with the answer.
    return bool(pool.driver_state(raw) == baseline.driver)
