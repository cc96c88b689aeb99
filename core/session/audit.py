"""SessionAudit: which statement of a lease left which state, by the server's own account.

The classifier reads the text of a statement. The audit compares what the server lists before and
after, and so finds what the text does not show. What a transaction undoes itself does not count;
what is still there when the connection would be given back does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from relet.core.sql.effects import ALL, Change, Kind, Step
from relet.core.sql.statements import readings, split

from .snapshot import Piece, Snapshot

#: Statements that call no function begin with these. Some of them run before a transaction has its
#: snapshot. A query of relet's after them would give it another one than the project's first query.
_CONTROL = frozenset(
    {
        *("abort", "begin", "checkpoint", "deallocate", "discard", "listen", "lock", "notify"),
        *("release", "reset", "rollback", "savepoint", "set", "show", "start", "unlisten"),
    }
)
#: The server does not tell whether these are local to the transaction. Of a lock, that is known
#: when the transaction has ended; ROLLBACK undoes the others in any case.
_MAYBE_LOCAL = frozenset({Kind.SETTING, Kind.ROLE, Kind.TEMPORARY, Kind.LOCK})
#: SET SESSION CHARACTERISTICS sets one or more settings whose names begin with this.
_SEVERAL = ("default_transaction",)


def is_control(text: str) -> bool:
    """Return whether no statement in the SQL *text* can call a function."""
    if len(text) > _LONGEST_CONTROL:
        return False
    return all(statement[0].text in _CONTROL for statement in split(readings(text)[0]))


#: The number of characters of a text that is looked at. No such statement is longer.
_LONGEST_CONTROL = 1000


def is_commit(text: str) -> bool:
    """Return whether the SQL *text* is a COMMIT."""
    if len(text) > _LONGEST_CONTROL:
        return False
    found = split(readings(text)[0])
    return len(found) == 1 and found[0][0].text in ("commit", "end")


def rolls_back(text: str) -> bool:
    """Return whether the SQL *text* has a ROLLBACK, which may be one to a savepoint."""
    if len(text) > _LONGEST_CONTROL:
        return False
    return any(statement[0].text == "rollback" for statement in split(readings(text)[0]))


#: So many suspects are named at most.
_MAX_SUSPECTS = 5
#: So many texts of one lease are remembered at most.
_MAX_TEXTS = 1000


@dataclass(frozen=True)
class Ran:
    """A statement that ran.

    :param text: its SQL; empty if it is not known which of several it was.
    :param site: where the project's code ran it. The caller knows what that is.
    :param suspects: the texts of those, or of a COMMIT's transaction.
    """

    text: str
    site: Any = None
    suspects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leak:
    """State that a statement has left, and that its text does not show.

    :param sure: whether it outlives its transaction. It is false inside a test's transaction, where
        the server does not tell a setting from one that is local to the transaction.
    """

    ran: Ran
    kind: Kind
    names: tuple[str, ...]
    sure: bool = True


class SessionAudit:
    """The audit of one lease.

    :ivar last: the newest snapshot; None if there is none yet.
    :ivar seen: the kinds of state that the classifier has seen in texts since no transaction was
        open.
    """

    __slots__ = (
        *("_candidates", "_clean", "_explained", "_idle", "_reference", "_unobserved"),
        *("last", "seen"),
    )

    def __init__(self, reference: Snapshot | None) -> None:
        #: What there was when the connection was leased.
        self._reference = reference
        #: The newest snapshot outside a transaction.
        self._idle = reference
        self.last = reference
        self.seen: set[Kind] = set()
        #: Text -> a statement after which no snapshot could be taken.
        self._unobserved: dict[str, Ran] = {}
        #: Statement -> the pieces of state that it changed unseen.
        self._candidates: dict[Ran, set[Piece]] = {}
        #: Text -> a statement that changed nothing unseen, so far.
        self._clean: dict[str, Ran] = {}
        #: What texts have shown since the last snapshot: kinds, and the setting if it is known.
        self._explained: set[tuple[Kind, str | None]] = set()

    @property
    def inside(self) -> bool:
        """Whether a snapshot was taken since the transaction began."""
        return self.last is not self._idle

    @property
    def pending(self) -> bool:
        """Whether it is not known yet what all statements have left."""
        return bool(self._candidates or self._unobserved)

    @property
    def waiting(self) -> bool:
        """Whether there are statements after which no snapshot could be taken."""
        return bool(self._unobserved)

    @property
    def observed(self) -> bool:
        """Whether statements ran since the connection was leased that are to be judged."""
        return bool(self._candidates or self._unobserved or self._clean)

    def wait(self, ran: Ran) -> None:
        """Record a statement after which no snapshot can be taken.

        It failed inside a transaction, or there is a cursor or a COPY open.
        """
        if len(self._unobserved) < _MAX_TEXTS:
            self._unobserved.setdefault(ran.text, ran)

    def explain(self, steps: Iterable[Step]) -> None:
        """Record what the text of a statement shows, because no snapshot may follow it at once.

        :param steps: its steps, those that are local to the transaction, too.
        """
        for step in steps:
            if isinstance(step, Change):
                name = None
                if step.kind is Kind.SETTING and len(self._explained) < _MAX_TEXTS:
                    name = step.name
                if name in (None, ALL, _SEVERAL):
                    self._explained.add((step.kind, None))
                else:
                    self._explained.add((step.kind, "".join(map(str, name))))

    def refresh(self, now: Snapshot) -> None:
        """Take *now* for what was there before the next statement."""
        if self._reference is None:
            self._reference = self._idle = now
        self.last = now
        self._explained = set()

    def observe(
        self, ran: Ran, now: Snapshot, seen: Collection[Kind], ignored: Collection[str] = ()
    ) -> None:
        """Record what has changed since the last snapshot.

        :param ran: the statement that has run since. If it can have changed nothing itself, those
            are suspected that ran before it and could not be observed.
        :param seen: the kinds of state that its text shows.
        :param ignored: names of settings that relet itself has made.
        """
        before, explained = self.last, self._explained
        culprit = self._suspected() if is_control(ran.text) else ran
        unobserved, self._unobserved = self._unobserved, {}
        self.refresh(now)
        if before is None:
            return
        pieces = {
            piece
            for piece in before.changes(now, ignored)
            if piece.kind not in seen
            and (piece.kind, None) not in explained
            and (piece.kind, piece.name.lower()) not in explained
        }
        if rolls_back(ran.text):
            # This is what came back. Nothing is left of what statements since the savepoint did.
            pieces = {piece for piece in pieces if not piece.kind.transactional}
            self._forget_undone(now, ignored)
        if pieces and culprit is not None:
            self._candidates.setdefault(culprit, set()).update(pieces)
        for each in (*unobserved.values(), ran):
            if each.suspects or len(self._clean) >= _MAX_TEXTS:
                continue
            if not (is_control(each.text) or is_commit(each.text)):
                self._clean.setdefault(each.text, each)

    def _forget_undone(self, now: Snapshot, ignored: Collection[str]) -> None:
        """Forget what statements changed and ROLLBACK TO has undone."""
        left = self._left(now, ignored)
        for ran, pieces in list(self._candidates.items()):
            self._candidates[ran] = {
                each for each in pieces if not each.kind.transactional or left(each)
            }
            if not self._candidates[ran]:
                del self._candidates[ran]

    def _left(self, now: Snapshot, ignored: Collection[str]) -> Callable[[Piece], bool]:
        """Return what tells whether a piece that a statement changed still differs.

        It is so if it differs from what it was when the connection was leased, and also from what
        it was before the transaction. A transaction's end brings back what it was before.
        """
        befores = [each for each in (self._reference, self._idle) if each is not None]
        changes = [each.changes(now, ignored) for each in befores]
        names = [{(piece.kind, piece.name) for piece in changed} for changed in changes]

        def left(piece: Piece) -> bool:
            if piece.kind in (Kind.SETTING, Kind.ROLE):
                # Its value may have changed again.
                return all((piece.kind, piece.name) in each for each in names)
            return all(piece in changed for changed in changes)

        return left

    def _suspected(self) -> Ran | None:
        """Return the statement after which no snapshot could be taken; None if there is none."""
        ran = list(self._unobserved.values())
        if len(ran) < 2:
            return ran[0] if ran else None
        return Ran("", ran[0].site, tuple(each.text for each in ran[:_MAX_SUSPECTS]))

    def skip(self, now: Snapshot) -> None:
        """Forget what ran since the last snapshot: something else undoes what it has left."""
        self.refresh(now)
        self._unobserved = {}

    def suspect(self) -> Ran:
        """Return what to blame for state that appears when no statement has just run.

        It is what could not be observed. Else a transaction has committed: LISTEN takes effect
        there, and deferred triggers run. Which statement made them is known only if there was a
        single one.
        """
        if (waiting := self._suspected()) is not None:
            return waiting
        ran = list(self._clean.values())
        if len(ran) == 1:
            return ran[0]
        texts = tuple(each.text for each in ran[-_MAX_SUSPECTS:])
        return Ran("COMMIT", ran[-1].site if ran else None, texts)

    def settle(
        self,
        now: Snapshot,
        ignored: Collection[str] = (),
        *,
        in_test: bool = False,
        wait: bool = False,
    ) -> list[Leak]:
        """Return what is left of what statements changed, and forget these statements.

        :param now: the snapshot of the moment at which the connection would be given back.
        :param in_test: whether a test's own transaction is open, which will be rolled back.
        :param wait: whether to leave locks for later, when that transaction will have ended.
        """
        if self._reference is None:
            return []
        is_left = self._left(now, ignored)
        leaks: list[Leak] = []
        kept: dict[Ran, set[Piece]] = {}
        for ran, pieces in self._candidates.items():
            locks = {each for each in pieces if each.kind is Kind.LOCK}
            # They outlast the test's transaction, and have to be undone then.
            lasting = {each for each in pieces if not each.kind.transactional}
            if in_test and lasting:
                kept[ran] = lasting
            left = filter(is_left, pieces - (locks if wait else set()))
            leaks += _leaks(ran, left, in_test)
        self._candidates = kept
        if not in_test:
            self._idle = now
        return leaks

    def clean(self, leaks: Iterable[Leak]) -> list[str]:
        """Return the texts that have left nothing unseen, and forget them.

        :param leaks: what the other texts have left.
        """
        guilty: set[str] = set()
        for ran in (*self._candidates, *(leak.ran for leak in leaks)):
            guilty |= {ran.text, *ran.suspects}
        texts = [text for text in self._clean if text not in guilty]
        self._clean = {}
        return texts


def _leaks(ran: Ran, left: Iterable[Piece], in_test: bool) -> list[Leak]:
    names: dict[Kind, set[str]] = {}
    for piece in left:
        names.setdefault(piece.kind, set()).add(piece.name)
    return [
        Leak(ran, kind, tuple(sorted(names[kind])), sure=not (in_test and kind in _MAYBE_LOCAL))
        for kind in sorted(names, key=lambda kind: kind.name)
    ]
