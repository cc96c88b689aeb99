"""Effects: what a statement leaves in its session, and what moves its transaction.

`relet.core.sql.classifier` finds them in SQL, `relet.core.session.ledger` keeps account of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple


class Kind(Enum):
    """Sorts of session state.

    :ivar transactional: whether ROLLBACK takes it back.
    :ivar noun: for messages.
    :ivar cure: how to do without.
    """

    # As in Action: identity is a correct hash, and a fast one.
    __hash__ = object.__hash__

    transactional: bool
    noun: str
    cure: str

    SETTING = (
        "setting",
        True,
        "a setting",
        "SET LOCAL or set_config(..., true) inside atomic(), or hold() around what needs it",
    )
    ROLE = (
        "role",
        True,
        "the role",
        "SET LOCAL ROLE inside atomic(), or hold() around what needs it",
    )
    TEMPORARY = (
        "temporary object",
        True,
        "a temporary object",
        "ON COMMIT DROP inside atomic(), or hold() around what needs it",
    )
    CHANNEL = (
        "channel",
        True,
        "a channel that is listened on",
        "hold() around the loop that listens, in a worker of its own",
    )
    LOCK = (
        "advisory lock",
        False,
        "a session-level advisory lock",
        "pg_advisory_xact_lock() inside atomic(), or hold() around what it guards",
    )
    PREPARED = (
        "prepared statement",
        False,
        "a prepared statement",
        "the driver's own (OPTIONS['prepare_threshold']), or hold() around what needs it",
    )
    CURSOR = (
        "cursor",
        True,
        "a cursor WITH HOLD",
        "QuerySet.iterator(), or a cursor without HOLD inside atomic()",
    )
    SEQUENCE = (
        "sequence",
        False,
        "the value that currval() and lastval() return",
        "INSERT ... RETURNING, or hold() around nextval() and what reads its value again",
    )
    SEED = (
        "seed",
        False,
        "the seed of random()",
        "hold() around setseed() and what calls random()",
    )
    LIBRARY = (
        "library",
        False,
        "a loaded library, which cannot be unloaded",
        "session_preload_libraries, set for the role or the database",
    )
    UNKNOWN = (
        "unknown",
        False,
        "session state that cannot be known",
        "one statement per execute()",
    )

    def __init__(self, title: str, transactional: bool, noun: str, cure: str) -> None:
        self._value_ = title
        self.transactional, self.noun, self.cure = transactional, noun, cure


class Unresolved(Exception):
    """A parameter is not where the text says it is."""


@dataclass(frozen=True)
class Parameter:
    """A placeholder: its position among the text's, or its name."""

    key: int | str

    def value(self, params: object) -> Any:
        """Return what *params*, as given to ``execute()``, have for it.

        :raises Unresolved: they have nothing.
        """
        known = isinstance(params, Mapping if isinstance(self.key, str) else Sequence)
        try:
            if known:
                return params[self.key]  # type: ignore[index]
        except (LookupError, TypeError):
            pass
        raise Unresolved(self.key)


#: What is changed: words, and parameters that are part of it.
Name = tuple[str | Parameter, ...]

#: All of its kind.
ALL: Name = ("*",)


class Change(NamedTuple):
    """Session state is made, or given back.

    :param kind: which.
    :param name: what it is called; None is what cannot be told from the text, so
        nothing but "all of them" gives it back.
    :param undoes: whether the state is given back rather than made.
    :param sure: whether it is certain that it is given back. If not, it still counts, but
        what was configured may be gone.
    :param column: of the statement's only row: true if it happened.
    :param renames: what there is of that kind may be called otherwise from now on. Nothing
        is made, and nothing is given back.
    """

    kind: Kind
    name: Name | None
    undoes: bool = False
    sure: bool = True
    column: int | None = None
    renames: bool = False


class Open:
    """A step that depends on parameters."""

    def changes(self, params: object) -> Iterable[Change]:
        """Return what it does with *params*, as given to ``execute()``.

        :param params: None if they are not known; then it does all that it may do.
        """
        raise NotImplementedError

    def doubted(self) -> Open:
        """Return the same for a statement that may run or not: nothing is given back."""
        raise NotImplementedError


class Control(Enum):
    """A statement that begins, ends, or goes back in a transaction."""

    __hash__ = object.__hash__

    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"


@dataclass(frozen=True)
class Move:
    """A `Control` with the savepoint that it names, if any."""

    control: Control
    savepoint: str = ""


Step = Change | Move
#: What a text's steps are before its parameters are known.
AnyStep = Step | Open


@dataclass(frozen=True)
class Effects:
    """What a text does to the session that runs it.

    :param steps: changes of session state and moves of the transaction, in order.
    :param single: whether the text is one statement; only then its row can be looked at.
    :param reads_sequence: whether it calls ``currval()`` or ``lastval()``.
    :param may_commit: whether some of it may be committed when it fails: ``DO`` and ``CALL`` run
        code that can COMMIT.
    """

    steps: tuple[AnyStep, ...]
    single: bool = True
    reads_sequence: bool = False
    may_commit: bool = False

    @property
    def repeated(self) -> Effects:
        """Those of a text that runs nobody knows how often, or never.

        Nothing is given back for sure, and locks are counted, so none can be told by its key.
        """
        steps = dict.fromkeys(map(_repeated, self.steps))
        return replace(self, steps=tuple(steps), single=False, may_commit=True)

    @property
    def deferred(self) -> Effects:
        """Those of the query of a server-side cursor, which runs as rows are fetched, or never."""
        return replace(self, steps=later(self.steps), single=False)

    @property
    def made(self) -> tuple[Change, ...]:
        """The changes that make session state, or may."""
        return tuple(
            step
            for step in _closed(self.steps, None)
            if isinstance(step, Change) and not step.undoes
        )

    def resolve(self, params: object, row: Sequence[Any] | None) -> tuple[Step, ...]:
        """Return the steps with nothing left open: by *params*, and by the *row* they gave."""
        return tuple(
            resolved
            for step in _closed(self.steps, params)
            if (resolved := _resolve(step, params, row if self.single else None)) is not None
        )


def _repeated(step: AnyStep) -> AnyStep:
    if isinstance(step, Open):
        return step.doubted()
    if isinstance(step, Move):
        return Change(Kind.UNKNOWN, None)
    if step.undoes:
        return step._replace(sure=False, column=None)
    return Change(Kind.LOCK, None) if step.kind is Kind.LOCK else step._replace(column=None)


def nameless(steps: Iterable[AnyStep]) -> tuple[Change, ...]:
    """What may be done, if nobody can tell when and how often: nothing gives that back."""
    return tuple(
        dict.fromkeys(
            step if step.renames else Change(step.kind, None, step.undoes, sure=not step.undoes)
            for step in _closed(steps, None)
            if isinstance(step, Change)
        )
    )


def later(steps: Iterable[AnyStep]) -> tuple[Change, ...]:
    """What EXECUTE and FETCH do: it is done when those run, and again each time that they do."""
    found = nameless(steps)
    if any(not step.undoes for step in found):
        return (*found, Change(Kind.UNKNOWN, None))
    return found


def _closed(steps: Iterable[AnyStep], params: object) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Open):
            yield from step.changes(params)
        else:
            yield step


def _resolve(step: Step, params: object, row: Sequence[Any] | None) -> Step | None:
    if isinstance(step, Move):
        return step
    if step.column is not None and row is not None and not row[step.column]:
        return None
    name = step.name
    if step.column is None and (name is None or (len(name) == 1 and isinstance(name[0], str))):
        return step
    if name is not None and any(isinstance(part, Parameter) for part in name):
        try:
            # A number and its text are the same key to a user, so to nobody here.
            name = ("".join(_text(part, params) for part in name),)
        except Unresolved:
            if step.undoes:
                return None
            name = None
    elif name is not None:
        name = ("".join(map(str, name)),)
    return step._replace(name=name, column=None)


def _text(part: str | Parameter, params: object) -> str:
    if isinstance(part, str):
        return part
    value = part.value(params)
    return quote(value) if isinstance(value, str) else str(value)


def quote(text: str) -> str:
    """*text* as a constant of SQL."""
    return "'" + text.replace("'", "''") + "'"
