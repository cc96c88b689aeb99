"""CatalogueMemo: the effects of texts on the sessions of one database."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from relet.core.sql.classifier import EFFECTS, Memo, classify
from relet.core.sql.effects import Change, Effects, Kind
from relet.core.sql.redefinitions import (
    REDEFINES,
    changes_path,
    creates,
    redefines,
    uses_its_definitions,
)
from relet.core.sql.statements import Statement

from .names import Catalogue, Changes

#: Who defines something: a weak reference.
Definer = Callable[[], object]
#: The effects of any text while the database's definitions have to be read first.
UNREAD = Effects(())
_UNKNOWN = Change(Kind.UNKNOWN, None)


class Either:
    """Two catalogues, of which either may apply, because a transaction that changes one is open."""

    def __init__(self, first: Catalogue, second: Catalogue) -> None:
        self.first, self.second = first, second

    def __bool__(self) -> bool:
        return bool(self.first) or bool(self.second)

    def may_concern(self, lowered: str) -> bool:
        return self.first.may_concern(lowered) or self.second.may_concern(lowered)

    def steps_of(self, statement: Statement) -> Changes:
        both = (*self.first.steps_of(statement), *self.second.steps_of(statement))
        return tuple(dict.fromkeys(both))

    @cached_property
    def anywhere(self) -> Either:
        return Either(self.first.anywhere, self.second.anywhere)


class CatalogueMemo(Memo):
    """A memo whose answers depend on a catalogue.

    When the catalogue changes, it is emptied. So a text seen before is one look-up, as in `Memo`.

    :ivar stale: whether the definitions have to be read first. It then answers `UNREAD`.
    :ivar definers: who is defining something, so that texts may have other effects when they run
        than now. While there is one, it answers `UNREAD`, too.
    :ivar temporary: whether what a text creates without a schema is temporary; None if that is not
        known yet.
    """

    def __init__(self, *, stale: bool = False) -> None:
        super().__init__()
        self.stale = stale
        self.definers: dict[Definer, None] = {}
        self.temporary: bool | None = None
        self._catalogue: Catalogue | Either | None = None
        #: Whether a statement may have changed the search path.
        self._anywhere = False

    def __missing__(self, sql: str) -> Effects | None:
        return UNREAD if self.stale or self.definers else self.judge(sql)

    @property
    def looks_anywhere(self) -> bool:
        """Whether names are looked up in all schemas."""
        return self._anywhere

    @property
    def has_effects(self) -> bool:
        """Whether the catalogue has anything in it."""
        return bool(self._catalogue)

    def judge(self, sql: str) -> Effects | None:
        """Return the effects of *sql*, even if the definitions are to be read again."""
        lowered = sql.lower()
        self._follow_path(sql, lowered)
        catalogue, anywhere = self._catalogue, self._anywhere
        if not catalogue:
            effects = classify(sql)
        else:
            effects = classify(sql, catalogue.anywhere if anywhere else catalogue)
        effects = self._with_definitions(sql, lowered, effects)
        self.keep(sql, effects)
        # Another thread may have changed any of these in the meantime.
        if (
            self.stale
            or self.definers
            or self._catalogue is not catalogue
            or self._anywhere is not anywhere
        ):
            self.pop(sql, None)
        return effects

    def judge_alone(self, sql: str) -> Effects | None:
        """Return the effects of *sql*, which runs before the definitions are read."""
        self._follow_path(sql, sql.lower())
        effects = EFFECTS[sql]
        if redefines(sql, sql.lower(), known=True):
            return (effects or UNREAD)._replace(redefines=True)
        return effects

    def _with_definitions(self, sql: str, lowered: str, effects: Effects | None) -> Effects | None:
        """Return *effects*, with what *sql* defines."""
        if redefines(sql, lowered, known=bool(self._catalogue)):
            effects = (effects or UNREAD)._replace(redefines=True)
            if uses_its_definitions(sql):
                effects = effects._replace(steps=(*effects.steps, _UNKNOWN))
        if self.temporary and creates(sql):
            effects = effects or UNREAD
            effects = effects._replace(steps=(*effects.steps, Change(Kind.TEMPORARY, None)))
        if effects is not None and any(map(_redefines, effects.steps)):
            # In a function that it calls.
            steps = tuple(step for step in effects.steps if not _redefines(step))
            effects = effects._replace(steps=steps, redefines=True)
        return effects

    def _follow_path(self, sql: str, lowered: str) -> None:
        """Look names up in all schemas from now on if *sql* may change the search path."""
        if not self._anywhere and changes_path(sql, lowered):
            self.look_anywhere()

    def look_anywhere(self) -> None:
        """Look names up in all schemas from now on."""
        if not self._anywhere:
            self._anywhere = True
            self.clear()

    def renew(self, catalogue: Catalogue | Either | None) -> None:
        """Answer by *catalogue* from now on. None stands for one that could not be read."""
        self._catalogue = catalogue
        self.stale = False
        self.clear()

    def expire(self) -> None:
        """Answer `UNREAD` from now on, until `renew`."""
        self.stale = True
        self.clear()


def _redefines(step: object) -> bool:
    return isinstance(step, Change) and step.renames and step.kind is REDEFINES.kind
