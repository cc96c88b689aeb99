"""Tally: what one thread has counted for one alias.

Only its thread writes to it, without a lock. Others read it at any time, and may find a statement
half counted. On the hot path, ``tally[route][text]`` finds the counts of a statement in two
look-ups.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from .counts import PoolCounts, RouteCounts, StatementCounts

#: Texts that a thread remembers for each route. Of longer texts it remembers the hash.
_TEXTS, _CHARACTERS = 2_000, 4_000
#: Hashes of long texts that a thread remembers.
_LONG_TEXTS = 500
#: Statements and routes that a thread keeps for itself before it hands them over.
_LIMIT = 200


class RouteTally(dict[str, StatementCounts]):
    """What one thread has counted for one route: the text of a statement -> its counts.

    Several texts may share their counts, because only their values differ.

    :ivar statements: the same counts, by fingerprint.
    :ivar counts: the leases that outlasted a statement, and what else is not known by statement.
    """

    __slots__ = ("_tally", "counts", "route", "statements")

    def __init__(self, tally: Tally, route: str) -> None:
        super().__init__()
        self._tally, self.route = tally, route
        self.statements: dict[str, StatementCounts] = {}
        self.counts = RouteCounts()

    def __missing__(self, text: str) -> StatementCounts:
        tally = self._tally
        long = len(text) > _CHARACTERS
        fingerprint = tally.fingerprint_of_long(text) if long else tally.fingerprint(text)
        if (found := self.statements.get(fingerprint)) is None:
            if tally.size >= _LIMIT:
                tally.hand_over()
            if tally.get(self.route) is not self:  # it was handed over
                return tally[self.route][text]
            found = self.statements[fingerprint] = StatementCounts()
            tally.size += 1
        if not long:
            if len(self) >= _TEXTS:
                self.clear()
            self[text] = found
        return found


class Tally(dict[str, RouteTally]):
    """What one thread has counted for one alias, by route.

    :param alias: the key in ``DATABASES``.
    :param fingerprint: returns the text of a statement without its values.
    :param full: called with the routes when there are too many, to make room. It must not use this
        tally.
    :ivar pool: what is counted by alias only.
    :ivar waited: seconds for which the thread has waited for a connection, and which no statement
        was charged with yet.
    """

    __slots__ = ("_full", "_long", "alias", "fingerprint", "pool", "size", "waited")

    def __init__(
        self,
        alias: str,
        fingerprint: Callable[[str], str],
        full: Callable[[str, list[RouteTally]], object],
    ) -> None:
        super().__init__()
        self.alias = alias
        self.fingerprint = fingerprint
        self._full = full
        self.pool = PoolCounts()
        self.waited = 0.0
        #: The hash of a long text -> its fingerprint.
        self._long: dict[int, str] = {}
        #: The number of routes and statements.
        self.size = 0

    def __missing__(self, route: str) -> RouteTally:
        if self.size >= _LIMIT:
            self.hand_over()
        found = self[route] = RouteTally(self, route)
        self.size += 1
        return found

    def fingerprint_of_long(self, text: str) -> str:
        """Return the fingerprint of a text that is too long to be remembered itself."""
        key = hash(text)
        if (found := self._long.get(key)) is None:
            if len(self._long) >= _LONG_TEXTS:
                self._long.clear()
            found = self._long[key] = self.fingerprint(text)
        return found

    def hand_over(self) -> None:
        """Hand all routes over, and go on with none."""
        self._full(self.alias, self.take())

    def take(self) -> list[RouteTally]:
        """Return all routes, and forget them."""
        taken: list[RouteTally] = []
        self.size = 0
        # One by one, because the thread and a reader may both take at the same time.
        with suppress(KeyError):
            while True:
                taken.append(self.popitem()[1])
        return taken
