"""Session state, at the Django layer: what is refused, kept account of, logged and undone.

`relet.core.classifier` finds it in SQL, `relet.core.session` keeps account of it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import NotSupportedError

from relet.core import Lease, PooledConnection, ReleasePolicy, ReletError
from relet.core.effects import Change, Effects, Kind, Move
from relet.core.lease import TransactionStatus
from relet.core.session import Baseline, SessionState

logger = logging.getLogger("relet")

Steps = Sequence[Change | Move]

#: Where a message shortens SQL.
_SHOWN = 500


class SessionStateError(ReletError, NotSupportedError):
    """A statement would leave something in its session, and the policy does not allow that."""


class SessionStateWarning(RuntimeWarning):
    """A statement reads session state that its own lease has not made."""


def refuse(alias: str, policy: ReleasePolicy, steps: Steps, query: object) -> None:
    """Raise `SessionStateError` if *policy* does not allow what *steps* leave."""
    for step in steps:
        if isinstance(step, Change) and not step.back and policy.state_mode(step.kind) == "error":
            raise SessionStateError(
                f"DATABASES[{alias!r}]: this statement leaves {step.kind.noun} in its session, "
                f"which OPTIONS['policy']['session_state'], 'error', does not allow: "
                f"{_shown(query)}\nUse {step.kind.cure}."
            )


def warn_of_sequence(alias: str, effects: Effects, query: object) -> None:
    """Warn of ``currval()`` and ``lastval()`` at the beginning of a lease."""
    if any(change.kind is Kind.SEQUENCE for change in effects.made):
        return
    warnings.warn(
        f"DATABASES[{alias!r}]: currval() and lastval() return what nextval() gave in the same "
        "session, and this statement is the first of its lease: what it returns is "
        f"somebody else's, or an error. Use {Kind.SEQUENCE.cure}. {_shown(query)}",
        SessionStateWarning,
        stacklevel=9,
    )


def account(
    lease: Lease,
    policy: ReleasePolicy,
    steps: Steps,
    query: object,
    *,
    before: int,
    after: int,
    ok: bool,
    single: bool,
) -> None:
    """Keep account of *steps*, which a statement has taken."""
    session = lease.session
    held = session is not None and session.holds > 0
    if not held:
        steps = [
            step
            for step in steps
            if isinstance(step, Move) or policy.state_mode(step.kind) != "ignore"
        ]
    if session is None:
        if not any(isinstance(step, Change) for step in steps):
            return
        session = lease.session = SessionState()

    def keep(kind: Kind) -> bool:
        # What is made in a hold() block is undone when it is left.
        return not held and policy.state_mode(kind) == "pin"

    baseline = lease.connection.baseline if lease.connection is not None else None
    session.ran(
        steps, before=before, after=after, ok=ok, single=single, keep=keep, baseline=baseline
    )
    made = {step.kind for step in steps if isinstance(step, Change) and not step.back}
    session.texts.append((query, frozenset(kind for kind in made if keep(kind))))
    _settled(lease, session, after)


def transaction_ended(lease: Lease, session: SessionState, *, committed: bool) -> None:
    """Django has ended the transaction."""
    session.ended(committed=committed)
    _settled(lease, session, TransactionStatus.IDLE)


def _settled(lease: Lease, session: SessionState, status: int) -> None:
    if session.blank:
        lease.session = None
    if status == TransactionStatus.IDLE:
        for query, kinds in session.texts:
            _log(lease.alias, query, kinds & session.kinds_kept)
        session.texts.clear()


#: Texts whose pins have been logged.
_logged: set[str] = set()
_MOST_LOGGED = 1000


def _log(alias: str, query: object, kinds: frozenset[Kind]) -> None:
    """Log, once for each text, that the session state of *query* keeps the lease."""
    text = str(query)
    if not kinds or text in _logged or len(_logged) >= _MOST_LOGGED:
        return
    _logged.add(text)
    for kind in kinds:
        logger.warning(
            "DATABASES[%r]: the connection is kept until close(), for this statement leaves %s "
            "in its session: %s\nTo give it back earlier, use %s. (Logged once for each text.)",
            alias,
            kind.noun,
            _shown(text),
            kind.cure,
        )
    if len(_logged) == _MOST_LOGGED:
        logger.warning("No more such statements are logged.")


def _shown(query: object) -> str:
    text = str(query)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def settings_made(effects: Effects) -> set[str]:
    """Return the names of the settings that *effects* make, as far as they are known."""
    return {
        "".join(map(str, change.name))
        for change in effects.made
        if change.kind is Kind.SETTING and change.name is not None
    }


def read_baseline(raw: Any, settings: Iterable[str]) -> Baseline:
    """Return what the session of a connection is now: one round trip.

    :param settings: names that have been set; see `Baseline.query`.
    """
    cursor = raw.cursor()
    cursor.execute(Baseline.query(settings))
    return Baseline.from_rows(cursor.fetchall())


def undo(connection: PooledConnection, left: frozenset[Kind]) -> bool:
    """Restore the session: one round trip. Return whether it is as it was."""
    sql = connection.baseline.undo(left) if connection.baseline is not None else None
    if sql is None:
        return False
    connection.raw.cursor().execute(sql)
    return True
