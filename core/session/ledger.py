"""SessionLedger: the session state that the owner of one lease has made.

The Django layer records which statements ran and how each transaction ended. The ledger says which
state is left, and whether it keeps the lease. `relet.core.session.baseline` undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from relet.core.sql.effects import ALL, Change, Control, Kind, Move, Step
from relet.core.status import TransactionStatus

from .baseline import Baseline
from .transaction_log import TransactionLog

_IDLE, _IN_ERROR = TransactionStatus.IDLE, TransactionStatus.IN_ERROR

_UNKNOWN = Change(Kind.UNKNOWN, None)


class SessionLedger:
    """The session state that the owner of one lease has made.

    ROLLBACK undoes transactional state (SET, LISTEN, temporary objects) and nothing else (not
    advisory locks, PREPARE or nextval). ROLLBACK TO does the same back to its savepoint. State
    that cannot be determined counts as left.
    """

    __slots__ = ("_log", "condemned", "holds", "pinning_statements")

    def __init__(self) -> None:
        #: How many ``hold()`` blocks are open. They all share one connection.
        self.holds = 0
        #: Whether no other lease is to get the connection, whatever is undone.
        self.condemned = False
        #: SQL text of a statement in the open transaction -> the kinds of state for which it keeps
        #: the lease, each with its origin; see `Change`.
        self.pinning_statements: dict[str, dict[Kind, str]] = {}
        self._log = TransactionLog()

    @property
    def keeps_lease(self) -> bool:
        """Whether session state or a ``hold()`` block keeps the lease."""
        return self.holds > 0 or bool(self._log.kinds_kept)

    @property
    def left(self) -> frozenset[Kind]:
        """The kinds of state to undo before another lease gets the connection."""
        # Code in a hold() block may have called functions that change the session.
        left = self._log.left
        return left | {Kind.UNKNOWN} if self.holds else left

    @property
    def is_empty(self) -> bool:
        """Whether there is no state, no open transaction and no ``hold()`` block to track."""
        return not self.holds and not self.condemned and self._log.is_empty

    @property
    def kinds_kept(self) -> frozenset[Kind]:
        """The kinds of state that keep the lease."""
        return self._log.kinds_kept

    def record(
        self,
        steps: Sequence[Step],
        *,
        before: int,
        after: int,
        ok: bool | None,
        single: bool,
        keep: Callable[[Kind], bool],
        baseline: Baseline | None,
    ) -> None:
        """Record that SQL with the effects *steps* has run.

        :param before: the `TransactionStatus` before it ran.
        :param after: the `TransactionStatus` after it ran.
        :param ok: whether it succeeded. False means that the server has undone all of it; None
            means that any part of it may have taken effect.
        :param single: whether the SQL is a single statement.
        :param keep: returns whether state of a kind keeps the lease.
        :param baseline: the session's baseline, if it is known.
        """
        if before == _IDLE:
            self._log.end()
        if ok is not False:
            aborted = before == _IN_ERROR
            for step in steps:
                if isinstance(step, Change):
                    self._change(step, keep, baseline)
                else:
                    self._move(step, aborted)
                    aborted = False
            if ok is None:
                self._change(_UNKNOWN, keep, baseline)
        else:
            self._record_failure(steps, single, keep, baseline)
            if after == _IDLE:
                self._log.roll_back()
        if after == _IDLE:
            self._log.end()

    def end_transaction(self, *, committed: bool | None) -> None:
        """Record the end of the transaction.

        :param committed: None if it is unknown whether it was committed or rolled back.
        """
        if committed is False:
            self._log.roll_back()
        elif committed is None:
            self.mark_dirty()
        self._log.end()

    def successor(self) -> SessionLedger | None:
        """Return the ledger for the next lease, or None if it needs none.

        An open ``hold()`` block keeps the next connection as it kept this one.
        """
        if not self.holds:
            return None
        successor = SessionLedger()
        successor.holds = self.holds
        return successor

    def mark_dirty(self, kinds: Iterable[Kind] = (Kind.UNKNOWN,)) -> None:
        """Record that the session has changed in ways that no SQL text shows.

        :param kinds: the kinds of state that are left, if they are known.
        """
        self._log.left |= frozenset(kinds)

    def _change(
        self, change: Change, keep: Callable[[Kind], bool], baseline: Baseline | None
    ) -> None:
        kind, name, log = change.kind, change.name, self._log
        if change.renames:
            log.forget_names(kind)
            if baseline is None or not baseline.sets(kind, ALL):
                return
        log.begin()
        if change.undoes and not change.renames:
            if change.sure:
                log.remove(kind, name)
            if baseline is not None and not baseline.sets(kind, name):
                if kind is Kind.PREPARED and not change.sure:
                    # Code may also have dropped statements that the driver prepared, which the
                    # driver does not notice.
                    log.left |= {kind}
                return
            # The baseline may have had this state, and it is gone now: it has to be restored.
        log.left |= {kind}
        if keep(kind):
            log.add(kind, name)

    def _move(self, move: Move, aborted: bool) -> None:
        """Follow the transaction.

        :param aborted: whether the transaction has failed, so that COMMIT rolls it back.
        """
        control = move.control
        if control is Control.ROLLBACK or (control is Control.COMMIT and aborted):
            self.end_transaction(committed=False)
        elif control is Control.COMMIT:
            self.end_transaction(committed=True)
        elif control is Control.SAVEPOINT:
            self._log.savepoint(move.savepoint)
        elif control is Control.RELEASE:
            self._log.release(move.savepoint)
        else:
            self._log.roll_back_to(move.savepoint)

    def _record_failure(
        self,
        steps: Sequence[Step],
        single: bool,
        keep: Callable[[Kind], bool],
        baseline: Baseline | None,
    ) -> None:
        """Record SQL that failed: some of *steps* may have taken effect before the error."""
        for step in steps:
            if isinstance(step, Change) and not step.kind.transactional:
                self._change(step._replace(sure=False), keep, baseline)
        moves = any(isinstance(step, Move) for step in steps)
        if moves and not single and not (self.is_empty and not _makes_state(steps)):
            # It may have committed something or set a savepoint before it failed.
            self._change(_UNKNOWN, keep, baseline)


def _makes_state(steps: Iterable[Step]) -> bool:
    return any(isinstance(step, Change) for step in steps)
