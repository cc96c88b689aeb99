"""SessionLedger: what a lease's owner has left in the session.

The account of one lease. It is told which statements ran and how the transaction went; it
says what is left, and whether that is to be kept. `relet.core.session.baseline` undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from relet.core.sql.effects import Change, Control, Kind, Move, Step
from relet.core.status import TransactionStatus

from .baseline import Baseline
from .transaction_log import TransactionLog

_IDLE, _IN_ERROR = TransactionStatus.IDLE, TransactionStatus.IN_ERROR

_UNKNOWN = Change(Kind.UNKNOWN, None)


class SessionLedger:
    """What the owner of one lease has left in its session.

    ROLLBACK takes back what is transactional (SET, LISTEN, temporary objects), and
    nothing else (advisory locks, PREPARE, nextval). ROLLBACK TO does so since the
    savepoint. What cannot be known counts as left.
    """

    __slots__ = ("_log", "holds", "texts")

    def __init__(self) -> None:
        #: ``hold()`` blocks that are open: one connection serves them all.
        self.holds = 0
        #: The texts of the open transaction -> the kinds of state by which they keep the lease.
        self.texts: dict[str, frozenset[Kind]] = {}
        self._log = TransactionLog()

    @property
    def keeps(self) -> bool:
        """Whether it keeps the lease."""
        return self.holds > 0 or bool(self._log.kinds)

    @property
    def left(self) -> frozenset[Kind]:
        """The kinds of state that are to be undone before others get the connection."""
        # Whoever holds a connection may have called functions that change it.
        left = self._log.left
        return left | {Kind.UNKNOWN} if self.holds else left

    @property
    def blank(self) -> bool:
        """Whether there is nothing to keep account of."""
        return not self.holds and self._log.blank

    @property
    def kinds_kept(self) -> frozenset[Kind]:
        """The kinds of state that keep the lease."""
        return self._log.kinds

    def ran(
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
        """A text with *steps* has run.

        :param before: the transaction status before, see `TransactionStatus`.
        :param after: the same after.
        :param ok: whether it has succeeded. False is that the server has undone it; None that
            nobody knows what of it was done.
        :param single: whether it is one statement.
        :param keep: whether state of that kind keeps the lease.
        :param baseline: the session's, if it is known.
        """
        if before == _IDLE:
            self._log.end()
        if ok is not False:
            aborted = before == _IN_ERROR
            for step in steps:
                if isinstance(step, Change):
                    self._change(step, keep, baseline)
                else:
                    aborted = self._move(step, aborted)
            if ok is None:
                self._change(_UNKNOWN, keep, baseline)
        else:
            self._failed(steps, single, keep, baseline)
            if after == _IDLE:
                self._log.roll_back()
        if after == _IDLE:
            self._log.end()

    def ended(self, *, committed: bool | None) -> None:
        """The transaction has ended; None is that nobody knows how."""
        if committed is False:
            self._log.roll_back()
        elif committed is None:
            self.dirty()
        self._log.end()

    def renewed(self) -> SessionLedger | None:
        """The account of the next lease: blocks that hold a connection hold the next one."""
        if not self.holds:
            return None
        renewed = SessionLedger()
        renewed.holds = self.holds
        return renewed

    def dirty(self) -> None:
        """The session may have been changed in ways that no text tells."""
        self._log.left |= {Kind.UNKNOWN}

    def _change(
        self, change: Change, keep: Callable[[Kind], bool], baseline: Baseline | None
    ) -> None:
        kind, name, ledger = change.kind, change.name, self._log
        if change.renames:
            ledger.rename(kind)
            return
        ledger.begin()
        if change.undoes:
            if change.sure:
                ledger.give_back(kind, name)
            if baseline is not None and not baseline.sets(kind, name):
                return
            # What was configured is gone, with it.
        ledger.left |= {kind}
        if keep(kind):
            ledger.keep(kind, name)

    def _move(self, move: Move, aborted: bool) -> bool:
        """Follow the transaction; return whether it is aborted still."""
        control = move.control
        if control is Control.ROLLBACK or (control is Control.COMMIT and aborted):
            self.ended(committed=False)
        elif control is Control.COMMIT:
            self.ended(committed=True)
        elif control is Control.SAVEPOINT:
            self._log.savepoint(move.savepoint)
        elif control is Control.RELEASE:
            self._log.release(move.savepoint)
        else:
            self._log.roll_back_to(move.savepoint)
        return False

    def _failed(
        self,
        steps: Sequence[Step],
        single: bool,
        keep: Callable[[Kind], bool],
        baseline: Baseline | None,
    ) -> None:
        """Some of *steps* may have been taken before the error."""
        for step in steps:
            if isinstance(step, Change) and not (step.kind.transactional or step.undoes):
                self._change(step, keep, baseline)
        moves = any(isinstance(step, Move) for step in steps)
        if moves and not single and not (self.blank and not _makes_state(steps)):
            # It may have committed something, or made a savepoint: nobody knows.
            self._change(_UNKNOWN, keep, baseline)


def _makes_state(steps: Iterable[Step]) -> bool:
    return any(isinstance(step, Change) for step in steps)
