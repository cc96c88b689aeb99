"""Session rules: refuses, records and logs session state, as the policy says.

`relet.core.sql.classifier` finds session state in SQL; `relet.core.session.ledger` records it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence

from django.db import NotSupportedError

from relet.core import (
    ConfigurationError,
    Lease,
    ReleasePolicy,
    ReletError,
)
from relet.core.policy import STATE_MODES
from relet.core.session.baseline import Baseline
from relet.core.session.ledger import SessionLedger
from relet.core.sql.effects import Change, Effects, Kind, Move, Step
from relet.core.sql.fingerprint import fingerprint
from relet.core.status import TransactionStatus

from . import call_site
from .messages import Messages

Steps = Sequence[Step]

#: Characters of SQL in a message.
_SHOWN = 500


class SessionStateError(ReletError, NotSupportedError):
    """A statement would leave session state, which the policy forbids."""


class SessionStateWarning(RuntimeWarning):
    """A statement reads session state that its lease has not made."""


def _mode(policy: ReleasePolicy, kind: Kind) -> str:
    mode = policy.state_mode(kind)
    if mode not in STATE_MODES:
        known = ", ".join(map(repr, STATE_MODES))
        raise ConfigurationError(
            f"{type(policy).__name__}.state_mode({kind}) returned {mode!r}; it must return one of "
            f"{known}."
        )
    if kind is Kind.DYNAMIC:
        if policy.dynamic_sql == "ignore":
            return "ignore"
        return "pin" if mode == "error" else mode  # it may leave nothing
    return mode


def refuse(alias: str, policy: ReleasePolicy, steps: Steps, text: str) -> None:
    """Raise `SessionStateError` if *policy* forbids session state that *steps* would leave."""
    for step in steps:
        if isinstance(step, Change) and not step.undoes and _mode(policy, step.kind) == "error":
            raise SessionStateError(
                f"DATABASES[{alias!r}]: this statement would leave {step.kind.noun} in its "
                f"session{_shown(step.origin)}, which the policy forbids ('session_state' is "
                f"'error'): {fingerprint(text, _SHOWN)}\nUse {step.kind.cure}."
            )


def _shown(origin: str) -> str:
    """Return where state comes from that the statement's own text does not show."""
    return f" ({origin})" if origin else ""


def warn_of_sequence(alias: str, effects: Effects, text: str) -> None:
    """Warn about ``currval()`` or ``lastval()`` in the first statement of a lease."""
    if any(change.kind is Kind.SEQUENCE for change in effects.made):
        return
    warnings.warn(
        f"DATABASES[{alias!r}]: this statement uses currval() or lastval(), which return the last "
        "nextval() of the same session. It is the first statement of its lease, so it gets another "
        f"client's value or an error. Use {Kind.SEQUENCE.cure}. {fingerprint(text, _SHOWN)}",
        SessionStateWarning,
        stacklevel=_outside(),
    )


def _outside() -> int:
    """Return the ``stacklevel`` of the code that uses Django, for a warning in the caller."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and call_site.is_skipped(frame.f_globals.get("__name__")):
        frame, level = frame.f_back, level + 1
    return level


def succeeded(
    effects: Effects, before: int, after: int, error: BaseException | None
) -> bool | None:
    """Return whether a statement with *effects* has succeeded; None if that is unknown.

    An error without SQLSTATE comes from the client, and the server may have run the statement. An
    error with one does not undo changes that the statement had committed before.

    :param before: the transaction status before the statement.
    :param after: the transaction status after it.
    """
    if error is None:
        return True
    if after == TransactionStatus.IN_ERROR:
        return False  # its changes can only be rolled back, with the transaction or to a savepoint
    undone = before == after == TransactionStatus.IDLE and not effects.may_commit
    return False if undone and sqlstate(error) is not None else None


#: The SQLSTATE of a text that the server cannot parse.
SYNTAX_ERROR = "42601"


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE of *error*; None if the error is not from the server.

    https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    # psycopg and pg8000 use the first name, psycopg2 the second.
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
    """Record the *steps* of the statement *text* in the session ledger of *lease*."""
    if after == TransactionStatus.UNKNOWN:
        return  # the session is lost, with everything in it
    session = lease.session
    held = session is not None and session.holds > 0
    baseline = lease.connection.baseline if lease.connection is not None else None
    if not held:
        steps = [step for step in steps if not _ignores(policy, step, baseline)]
    if session is None:
        if not any(isinstance(step, Change) for step in steps):
            return
        session = lease.session = SessionLedger()

    def keep(kind: Kind) -> bool:
        # State made in a hold() block is undone when the block is left.
        return not held and _mode(policy, kind) == "pin"

    session.record(
        steps, before=before, after=after, ok=ok, single=single, keep=keep, baseline=baseline
    )
    made = {
        step.kind: step.origin for step in steps if isinstance(step, Change) and not step.undoes
    }
    session.pinning_statements[text] = {kind: origin for kind, origin in made.items() if keep(kind)}
    _settled(lease, session, messages, after)


def _ignores(policy: ReleasePolicy, step: Step, baseline: Baseline | None) -> bool:
    """Return whether *policy* leaves what *step* changes to the connection's next user."""
    if isinstance(step, Move) or _mode(policy, step.kind) != "ignore":
        return False
    # Whatever the policy, a session that may have lost its permit is looked at, and closed.
    return not (
        step.kind is Kind.LOCK
        and step.undoes
        and baseline is not None
        and baseline.has_permit
        and baseline.sets(step.kind, step.name)
    )


def transaction_ended(
    lease: Lease, session: SessionLedger, messages: Messages, *, committed: bool | None
) -> None:
    """Update the session ledger after Django has ended the transaction."""
    session.end_transaction(committed=committed)
    _settled(lease, session, messages, TransactionStatus.IDLE)


def _settled(lease: Lease, session: SessionLedger, messages: Messages, status: int) -> None:
    if session.is_empty:
        lease.session = None
    if status == TransactionStatus.IDLE:
        for text, kinds in session.pinning_statements.items():
            kept = {kind: kinds[kind] for kind in kinds if kind in session.kinds_kept}
            _warn(messages, lease.alias, text, kept)
        session.pinning_statements.clear()


#: Fingerprints of the statements that have been logged.
_logged: set[str] = set()
_MAX_LOGGED = 1000


def _warn(messages: Messages, alias: str, text: str, kinds: Mapping[Kind, str]) -> None:
    """Log why the statement *text* keeps the lease, once for each fingerprint.

    :param kinds: kind of state -> where it comes from, if the text does not show it.
    """
    if not kinds or len(_logged) >= _MAX_LOGGED:
        return
    shown = fingerprint(text, _SHOWN)
    if shown in _logged:
        return
    _logged.add(shown)
    for kind, origin in kinds.items():
        messages.warning(
            "DATABASES[%r]: the connection is kept until close(), because this statement leaves %s "
            "in its session%s: %s\nTo give it back earlier, use %s. (Logged once for statements "
            "that differ only in their values.)",
            alias,
            kind.noun,
            _shown(origin),
            shown,
            kind.cure,
        )
    if len(_logged) == _MAX_LOGGED:
        messages.warning("Further statements that keep their connection are not logged.")


def settings_made(steps: Steps) -> set[str | None]:
    """Return the names of the settings that *steps* change; None stands for unknown names."""
    return {
        None if step.name is None else "".join(map(str, step.name))
        for step in steps
        if isinstance(step, Change) and not step.undoes and step.kind is Kind.SETTING
    }
