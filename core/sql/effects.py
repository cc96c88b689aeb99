"""Effects: the session state that statements make or undo, and how they move transactions.

`relet.core.sql.classifier` finds effects in SQL; `relet.core.session.ledger` records them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple


class Kind(Enum):
    """The kinds of session state.

    :ivar transactional: whether ROLLBACK undoes it.
    :ivar noun: what to call it in a message.
    :ivar cure: how to avoid it, for a message.
    """

    # As in `relet.core.lease.State`: a hash by identity is correct, and fast.
    __hash__ = object.__hash__

    transactional: bool
    noun: str
    cure: str

    SETTING = (
        "setting",
        True,
        "a setting",
        (
            "SET LOCAL or set_config(..., true) inside atomic(), "
            "or hold() around the code that needs it"
        ),
    )
    ROLE = (
        "role",
        True,
        "the role",
        "SET LOCAL ROLE inside atomic(), or hold() around the code that needs it",
    )
    TEMPORARY = (
        "temporary object",
        True,
        "a temporary object",
        "ON COMMIT DROP inside atomic(), or hold() around the code that needs it",
    )
    CHANNEL = (
        "channel",
        True,
        "a LISTEN on a channel",
        "hold() around the loop that listens, in a separate worker",
    )
    LOCK = (
        "advisory lock",
        False,
        "a session-level advisory lock",
        "pg_advisory_xact_lock() inside atomic(), or hold() around the code that it guards",
    )
    PREPARED = (
        "prepared statement",
        False,
        "a prepared statement",
        "the driver's own (OPTIONS['prepare_threshold']), or hold() around the code that needs it",
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
        "INSERT ... RETURNING, or hold() around nextval() and the code that reads its value again",
    )
    SEED = (
        "seed",
        False,
        "the seed of random()",
        "hold() around setseed() and the code that calls random()",
    )
    LIBRARY = (
        "library",
        False,
        "a loaded library, which cannot be unloaded",
        "session_preload_libraries, set for the role or the database",
    )
    EXTENSION = (
        "extension",
        False,
        "state of an extension or of the server, which cannot be undone",
        "hold() around the code that needs it, and a pool of its own",
    )
    DYNAMIC = (
        "dynamic SQL",
        False,
        "unknown state, by dynamic SQL,",
        (
            "format() with the command in its text, or 'dynamic_sql': 'ignore' in the policy if it "
            "leaves no state"
        ),
    )
    UNKNOWN = (
        "unknown",
        False,
        "unknown session state",
        "one statement per execute()",
    )

    def __init__(self, title: str, transactional: bool, noun: str, cure: str) -> None:
        self._value_ = title
        self.transactional, self.noun, self.cure = transactional, noun, cure


class Unresolved(Exception):
    """The parameters do not contain the one that the SQL refers to."""


class Parameter(NamedTuple):
    """A placeholder: its position among the placeholders, or its name."""

    key: int | str

    def value(self, params: object) -> Any:
        """Return its value in *params*, as passed to ``execute()``.

        :raises Unresolved: *params* do not contain it.
        """
        known = isinstance(params, Mapping if isinstance(self.key, str) else Sequence)
        try:
            if known:
                return params[self.key]  # type: ignore[index]
        except (LookupError, TypeError):
            pass
        raise Unresolved(self.key)


#: The name of a piece of session state: its words, and the parameters that are part of it.
Name = tuple[str | Parameter, ...]

#: The name for all state of a kind.
ALL: Name = ("*",)


class Change(NamedTuple):
    """Session state is made or undone.

    :param kind: the kind of state.
    :param name: its name. None means that the text does not show the name, so only undoing `ALL`
        undoes this state.
    :param undoes: whether the state is undone rather than made.
    :param sure: whether it is certain that the state is undone. If not, it still counts as left,
        but the baseline's state of that name may be gone.
    :param column: the column of the statement's only row that is true if the change happened.
    :param renames: whether existing state of this kind may have been renamed. Such a change neither
        makes nor undoes state.
    :param origin: what makes the change if the statement's own text does not, as the end of a
        sentence, such as ``"called in function app.trap"``.
    """

    kind: Kind
    name: Name | None
    undoes: bool = False
    sure: bool = True
    column: int | None = None
    renames: bool = False
    origin: str = ""


class Open:
    """A step whose changes depend on parameters."""

    def changes(self, params: object) -> Iterable[Change]:
        """Return its changes for *params*, as passed to ``execute()``.

        :param params: None if they are unknown. The result then has every possible change.
        """
        raise NotImplementedError

    def doubted(self) -> Open:
        """Return this step for a statement that may not run, so may not undo anything."""
        raise NotImplementedError


class Control(Enum):
    """A statement that ends a transaction, or sets, releases or rolls back to a savepoint."""

    __hash__ = object.__hash__

    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"


class Move(NamedTuple):
    """A `Control` and the savepoint that it names, if any."""

    control: Control
    savepoint: str = ""


Step = Change | Move
#: A step before the parameters are known.
AnyStep = Step | Open


class Effects(NamedTuple):
    """The effects of SQL on the session that runs it.

    :param steps: changes of session state and moves of the transaction, in order.
    :param single: whether the SQL is one statement. Only then can its result row be examined.
    :param reads_sequence: whether it calls ``currval()`` or ``lastval()``.
    :param may_commit: whether part of it may be committed even though it fails: ``DO`` and ``CALL``
        run code that can COMMIT.
    :param redefines: whether it may define functions, triggers, views and the like, so that other
        statements may have other effects from now on.
    """

    steps: tuple[AnyStep, ...]
    single: bool = True
    reads_sequence: bool = False
    may_commit: bool = False
    redefines: bool = False

    @property
    def repeated(self) -> Effects:
        """The effects if the SQL may run any number of times, as in ``executemany()``.

        Such SQL is not certain to undo anything. Locks lose their keys, because the server counts
        how often each is taken.
        """
        steps = dict.fromkeys(map(_repeated, self.steps))
        return self._replace(steps=tuple(steps), single=False, may_commit=True)

    @property
    def deferred(self) -> Effects:
        """The effects of a server-side cursor's query, which runs as rows are fetched, or never."""
        return self._replace(steps=later(self.steps), single=False)

    @property
    def made(self) -> tuple[Change, ...]:
        """The changes that make session state, or may make it."""
        return tuple(
            step
            for step in _expanded(self.steps, None)
            if isinstance(step, Change) and not step.undoes
        )

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of session state that the SQL may make, undo or rename."""
        return frozenset(
            step.kind for step in _expanded(self.steps, None) if isinstance(step, Change)
        )

    def resolve(self, params: object, row: Sequence[Any] | None) -> tuple[Step, ...]:
        """Return the steps for the parameters *params* and the result *row*.

        :param row: which columns of the only result row are true, or None if that is unknown.
        """
        return tuple(
            resolved
            for step in _expanded(self.steps, params)
            if (resolved := _resolve(step, params, row if self.single else None)) is not None
        )


def _repeated(step: AnyStep) -> AnyStep:
    if isinstance(step, Open):
        return step.doubted()
    if isinstance(step, Move):
        return Change(Kind.UNKNOWN, None)
    if step.undoes:
        return step._replace(sure=False, column=None)
    if step.kind is Kind.LOCK:
        return Change(Kind.LOCK, None, origin=step.origin)
    return step._replace(column=None)


def nameless(steps: Iterable[AnyStep]) -> tuple[Change, ...]:
    """Return the changes of *steps* that run at an unknown time, any number of times.

    Their state has no name, so nothing but `ALL` undoes it.
    """
    return tuple(
        dict.fromkeys(
            step
            if step.renames
            else Change(step.kind, None, step.undoes, sure=not step.undoes, origin=step.origin)
            for step in _expanded(steps, None)
            if isinstance(step, Change)
        )
    )


def later(steps: Iterable[AnyStep]) -> tuple[Change, ...]:
    """Return the changes of *steps* that run at each later EXECUTE or FETCH.

    Their state may be made again after it was undone, and no text shows that. Nothing undoes
    `Kind.DYNAMIC` in any case.
    """
    found = nameless(steps)
    if any(not step.undoes and step.kind is not Kind.DYNAMIC for step in found):
        return (*found, Change(Kind.UNKNOWN, None))
    return found


def _expanded(steps: Iterable[AnyStep], params: object) -> Iterator[Step]:
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
            # The server takes 1 and '1' for the same key. Here they differ, which is safe: an
            # unlock by the other spelling undoes nothing.
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
    """Return *text* as an SQL string constant."""
    return "'" + text.replace("'", "''") + "'"
