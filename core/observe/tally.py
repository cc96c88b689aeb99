"""Tally: what one thread has counted for one alias.

Only its thread writes to it, without a lock. Others read it at any time, and may find a statement
half counted. On the hot path, ``tally.texts[route][text]`` finds the counts of a statement, in two
plain dictionaries; `Tally.find` adds those that are missing.
"""

from __future__ import annotations

from collections.abc import Callable

from .counts import PoolCounts, RouteCounts, StatementCounts

#: Characters of texts that a thread remembers, of all routes together, and what each text counts
#: for beside its own. Values may make any number of texts of one statement.
_MOST_CHARACTERS, _EACH = 400_000, 200
#: Of longer texts it remembers the hash.
_LONGEST = 4_000
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


class Batch:
    """What a thread has counted since it last handed its counts over.

    :ivar routes: by name.
    :ivar size: the number of routes and statements.
    :ivar forgotten: what is not to be shown any more: "statements", "routes", or both.
    """

    __slots__ = ("forgotten", "routes", "size")

    def __init__(self) -> None:
        self.routes: dict[str, RouteTally] = {}
        self.size = 0
        self.forgotten: frozenset[str] = frozenset()

    def route(self, route: str) -> RouteTally:
        """Return what was counted for *route*."""
        if (found := self.routes.get(route)) is None:
            found = self.routes[route] = RouteTally(route)
            self.size += 1
        return found

    def statement(self, route: RouteTally, fingerprint: str) -> StatementCounts:
        """Return what was counted for a statement of *route*, which is one of its routes."""
        if (found := route.statements.get(fingerprint)) is None:
            found = route.statements[fingerprint] = StatementCounts()
            self.size += 1
        return found


class Tally:
    """What one thread has counted for one alias, by route.

    :param alias: the key in ``DATABASES``.
    :param fingerprint: returns the text of a statement without its values.
    :param full: called with the alias and the batch when that is to be handed over. It must not use
        this tally. Until it has returned, the batch is the thread's as well.
    :ivar pool: what is counted by alias only.
    :ivar batch: what is counted by route.
    :ivar texts: the `RouteTally.texts` of each of its routes.
    :ivar waited: seconds for which the thread has waited for a connection, and which no statement
        was charged with yet.
    :ivar ended: whether the thread has ended. Another one may have its identifier by now.
    """

    __slots__ = (
        *("_full", "_long", "_room", "alias", "batch", "ended", "fingerprint", "pool", "texts"),
        "waited",
    )

    def __init__(
        self,
        alias: str,
        fingerprint: Callable[[str], str],
        full: Callable[[str, Batch], object],
    ) -> None:
        self.alias = alias
        self.fingerprint = fingerprint
        self._full = full
        self.pool = PoolCounts()
        self.waited = 0.0
        self.ended = False
        self.batch = Batch()
        self.texts: dict[str, dict[str, StatementCounts]] = {}
        #: The hash of a long text -> its fingerprint.
        self._long: dict[int, str] = {}
        #: Characters that may still be remembered.
        self._room = _MOST_CHARACTERS

    def route(self, route: str) -> RouteTally:
        """Return what was counted for *route*."""
        batch = self.batch
        found = batch.routes.get(route)
        return self._batch().route(route) if found is None or batch.forgotten else found

    def find(self, route: str, text: str) -> StatementCounts:
        """Return the counts of the statement *text* of *route*."""
        if (counts := self.texts.get(route, {}).get(text)) is not None:
            return counts
        long = len(text) > _LONGEST
        fingerprint = self._of_long(text) if long else self.fingerprint(text)
        while True:
            batch = self._batch()
            tally = batch.route(route)
            counts = batch.statement(tally, fingerprint)
            if not long:
                self._make_room(len(text))
                tally.texts[text] = counts
                self.texts[route] = tally.texts
            # Else its texts, which `forget` may have dropped a moment ago, are there again.
            if batch is self.batch and not batch.forgotten:
                return counts

    def _of_long(self, text: str) -> str:
        """Return the fingerprint of a text that is too long to be remembered itself."""
        key = hash(text)
        if (found := self._long.get(key)) is None:
            found = self.fingerprint(text)
            self._make_room(len(found))
            self._long[key] = found
        return found

    def _make_room(self, characters: int) -> None:
        """Make room for a text. All that are remembered may be dropped, but not their counts."""
        self._room -= characters + _EACH
        if self._room < 0:
            for tally in list(self.batch.routes.values()):
                tally.texts.clear()
            self.texts = {}
            self._long = {}
            self._room = _MOST_CHARACTERS

    def _batch(self) -> Batch:
        """Return a batch that has room. The one before may be handed over."""
        batch = self.batch
        if batch.size >= _LIMIT or batch.forgotten:
            self._full(self.alias, batch)
            if self.batch is batch:  # else a finalizer or a signal handler has come first
                self.texts = {}
                self.batch, self.texts = Batch(), {}
                self._long, self._room = {}, _MOST_CHARACTERS
        return self.batch

    def forget(self, what: str) -> None:
        """Show *what* of the counts so far no more. Any thread may call this.

        Only the owner begins a new batch, so that it never goes on counting in an old one. It looks
        when it does not find a text.

        :param what: "statements" or "routes".
        """
        self.batch.forgotten |= {what}
        self.texts = {}
