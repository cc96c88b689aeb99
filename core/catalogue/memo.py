"""CatalogueMemo: the effects of texts on the sessions of one database."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property

from relet.core.sql.classifier import Memo, classify
from relet.core.sql.effects import Effects
from relet.core.sql.redefinitions import redefines
from relet.core.sql.statements import Statement

from .names import Catalogue, Changes

#: The effects of any text while the database's definitions have to be read first.
UNREAD = Effects(())

#: A text without any of these does not change where names are looked up, and one that matches may.
_MAY_CHANGE_PATH = ("search_path", "schema", "set_config")
_CHANGES_PATH = re.compile(
    r"search_path|\bset\s+(?:session\s+|local\s+)?schema\b|set_config\s*\(\s*[^'\s]"
)


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
    """

    def __init__(self, *, stale: bool = False) -> None:
        super().__init__()
        self.stale = stale
        self._catalogue: Catalogue | Either | None = None
        #: Whether a statement may have changed the search path.
        self._anywhere = False

    def __missing__(self, sql: str) -> Effects | None:
        return UNREAD if self.stale else self.judge(sql)

    @property
    def has_effects(self) -> bool:
        """Whether the catalogue has anything in it."""
        return bool(self._catalogue)

    def judge(self, sql: str) -> Effects | None:
        """Return the effects of *sql*, even if the definitions are to be read again."""
        lowered = sql.lower()
        self._follow_path(lowered)
        catalogue, anywhere = self._catalogue, self._anywhere
        if not catalogue:
            effects = classify(sql)
        else:
            effects = classify(sql, catalogue.anywhere if anywhere else catalogue)
        if redefines(sql, lowered, known=bool(catalogue)):
            effects = replace(effects or UNREAD, redefines=True)
        self.keep(sql, effects)
        # Another thread may have changed any of these in the meantime.
        if self.stale or self._catalogue is not catalogue or self._anywhere is not anywhere:
            self.pop(sql, None)
        return effects

    def follow_path(self, sql: str) -> None:
        """Look names up in all schemas from now on if *sql* may change the search path."""
        self._follow_path(sql.lower())

    def _follow_path(self, lowered: str) -> None:
        if (
            not self._anywhere
            and any(part in lowered for part in _MAY_CHANGE_PATH)
            and _CHANGES_PATH.search(lowered)
        ):
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
