"""SessionState: what a lease's owner has left in the session.

The account of one lease. It is told which statements ran and how the transaction went; it
says what is left, and whether that is to be kept. `relet.core.baseline` undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .baseline import Baseline
from .effects import ALL, Change, Control, Kind, Move, Step
from .status import TransactionStatus

_IDLE, _IN_ERROR = TransactionStatus.IDLE, TransactionStatus.IN_ERROR

_UNKNOWN = Change(Kind.UNKNOWN, None)

Key = tuple[Kind, tuple[Any, ...] | None]


@dataclass(frozen=True)
class _Mark:
    """What there was at the beginning of a transaction, or at a savepoint."""

    savepoint: str | None
    kept: dict[Key, int]
    left: frozenset[Kind]


class SessionState:
    """What the owner of one lease has left in its session.

    ROLLBACK takes back what is transactional (SET, LISTEN, temporary objects), and
    nothing else (advisory locks, PREPARE, nextval). ROLLBACK TO does so since the
    savepoint. What cannot be known counts as left.
    """

    __slots__ = ("_kept", "_left", "_marks", "holds", "texts")

    def __init__(self) -> None:
        #: ``hold()`` blocks that are open: one connection serves them all.
        self.holds = 0
        #: The texts of the open transaction -> the kinds of state by which they keep the lease.
        self.texts: dict[str, frozenset[Kind]] = {}
        self._kept: dict[Key, int] = {}
        self._left: frozenset[Kind] = frozenset()
        #: The transaction's beginning, then its savepoints; empty while none is open.
        self._marks: list[_Mark] = []

    @property
    def keeps(self) -> bool:
        """Whether it keeps the lease."""
        return self.holds > 0 or bool(self._kept)

    @property
    def left(self) -> frozenset[Kind]:
        """The kinds of state that are to be undone before others get the connection."""
        # Whoever holds a connection may have called functions that change it.
        return self._left | {Kind.UNKNOWN} if self.holds else self._left

    @property
    def blank(self) -> bool:
        """Whether there is nothing to keep account of."""
        return not (self.holds or self._left or self._marks)

    @property
    def kinds_kept(self) -> frozenset[Kind]:
        """The kinds of state that keep the lease."""
        return frozenset(kind for kind, _ in self._kept)

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
        :param ok: whether it ran without an error of the server's; None if an interrupt
            came, before its end or after it.
        :param single: whether it is one statement.
        :param keep: whether state of that kind keeps the lease.
        :param baseline: the session's, if it is known.
        """
        if before == _IDLE:
            self._marks.clear()
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
                self._roll_back_to(0)
        if after == _IDLE:
            self._marks.clear()

    def ended(self, *, committed: bool | None) -> None:
        """The transaction has ended; None is that nobody knows how."""
        if committed is False:
            self._roll_back_to(0)
        elif committed is None:
            self.dirty()
        self._marks.clear()

    def renewed(self) -> SessionState | None:
        """The account of the next lease: blocks that hold a connection hold the next one."""
        if not self.holds:
            return None
        renewed = SessionState()
        renewed.holds = self.holds
        return renewed

    def dirty(self) -> None:
        """The session may have been changed in ways that no text tells."""
        self._left |= {Kind.UNKNOWN}

    def _change(
        self, change: Change, keep: Callable[[Kind], bool], baseline: Baseline | None
    ) -> None:
        kind, name = change.kind, change.name
        if change.renames:
            self._rename(kind)
            return
        self._begin()
        if change.back:
            if change.sure:
                self._give_back(kind, name)
            if baseline is not None and not baseline.sets(kind, name):
                return
            # What was configured is gone, with it.
        self._left |= {kind}
        if keep(kind):
            key = kind, name
            self._kept[key] = self._kept.get(key, 0) + 1

    def _give_back(self, kind: Kind, name: tuple[Any, ...] | None) -> None:
        if name == ALL:
            self._kept = {key: n for key, n in self._kept.items() if key[0] is not kind}
        elif kind is Kind.LOCK and self._kept.get((kind, name), 0) > 1:
            self._kept[kind, name] -= 1
        else:
            self._kept.pop((kind, name), None)

    def _rename(self, kind: Kind) -> None:
        """No name of that kind tells any more what it is that is given back."""
        count = sum(n for key, n in self._kept.items() if key[0] is kind)
        if count:
            self._begin()
            self._give_back(kind, ALL)
            self._kept[kind, None] = count

    def _begin(self) -> None:
        if not self._marks:
            self._mark(None)

    def _mark(self, savepoint: str | None) -> None:
        self._marks.append(_Mark(savepoint, dict(self._kept), self._left))

    def _move(self, move: Move, aborted: bool) -> bool:
        """Follow the transaction; return whether it is aborted still."""
        control = move.control
        if control is Control.ROLLBACK or (control is Control.COMMIT and aborted):
            self.ended(committed=False)
        elif control is Control.COMMIT:
            self.ended(committed=True)
        elif control is Control.SAVEPOINT:
            self._begin()
            self._mark(move.savepoint)
        elif control is Control.RELEASE:
            if position := self._find(move.savepoint):
                del self._marks[position:]
        else:
            position = self._find(move.savepoint)
            self._roll_back_to(position)
            del self._marks[position + 1 :]
        return False

    def _find(self, savepoint: str) -> int:
        """The position of its mark; that of the transaction's beginning if it is older."""
        for position in range(len(self._marks) - 1, 0, -1):
            if self._marks[position].savepoint == savepoint:
                return position
        return 0

    def _roll_back_to(self, position: int) -> None:
        if not self._marks:
            return
        mark = self._marks[position]
        kept = {key: n for key, n in mark.kept.items() if key[0].transactional}
        kept.update((key, n) for key, n in self._kept.items() if not key[0].transactional)
        self._kept = kept
        transactional = (kind for kind in mark.left if kind.transactional)
        self._left = frozenset(transactional).union(
            kind for kind in self._left if not kind.transactional
        )

    def _failed(
        self,
        steps: Sequence[Step],
        single: bool,
        keep: Callable[[Kind], bool],
        baseline: Baseline | None,
    ) -> None:
        """Some of *steps* may have been taken before the error."""
        for step in steps:
            if isinstance(step, Change) and not (step.kind.transactional or step.back):
                self._change(step, keep, baseline)
        moves = any(isinstance(step, Move) for step in steps)
        if moves and not single and not (self.blank and not _makes_state(steps)):
            # It may have committed something, or made a savepoint: nobody knows.
            self._change(_UNKNOWN, keep, baseline)


def _makes_state(steps: Iterable[Step]) -> bool:
    return any(isinstance(step, Change) for step in steps)
