"""SessionPlans: what one session of the server has prepared."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import NamedTuple

from relet.core.session.own_statements import PREFIX

from .counts import PlanCounts
from .disturbances import NOTHING, Disturbance
from .texts import Shape


class Prepared:
    """A shape that a session has prepared.

    :ivar name: the statement's name in the session.
    :ivar counts: its executions. Only who leases the connection writes to them.
    :ivar used: when it was last used, on the session's own clock.
    """

    __slots__ = ("counts", "name", "sql_name", "used")

    def __init__(self, name: str, used: int) -> None:
        self.name = name
        self.sql_name = name.encode()
        self.counts = PlanCounts()
        self.used = used


class Stale(NamedTuple):
    """A statement that the session has prepared, and does not need."""

    shape: Shape
    prepared: Prepared


#: The epoch of a session that is in doubt: no book has it.
_DOUBTFUL = -1


class SessionPlans:
    """The plans of one session.

    :ivar epoch: that of the pool's book when they were made; another one while the session is in
        doubt. Its targets are run unprepared then.
    :ivar doubts: what has put it in doubt.
    :ivar prepared: what the session has under its present settings, by shape.
    :ivar stale: names to drop in the session, when something is sent that has no hurry.
    """

    __slots__ = (
        *("__weakref__", "_before", "_elsewhere", "_settings", "doubts"),
        *("epoch", "prepared", "serial", "stale", "used"),
    )

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.doubts = NOTHING
        #: The epoch from before the doubts.
        self._before = epoch
        self.prepared: dict[Shape, Prepared] = {}
        #: Its present settings, and what it has prepared under others.
        self._settings: Hashable = ()
        self._elsewhere: dict[Hashable, dict[Shape, Prepared]] = {}
        self.stale: list[str] = []
        #: Numbers names. They are never used twice, so that it does not matter whether the session
        #: still has the old one.
        self.serial = 0
        self.used = 0

    @property
    def doubtful(self) -> bool:
        """Whether its targets are to be run unprepared for now."""
        return self.epoch == _DOUBTFUL

    def doubt(self, doubts: Disturbance) -> None:
        """Run its targets unprepared until `settle`."""
        if self.epoch != _DOUBTFUL:
            self._before, self.epoch = self.epoch, _DOUBTFUL
        self.doubts |= doubts

    def settle(self) -> Disturbance:
        """End the doubts; return what they were."""
        doubts, self.doubts = self.doubts, NOTHING
        if self.epoch == _DOUBTFUL:
            self.epoch = self._before
        return doubts

    def change_settings(self, settings: Hashable) -> None:
        """Note that *settings* are made in the session, which other ones had prepared for."""
        if settings != self._settings:
            self._elsewhere[self._settings] = self.prepared
            self.prepared = self._elsewhere.pop(settings, {})
            self._settings = settings

    def __iter__(self) -> Iterator[Stale]:
        """All that it has prepared, under any settings."""
        for prepared in (self.prepared, *list(self._elsewhere.values())):
            yield from [Stale(shape, each) for shape, each in list(prepared.items())]

    def __len__(self) -> int:
        return len(self.prepared) + sum(map(len, self._elsewhere.values()))

    def next_name(self, shape: Shape) -> str:
        """Return a name that the session does not have."""
        self.serial += 1
        return f"{PREFIX}{shape.digest}_{self.serial}"

    def add(self, shape: Shape, name: str) -> Prepared:
        """Add *shape*, which the session has prepared as *name*."""
        self.used += 1
        prepared = self.prepared[shape] = Prepared(name, self.used)
        return prepared

    def find(self, shape: Shape) -> Prepared | None:
        """Return *shape* as the session has prepared it, if it has; it is about to be used."""
        prepared = self.prepared.get(shape)
        if prepared is not None:
            self.used += 1
            prepared.used = self.used
        return prepared

    def evict(self, most: int) -> list[Stale]:
        """Drop what was not used for longest, until there are less than *most* shapes."""
        known = sorted(self, key=lambda each: each.prepared.used)
        dropped = known[: max(0, len(known) - most + 1)]
        for shape, prepared in dropped:
            for found in (self.prepared, *self._elsewhere.values()):
                if found.get(shape) is prepared:
                    del found[shape]
        self._elsewhere = {key: found for key, found in self._elsewhere.items() if found}
        self.stale += [prepared.name for _, prepared in dropped]
        return dropped

    def drop(self, epoch: int, *, gone: bool) -> list[Stale]:
        """Drop everything.

        :param epoch: the epoch of what is prepared from now on.
        :param gone: whether the session itself has dropped it.
        """
        dropped = list(self)
        self.prepared, self._elsewhere = {}, {}
        if self.epoch == _DOUBTFUL:
            self._before = epoch
        else:
            self.epoch = epoch
        if gone:
            self.stale = []
        else:
            self.stale += [prepared.name for _, prepared in dropped]
        return dropped
