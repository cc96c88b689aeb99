"""SessionPlans: what one session of the server has prepared."""

from __future__ import annotations

from typing import NamedTuple

from relet.core.session.own_statements import PREFIX

from .counts import PlanCounts
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


class SessionPlans:
    """The plans of one session.

    :ivar epoch: that of the pool's book when they were made.
    :ivar prepared: what the session has, by shape.
    :ivar stale: names to drop in the session, when something is sent that has no hurry.
    """

    __slots__ = ("__weakref__", "epoch", "prepared", "serial", "stale", "used")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.prepared: dict[Shape, Prepared] = {}
        self.stale: list[str] = []
        #: Numbers names. They are never used twice, so that it does not matter whether the session
        #: still has the old one.
        self.serial = 0
        self.used = 0

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
        dropped = []
        while len(self.prepared) >= most:
            shape = min(self.prepared, key=lambda each: self.prepared[each].used)
            dropped.append(Stale(shape, self.prepared.pop(shape)))
        self.stale += [prepared.name for _, prepared in dropped]
        return dropped

    def drop(self, epoch: int, *, gone: bool) -> list[Stale]:
        """Drop everything.

        :param epoch: the epoch of what is prepared from now on.
        :param gone: whether the session itself has dropped it.
        """
        dropped = [Stale(shape, prepared) for shape, prepared in self.prepared.items()]
        self.prepared = {}
        self.epoch = epoch
        if gone:
            self.stale = []
        else:
            self.stale += [prepared.name for _, prepared in dropped]
        return dropped
