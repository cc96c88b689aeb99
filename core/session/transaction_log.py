"""TransactionLog: session state that was made and undone, with transactions and savepoints.

Each entry is written once and taken back at most once, so the total time is linear, however many
savepoints there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from relet.core.sql.effects import ALL, Kind

Key = tuple[Any, ...] | None


class _Mark(NamedTuple):
    """The beginning of a transaction, or a savepoint.

    :param savepoint: the savepoint's name; None for the beginning of a transaction.
    :param length: the length of the log at that point.
    :param left: the kinds of state that were left at that point.
    """

    savepoint: str | None
    length: int
    left: frozenset[Kind]


class TransactionLog:
    """The state that keeps a lease, and the state to undo, across transactions and savepoints.

    ROLLBACK undoes transactional state and nothing else.
    """

    __slots__ = ("_counts", "_log", "_marks", "_positions", "left")

    def __init__(self) -> None:
        #: The kinds of state that are left.
        self.left: frozenset[Kind] = frozenset()
        #: Kind -> name -> how often it was made.
        self._counts: dict[Kind, dict[Key, int]] = {}
        #: The changes since the first mark: kind, name, and the count before.
        self._log: list[tuple[Kind, Key, int]] = []
        #: The transaction's beginning, then its savepoints. Empty outside a transaction.
        self._marks: list[_Mark] = []
        #: Savepoint -> the positions of its marks in `_marks`.
        self._positions: dict[str | None, list[int]] = {}

    @property
    def kinds_kept(self) -> frozenset[Kind]:
        """The kinds of state that keep the lease."""
        return frozenset(self._counts)

    @property
    def is_empty(self) -> bool:
        """Whether no state is left and no transaction is open."""
        return not (self.left or self._marks)

    # State.

    def add(self, kind: Kind, name: Key) -> None:
        """Record that state was made which keeps the lease."""
        self._set(kind, name, self._count(kind, name) + 1)

    def remove(self, kind: Kind, name: Key) -> None:
        """Record that state was undone."""
        if name == ALL:
            for each in list(self._counts.get(kind, ())):
                self._set(kind, each, 0)
        else:
            count = self._count(kind, name)
            # Only locks can be taken several times under one name.
            self._set(kind, name, max(count - 1, 0) if kind is Kind.LOCK else 0)

    def forget_names(self, kind: Kind) -> None:
        """Record that state of *kind* may have been renamed, so no name removes it any more."""
        if count := sum(self._counts.get(kind, {}).values()):
            self.begin()
            self.remove(kind, ALL)
            self._set(kind, None, count)

    def _count(self, kind: Kind, name: Key) -> int:
        return self._counts.get(kind, {}).get(name, 0)

    def _set(self, kind: Kind, name: Key, count: int) -> None:
        before = self._count(kind, name)
        if before != count:
            self._log.append((kind, name, before))
            self._put(kind, name, count)

    def _put(self, kind: Kind, name: Key, count: int) -> None:
        names = self._counts.setdefault(kind, {})
        if count:
            names[name] = count
        else:
            names.pop(name, None)
        if not names:
            del self._counts[kind]

    # Transactions.

    def begin(self) -> None:
        """Record that a transaction is open: an explicit one, or that of a single statement."""
        if not self._marks:
            self._mark(None)

    def end(self) -> None:
        """Record that no transaction is open."""
        self._marks.clear()
        self._positions.clear()
        self._log.clear()

    def savepoint(self, name: str) -> None:
        self.begin()
        self._mark(name)

    def release(self, name: str) -> None:
        if position := self._find(name):
            self._drop_marks(position)

    def roll_back_to(self, name: str) -> None:
        position = self._find(name)
        self._roll_back(position)
        self._drop_marks(position + 1)

    def roll_back(self) -> None:
        self._roll_back(0)

    def _mark(self, savepoint: str | None) -> None:
        self._positions.setdefault(savepoint, []).append(len(self._marks))
        self._marks.append(_Mark(savepoint, len(self._log), self.left))

    def _find(self, savepoint: str) -> int:
        """Return the position of the newest mark of *savepoint*.

        It is 0, the transaction's beginning, if the savepoint is older than the log.
        """
        positions = self._positions.get(savepoint)
        return positions[-1] if positions else 0

    def _drop_marks(self, position: int) -> None:
        """Drop all marks from *position* on."""
        for mark in reversed(self._marks[position:]):
            positions = self._positions[mark.savepoint]
            positions.pop()
            if not positions:
                del self._positions[mark.savepoint]
        del self._marks[position:]

    def _roll_back(self, position: int) -> None:
        """Take back what was logged since the mark at *position*."""
        if not self._marks:
            return
        mark = self._marks[position]
        while len(self._log) > mark.length:
            kind, name, count = self._log.pop()
            if kind.transactional:
                self._put(kind, name, count)
        self.left = frozenset(
            kind for kind in mark.left | self.left if (kind in mark.left) or not kind.transactional
        )
