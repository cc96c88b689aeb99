"""Tally: what one thread has counted for one alias.

Only its thread writes to it, without a lock. Others read it at any time, and may find a statement
half counted. On the hot path, ``tally.texts[route][text]`` finds the counts of a statement, in two
plain dictionaries; `Tally.find` adds those that are missing.
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


class RouteTally:
    """What one thread has counted for one route.

    :ivar counts: the leases that outlasted a statement, and what else is not known by statement.
    :ivar statements: the counts of its statements, by fingerprint.
    :ivar texts: the same counts, by text. Several texts may share their counts, because only their
        values differ.
    """

    __slots__ = ("counts", "route", "statements", "texts")

    def __init__(self, route: str) -> None:
        self.route = route
        self.counts = RouteCounts()
        self.statements: dict[str, StatementCounts] = {}
        self.texts: dict[str, StatementCounts] = {}


class Tally:
    """What one thread has counted for one alias, by route.

    :param alias: the key in ``DATABASES``.
    :param fingerprint: returns the text of a statement without its values.
    :param full: called with the alias and the routes when there are too many, to make room. It must
        not use this tally.
    :ivar pool: what is counted by alias only.
    :ivar routes: by name.
    :ivar texts: the `RouteTally.texts` of each of them.
    :ivar waited: seconds for which the thread has waited for a connection, and which no statement
        was charged with yet.
    """

    __slots__ = (
        *("_full", "_long", "alias", "fingerprint", "pool"),
        *("routes", "size", "texts", "waited"),
    )

    def __init__(
        self,
        alias: str,
        fingerprint: Callable[[str], str],
        full: Callable[[str, list[RouteTally]], object],
    ) -> None:
        self.alias = alias
        self.fingerprint = fingerprint
        self._full = full
        self.pool = PoolCounts()
        self.waited = 0.0
        self.routes: dict[str, RouteTally] = {}
        self.texts: dict[str, dict[str, StatementCounts]] = {}
        #: The hash of a long text -> its fingerprint.
        self._long: dict[int, str] = {}
        #: The number of routes and statements.
        self.size = 0

    def route(self, route: str) -> RouteTally:
        """Return what was counted for *route*."""
        if (found := self.routes.get(route)) is None:
            self._make_room()
            found = self.routes[route] = RouteTally(route)
            self.size += 1
        return found

    def find(self, route: str, text: str) -> StatementCounts:
        """Return the counts of the statement *text* of *route*."""
        if (counts := self.texts.get(route, {}).get(text)) is not None:
            return counts
        long = len(text) > _CHARACTERS
        fingerprint = self._of_long(text) if long else self.fingerprint(text)
        tally = self.route(route)
        if (counts := tally.statements.get(fingerprint)) is None:
            self._make_room()
            tally = self.route(route)
            counts = tally.statements[fingerprint] = StatementCounts()
            self.size += 1
        if not long:
            if len(tally.texts) >= _TEXTS:
                tally.texts.clear()
            tally.texts[text] = counts
            self.texts[route] = tally.texts
        return counts

    def _of_long(self, text: str) -> str:
        """Return the fingerprint of a text that is too long to be remembered itself."""
        key = hash(text)
        if (found := self._long.get(key)) is None:
            if len(self._long) >= _LONG_TEXTS:
                self._long.clear()
            found = self._long[key] = self.fingerprint(text)
        return found

    def _make_room(self) -> None:
        if self.size >= _LIMIT:
            self._full(self.alias, self.take())

    def take(self) -> list[RouteTally]:
        """Return all routes, and forget them."""
        taken: list[RouteTally] = []
        self.size = 0
        self.texts.clear()
        # One by one, because the thread and a reader may both take at the same time.
        with suppress(KeyError):
            while True:
                taken.append(self.routes.popitem()[1])
        return taken
