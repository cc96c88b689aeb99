"""PlanBook: what is known of the statements of a pool, for those who prepare them."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from relet.core.locks import locked

from .counts import PlanCounts
from .eligible import is_preparable, refusal
from .sessions import Prepared, SessionPlans, Stale
from .targets import Target, Targets
from .texts import Shape, Text
from .trial import Trial, is_slower

#: How many ``relet.prepared`` blocks this thread or task is in. In one, statements become targets.
BLOCK: ContextVar[int] = ContextVar("relet.prepared", default=0)

#: The number and length of texts that are remembered. Longer ones are bulk statements.
_MOST_TEXTS, _LONGEST = 10_000, 20_000
#: Commands that drop all that the session has prepared.
_FORGETS = re.compile(r"\s*(?:deallocate\s+(?:prepare\s+)?|discard\s+)all\b", re.IGNORECASE)

#: After how many executions of a statement in a session its times are looked at, and how many of
#: them must have had a custom plan.
_LOOK_EVERY, _LEAST_CUSTOM = 25, 4

#: Why a pool prepares nothing behind a pooler.
POOLER = (
    "a pooler between this process and the server does not keep them apart; with psycopg, set "
    "max_prepared_statements of PgBouncer 1.21 or newer"
)


class Texts(dict[str, "Text | bool | None"]):
    """What is known of each text: one look-up for a text seen before.

    It is a `Text`; None if it is none to prepare; or True if it drops what is prepared.
    """

    def __init__(self, judge: Callable[[str], Text | bool | None]) -> None:
        super().__init__()
        self._judge = judge

    def __missing__(self, sql: str) -> Text | bool | None:
        if len(sql) > _LONGEST:
            return None
        text = self._judge(sql)
        if len(self) >= _MOST_TEXTS:
            self.clear()
        self[sql] = text
        return text


class PlanBook:
    """The statements of one pool, and the sessions that have prepared them.

    :param after: prepare each text that was run more often than this; None for targets only.
    :param most: how many statements each session keeps prepared. One takes about 80 kB there.
    :param tell: logs a warning; called in the middle of a statement.
    :param matched: called with a target when a text is first seen that it matches, and when it
        cannot be prepared.
    :ivar epoch: sessions that have an older one prepare anew.
    :ivar off: why nothing is prepared any more, as the end of a sentence; or "".
    :ivar checked: whether it is known that no pooler stands before the server.
    """

    def __init__(
        self,
        targets: Targets,
        *,
        after: int | None = None,
        most: int = 100,
        tell: Callable[[str], object] = lambda message: None,
        matched: Callable[[Target], object] = lambda target: None,
    ) -> None:
        self.targets = targets
        self.alias = targets.alias
        self.after = after
        self.most = most
        self.epoch = 0
        self.off = ""
        self.checked = False
        self.texts = Texts(self._read)
        self._tell = tell
        self._matched = matched
        self._lock = threading.RLock()
        self._blocks = False
        self._told: set[str] = set()
        self._sessions: dict[weakref.ref[Any], SessionPlans] = {}

    # Texts.

    def _read(self, sql: str) -> Text | bool | None:
        if not is_preparable(sql):
            return True if _FORGETS.match(sql) else None
        target = self.targets.find(sql)
        if target is None and self.after is None and not self._blocks:
            return None
        reason = refusal(sql)
        if target is not None:
            if reason:
                self.refuse(target, reason)
            else:
                self._matched(target)
        return None if reason else Text(sql, target)

    def find(self, sql: str) -> Text | bool | None:
        """Return the text *sql* if it is to be prepared; True if it drops what is prepared."""
        text = self.texts[sql]
        if not isinstance(text, Text) or text.target is not None:
            return text
        return self._candidate(text)

    def _candidate(self, text: Text) -> Text | None:
        text.seen += 1
        if BLOCK.get() or (self.after is not None and text.seen > self.after):
            text.target = self.targets.found(text.sql)
            return None if text.target is None else text
        return None

    def read_again(self) -> None:
        """Judge all texts again, because there are other targets."""
        self.texts.clear()

    def open_to_blocks(self) -> None:
        """Let blocks make targets of their statements, from now on."""
        if not self._blocks:
            self._blocks = True
            self.texts.clear()

    # Sessions.

    def new_session(self, raw: Any) -> SessionPlans:
        """Return the plans of the session of *raw*, a driver's connection: none yet."""
        session = SessionPlans(self.epoch)
        key = weakref.ref(raw)

        def add() -> None:
            for each in list(self._sessions):
                if each() is None:
                    self._fold(self._sessions.pop(each).drop(0, gone=True))
            self._sessions[key] = session

        locked(self._lock, add)
        return session

    def _fold(self, dropped: Iterable[Stale]) -> None:
        for shape, prepared in dropped:
            shape.target.ended.add(prepared.counts)

    def fold(self, dropped: list[Stale]) -> None:
        """Keep the counts of what a session has dropped."""
        locked(self._lock, lambda: self._fold(dropped))

    def renew(self) -> None:
        """Have all sessions prepare anew, each when it is next used."""
        self.epoch += 1

    def expired(self, session: SessionPlans) -> None:
        """Drop what *session* has prepared in an older epoch."""
        self.fold(session.drop(self.epoch, gone=False))

    def lost(self, session: SessionPlans) -> None:
        """Forget what *session* had prepared: it has dropped it itself."""
        self.fold(session.drop(self.epoch, gone=True))

    def make_room(self, session: SessionPlans) -> None:
        """Drop what *session* has not used for longest, if it has too much."""
        if len(session.prepared) >= self.most:
            self.fold(session.evict(self.most))

    def prepared_by(self) -> list[SessionPlans]:
        """Return the plans of the sessions that are open."""
        return [plans for raw, plans in list(self._sessions.items()) if raw() is not None]

    def counts(self, target: Target) -> tuple[PlanCounts, int]:
        """Return the counts of *target* in the open sessions of this pool, and their number."""
        found, sessions = PlanCounts(), 0
        for plans in self.prepared_by():
            mine = [each for shape, each in list(plans.prepared.items()) if shape.target is target]
            sessions += bool(mine)
            for prepared in mine:
                found.add(prepared.counts)
        return found, sessions

    # The choice of a plan.

    def executed(self, prepared: Prepared, target: Target, mode: str, seconds: float) -> None:
        """Count an execution of *prepared*, which has parameters, and see what it says of its plan.

        :param mode: how it was run; see `Target.next_mode`.
        :param seconds: how long it took.
        """
        prepared.counts.add_run(mode, seconds)
        if (trial := target.trial) is not None:
            if mode in ("custom", "auto"):
                trial.add(mode, seconds)
            if trial.ended:
                self._end_trial(target, trial)
        elif target.mode == "auto" and prepared.counts.runs % _LOOK_EVERY == 0:
            self._look(target)

    def _look(self, target: Target) -> None:
        """Begin a trial if the generic plan of *target* seems to be slower than custom ones."""
        counts, _ = self.counts(target)
        counts.add(target.ended)
        custom, generic = counts.custom_mean, counts.generic_mean
        if (
            custom is not None
            and generic is not None
            and counts.custom >= _LEAST_CUSTOM
            and counts.runs >= target.next_trial
            and is_slower(generic, custom)
        ):
            # If it finds nothing, the suspicion will remain.
            target.next_trial = 10 * counts.runs
            target.trial = Trial()

    def _end_trial(self, target: Target, trial: Trial) -> None:
        target.trial = None
        custom, generic = trial.medians
        if is_slower(generic, custom):
            target.mode = "custom"
            target.problem = (
                f"its generic plan takes {generic * 1e3:.3g} ms, plans for its values "
                f"{custom * 1e3:.3g} ms: it is planned for its values again"
            )
            self.tell_once(target, target.problem)

    # What the user should know.

    def refuse(self, target: Target, reason: str) -> None:
        """Note that statements of *target* are not prepared, and log it once."""
        target.problem = f"not prepared: {reason}"
        self._matched(target)
        self.tell_once(target, target.problem)

    def turn_off(self, reason: str) -> None:
        """Prepare nothing any more, in this pool."""
        if not self.off:
            self.off = reason
            self._tell(f"DATABASES[{self.alias!r}]: statements are not prepared: {reason}.")

    def tell_once(self, target: Target, text: str) -> None:
        if target.name not in self._told:
            self._told.add(target.name)
            self._tell(f"DATABASES[{self.alias!r}]: target {target.name!r}: {text}.")


def advice(alias: str, shape: Shape, error: object) -> str:
    """Return the text of the error for a statement whose plan was no good, in a transaction."""
    return (
        f"DATABASES[{alias!r}]: the prepared plan of target {shape.target.name!r} is no longer "
        f"valid: {error}. Nothing can be run again inside of a transaction, so run the whole "
        "transaction again: it is prepared anew then. Deploy changes of tables before the code "
        "that uses them."
    )
