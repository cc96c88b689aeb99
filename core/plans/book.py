"""PlanBook: what is known of the statements of a pool, for those who prepare them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

from relet.core.locks import locked
from relet.core.sql.quoting import quote_literal

from .counts import PlanCounts
from .disturbances import Disturbance, disturbance, of_changes
from .eligible import is_preparable, refusal
from .sessions import Prepared, SessionPlans, Stale
from .targets import Target, Targets
from .texts import Shape, Text
from .trial import Trial, is_slower

#: How many ``relet.prepared`` blocks this thread or task is in. In one, statements become targets.
BLOCK: ContextVar[int] = ContextVar("relet.prepared", default=0)

#: The number of texts that are remembered, of their characters together, and of one: longer ones
#: are bulk statements.
_MOST_TEXTS, _MOST_CHARACTERS, _LONGEST = 10_000, 8_000_000, 20_000

#: After how many executions of a statement in a session its times are looked at, and how many of
#: them must have had a custom plan.
_LOOK_EVERY, _LEAST_CUSTOM = 25, 4

#: SQLSTATE of a statement that is analyzed anew and does not fit the types of its parameters any
#: more: no such operator or cast, another type, a type that was looked up by number and has gone.
_OF_OLD_TYPES = ("42704", "42725", "42804", "42846", "42883", "42P18", "XX000")
#: SQLSTATE of what has failed at this moment, and may succeed at the next: whoever prepares has not
#: learnt anything of the statement. Read-only sessions, lost connections, conflicts, limits, locks,
#: cancellations and the system.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_OF_THE_MOMENT = ("08", "25", "40", "53", "55", "57", "58")


def is_refusal(state: str) -> bool:
    """Return whether an error with the SQLSTATE *state* says that a text cannot be prepared."""
    return not state.startswith(_OF_THE_MOMENT)


class PlanError(NamedTuple):
    """An error of the server's.

    :param function: the function of the server's that has raised it.
    :param file: the file of its source that has it.
    :param context: where in the code of functions that was.
    """

    state: str
    function: str
    message: str
    file: str = ""
    context: str = ""

    @property
    def is_of_code(self) -> bool:
        """Whether the statement ran: a function, a trigger, or a look at a setting has failed."""
        # Words of the context are translated, but the names of languages are not. While parameters
        # are bound, there is a context as well.
        return self.file == "guc.c" or "SQL" in self.context or "PL/" in self.context


#: Why a pool prepares nothing behind a pooler.
POOLER = (
    "a pooler between this process and the server does not keep them apart; with psycopg, set "
    "max_prepared_statements of PgBouncer 1.21 or newer"
)


#: What is known of a text: None if it is none to prepare.
Known = Text | Disturbance | None


class Texts(dict[str, Known]):
    """What is known of each text: one look-up for a text seen before."""

    def __init__(self, judge: Callable[[str], Known]) -> None:
        super().__init__()
        self._judge = judge
        self._characters = 0

    def __missing__(self, sql: str) -> Known:
        if len(sql) > _LONGEST:
            return None
        text = self._judge(sql)
        self._characters += len(sql)
        if len(self) >= _MOST_TEXTS or self._characters > _MOST_CHARACTERS:
            self.clear()
        self[sql] = text
        return text

    def clear(self) -> None:
        super().clear()
        self._characters = 0


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
    :ivar renames: whether one stands there that gives the server names of its own.
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
        self.renames = False
        self.texts = Texts(self._read)
        #: Called with each new session: the driver may drop what it has prepared.
        self.attach: Callable[[Any, SessionPlans], object] = lambda raw, session: None
        self._tell = tell
        self._matched = matched
        self._lock = threading.RLock()
        self._blocks = False
        self._told: set[str] = set()
        self._sessions: dict[weakref.ref[Any], SessionPlans] = {}

    # Texts.

    def _read(self, sql: str) -> Known:
        if found := disturbance(sql):
            if (target := self.targets.find(sql)) is not None:
                self.refuse(target, "it changes what other statements mean")
            return found
        if not is_preparable(sql):
            return None
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

    def find(self, sql: str) -> Known:
        """Return what is known of *sql*; None if it is run as it is."""
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
        """Return the plans of the session of *raw*, a driver's connection: none yet.

        From now on they are its attribute ``relet_plans``.
        """
        session: SessionPlans = SessionPlans(self.epoch)
        raw.relet_plans = session
        self.attach(raw, session)
        key = weakref.ref(raw)

        def add() -> None:
            self._fold_ended()
            self._sessions[key] = session

        locked(self._lock, add)
        return session

    def _fold(self, dropped: Iterable[Stale]) -> None:
        for shape, prepared in dropped:
            shape.target.ended.add(prepared.counts)

    def _fold_ended(self) -> None:
        for each in list(self._sessions):
            if each() is None:
                self._fold(self._sessions.pop(each).drop(0, gone=True))

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

    def disturb(self, session: SessionPlans, what: Disturbance, *, in_transaction: bool) -> None:
        """Note that *session* has run a statement that does *what*.

        :param in_transaction: whether its transaction goes on.
        """
        if Disturbance.FORGETS in what:
            self.lost(session)
            what &= ~Disturbance.FORGETS
        if what:
            session.doubt(what)
            if not in_transaction:
                self.settle(session)

    def settle(self, session: SessionPlans) -> None:
        """End the doubts about *session* that have ended with its transaction."""
        if not session.doubtful or Disturbance.SETS in session.doubts:
            return
        doubts = session.settle()
        if Disturbance.DEFINES in doubts:
            self.renew()
        elif Disturbance.DEFINES_HERE in doubts:
            self.expired(session)

    def transaction_ended(self, raw: Any) -> None:
        """Note that no transaction is open in the session of *raw* any more."""
        session: SessionPlans | None = getattr(raw, "relet_plans", None)
        if session is not None and session.doubtful:
            self.settle(session)

    def changed(self, raw: Any, changes: Iterable[object], *, in_transaction: bool) -> None:
        """Note changes of session state in the session of *raw*, such as those of a function."""
        if what := of_changes(changes):
            session: SessionPlans | None = getattr(raw, "relet_plans", None)
            if session is None:  # it has prepared nothing yet, and is not to do so now
                session = self.new_session(raw)
            self.disturb(session, what, in_transaction=in_transaction)

    def restored(self, raw: Any, settings: Hashable = None) -> None:
        """Note that the settings in the session of *raw* are those of all sessions again.

        :param settings: what was set since, if anything was.
        """
        session: SessionPlans | None = getattr(raw, "relet_plans", None)
        if session is not None:
            session.doubts &= ~Disturbance.SETS
            if settings is not None:
                session.change_settings(settings)

    def proof(self, raw: Any) -> str:
        """Return SQL that fails if the session of *raw* has lost what it had prepared; or nothing.

        Code that relet cannot see may have dropped it, such as by DISCARD ALL. A transaction that
        finds out can only fail.
        """
        session: SessionPlans | None = getattr(raw, "relet_plans", None)
        if session is None or self.renames:
            return ""
        names = {each.prepared.name for each in session}
        if not names:
            return ""
        listed = ", ".join(map(quote_literal, sorted(names)))
        return (
            f"SELECT 1 / (pg_catalog.count(*) = {len(names)})::pg_catalog.int4"
            f" FROM pg_catalog.pg_prepared_statements WHERE name IN ({listed})"
        )

    def make_room(self, session: SessionPlans) -> None:
        """Drop what *session* has not used for longest, if it has too much."""
        if len(session) >= self.most:
            self.fold(session.evict(self.most))

    def prepared_by(self) -> list[SessionPlans]:
        """Return the plans of the sessions that are open."""
        return [plans for raw, plans in list(self._sessions.items()) if raw() is not None]

    def counts(self, target: Target) -> tuple[PlanCounts, int]:
        """Return the counts of *target* in the open sessions of this pool, and their number.

        Those of the others are in `Target.ended`, once this has returned.
        """
        locked(self._lock, self._fold_ended)
        found, sessions = PlanCounts(), 0
        for plans in self.prepared_by():
            mine = [prepared for shape, prepared in plans if shape.target is target]
            sessions += bool(mine)
            for prepared in mine:
                found.add(prepared.counts)
        return found, sessions

    # Plans that are no good.

    def is_lost(
        self, session: SessionPlans, shape: Shape, prepared: Prepared, error: PlanError
    ) -> bool:
        """Return whether *error* may say that a plan of *session* is no good; drop its plans if so.

        :param prepared: the one that has failed, without having done anything.
        """
        if error.is_of_code:
            return False
        gone = error.state == "26000" and shape.digest in error.message
        other_columns = error.state == "0A000" and error.function == "RevalidateCachedQuery"
        # Parameters keep the types that they had when the statement was prepared. But if it has
        # never run with these, it is wrong, prepared or not.
        other_types = error.state in _OF_OLD_TYPES and prepared.counts.runs > 0
        if not (gone or other_columns or other_types):
            return False
        self.renew()
        self.fold(session.drop(self.epoch, gone=gone))
        return True

    # The choice of a plan.

    def executed(self, prepared: Prepared, target: Target, mode: str, seconds: float) -> None:
        """Count an execution of *prepared*, which has parameters, and see what it says of its plan.

        :param mode: how it was run; see `Target.next_mode`.
        :param seconds: how long it took.
        """
        counts = prepared.counts
        counts.add_run(mode, seconds)
        if (trial := target.trial) is not None:
            if mode in ("custom", "auto"):
                trial.add(mode, seconds)
            if trial.ended:
                self._end_trial(target, trial)
        elif counts.runs % _LOOK_EVERY == 0 and target.mode == "auto":
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


def advice(alias: str, shape: Shape, error: str) -> str:
    """Return the text of the error for a statement whose plan was no good, in a transaction.

    :param error: the first line of what the server said.
    """
    return (
        f"{error}\nDATABASES[{alias!r}]: the prepared plan of target {shape.target.name!r} is no "
        "longer valid. Nothing can be run again inside a transaction, so run the whole "
        "transaction again: the statement is then prepared again. Deploy changes of tables before "
        "the code that uses them."
    )
