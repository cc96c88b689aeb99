"""TransactionLog: what was made and given back in a session, and how a transaction takes it back.

Each entry is written once, and struck out once at most, so that it takes linear time however many
savepoints there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from relet.core.sql.effects import ALL, Kind

Key = tuple[Any, ...] | None


class _Mark(NamedTuple):
    """What there was at the beginning of a transaction, or at a savepoint."""

    savepoint: str | None
    #: How long the log was.
    length: int
    left: frozenset[Kind]


class TransactionLog:
    """What keeps a lease, and what is left to be undone, through transactions and savepoints.

    ROLLBACK takes back what is transactional, and nothing else.
    """

    __slots__ = ("_kept", "_log", "_marks", "_places", "left")

    def __init__(self) -> None:
        #: The kinds of state that are left.
        self.left: frozenset[Kind] = frozenset()
        #: Kind -> name -> how often it was made.
        self._kept: dict[Kind, dict[Key, int]] = {}
        #: What was changed since the first mark: kind, name, how often it was made before.
        self._log: list[tuple[Kind, Key, int]] = []
        #: The transaction's beginning, then its savepoints; empty while none is open.
        self._marks: list[_Mark] = []
        #: Savepoint -> where its marks are.
        self._places: dict[str | None, list[int]] = {}

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of state that are kept."""
        return frozenset(self._kept)

    @property
    def blank(self) -> bool:
        """Whether there is nothing to keep account of."""
        return not (self.left or self._marks)

    # State.

    def keep(self, kind: Kind, name: Key) -> None:
        """It was made, and is kept."""
        self._set(kind, name, self._count(kind, name) + 1)

    def give_back(self, kind: Kind, name: Key) -> None:
        """It is there no more."""
        if name == ALL:
            for each in list(self._kept.get(kind, ())):
                self._set(kind, each, 0)
        else:
            count = self._count(kind, name)
            # Of all others, there is one of a name.
            self._set(kind, name, max(count - 1, 0) if kind is Kind.LOCK else 0)

    def rename(self, kind: Kind) -> None:
        """No name of that kind tells any more what it is that is given back."""
        if count := sum(self._kept.get(kind, {}).values()):
            self.begin()
            self.give_back(kind, ALL)
            self._set(kind, None, count)

    def _count(self, kind: Kind, name: Key) -> int:
        return self._kept.get(kind, {}).get(name, 0)

    def _set(self, kind: Kind, name: Key, count: int) -> None:
        before = self._count(kind, name)
        if before != count:
            self._log.append((kind, name, before))
            self._put(kind, name, count)

    def _put(self, kind: Kind, name: Key, count: int) -> None:
        names = self._kept.setdefault(kind, {})
        if count:
            names[name] = count
        else:
            names.pop(name, None)
        if not names:
            del self._kept[kind]

    # Transactions.

    def begin(self) -> None:
        """A transaction is open, or a statement is one by itself."""
        if not self._marks:
            self._mark(None)

    def end(self) -> None:
        """None is open any more."""
        self._marks.clear()
        self._places.clear()
        self._log.clear()

    def savepoint(self, name: str) -> None:
        self.begin()
        self._mark(name)

    def release(self, name: str) -> None:
        if place := self._find(name):
            self._cut(place)

    def roll_back_to(self, name: str) -> None:
        place = self._find(name)
        self._roll_back(place)
        self._cut(place + 1)

    def roll_back(self) -> None:
        self._roll_back(0)

    def _mark(self, savepoint: str | None) -> None:
        self._places.setdefault(savepoint, []).append(len(self._marks))
        self._marks.append(_Mark(savepoint, len(self._log), self.left))

    def _find(self, savepoint: str) -> int:
        """The position of its newest mark; that of the transaction's beginning if it is older."""
        places = self._places.get(savepoint)
        return places[-1] if places else 0

    def _cut(self, place: int) -> None:
        for mark in reversed(self._marks[place:]):
            places = self._places[mark.savepoint]
            places.pop()
            if not places:
                del self._places[mark.savepoint]
        del self._marks[place:]

    def _roll_back(self, place: int) -> None:
        if not self._marks:
            return
        mark = self._marks[place]
        while len(self._log) > mark.length:
            kind, name, count = self._log.pop()
            if kind.transactional:
                self._put(kind, name, count)
        self.left = frozenset(
            kind for kind in mark.left | self.left if (kind in mark.left) or not kind.transactional
        )
