"""The counts of this process: one `Tally` for each thread and alias, and what ended threads left.

::

    from relet.backends.observe import collection

    counts = collection.totals()  # merged, at this moment
    for fingerprint, statement in counts.statements: ...
    for alias, pool in counts.pools.items(): ...  # these only grow; `forget` does not reset them
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from relet.core.locks import locked
from relet.core.observe import Contention, PoolCounts, RouteTally, Tally, Totals
from relet.core.sql.fingerprint import normalized

from . import routes
from .scopes import CURRENT, Scope

#: How many tallies may wait to be merged before the thread that adds one has to merge them.
_UNMERGED = 16


def _no_fingerprint(text: str) -> str:
    return ""


@dataclass(frozen=True)
class _Kinds:
    """What is counted for an alias."""

    queries: bool = True
    routes: bool = True


class _ThreadTallies:
    """The tallies of one thread, in its locals. It is collected when the thread ends."""

    def __init__(self, owner: Collection) -> None:
        self.owner = owner
        self.by_alias: dict[str, Tally] = {}
        #: The scope of statements outside of requests, tasks, commands and labels.
        self.fallback = routes.fallback()

    def __del__(self) -> None:
        for tally in self.by_alias.values():
            self.owner.thread_ended(tally)


class Collection:
    """All counts of a process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._locals = threading.local()
        self._live: dict[int, Tally] = {}
        #: The counts of threads that have ended, and what live threads have handed over. Appended
        #: without a lock, because a finalizer may do it anywhere.
        self._ended: deque[Tally] = deque()
        self._full: deque[tuple[str, list[RouteTally]]] = deque()
        self._merging = False
        self._totals = Totals()
        self._contentions: dict[str, Contention] = {}
        self._kinds: dict[str, _Kinds] = {}

    def follow(self, alias: str, kinds: _Kinds) -> None:
        self._kinds[alias] = kinds

    def kinds(self, alias: str) -> _Kinds:
        return self._kinds.get(alias) or _Kinds()

    def _here(self) -> _ThreadTallies:
        """Return the tallies of this thread."""
        try:
            found: _ThreadTallies = self._locals.tallies
        except AttributeError:
            found = self._locals.tallies = _ThreadTallies(self)
        return found

    def fallback(self, alias: str) -> Scope:
        """Return the scope of this thread's statements outside of all others."""
        return self._here().fallback if self.kinds(alias).routes else NOWHERE

    def here(self, alias: str) -> Tally:
        """Return the tally of this thread for *alias*."""
        tallies = self._here()
        if (tally := tallies.by_alias.get(alias)) is None:
            if len(self._ended) >= _UNMERGED:
                self._merge()
            tally = tallies.by_alias[alias] = self._new_tally(alias)
            self._live[id(tally)] = tally
        return tally

    def _new_tally(self, alias: str) -> Tally:
        read = normalized if self.kinds(alias).queries else _no_fingerprint
        return Tally(alias, read, self._hand_over)

    def contention(self, alias: str) -> Contention:
        """Return who waits for connections of *alias*."""
        found = self._contentions.get(alias)
        return found or self._contentions.setdefault(alias, Contention())

    def _hand_over(self, alias: str, routes: list[RouteTally]) -> None:
        self._full.append((alias, routes))
        if len(self._full) >= _UNMERGED:
            self._merge()

    def thread_ended(self, tally: Tally) -> None:
        """Keep the counts of a thread that has ended. A finalizer calls this."""
        self._ended.append(tally)
        self._live.pop(id(tally), None)

    def _merge(self) -> None:
        locked(self._lock, self._merge_locked)

    def _merge_locked(self) -> None:
        if self._merging:
            return  # a signal handler or a finalizer, in the middle of the same
        self._merging = True
        try:
            while self._full:
                self._totals.add_routes(*self._full.popleft())
            while self._ended:
                self._totals.add(self._ended.popleft())
        finally:
            self._merging = False

    def totals(self) -> Totals:
        """Return the counts of all threads so far."""
        return locked(self._lock, self._read)

    def _read(self) -> Totals:
        # The live ones first: a thread that ends in between is counted once or not at all.
        live = list(self._live.values())
        self._merge_locked()
        found = Totals()
        found.merge(self._totals)
        for tally in live:
            found.add(tally)
        return found

    def pools(self) -> dict[str, PoolCounts]:
        """Return the counts of pools so far, by alias."""
        return locked(self._lock, self._read_pools)

    def _read_pools(self) -> dict[str, PoolCounts]:
        live = list(self._live.values())
        self._merge_locked()
        found = Totals()
        for alias, counts in self._totals.pools.items():
            found.pool(alias).merge(counts)
        for tally in live:
            found.add_pool(tally)
        return found.pools

    def forget_statements(self) -> None:
        """Begin anew to count statements."""
        locked(self._lock, lambda: self._forget("statements"))

    def forget_routes(self) -> None:
        """Begin anew to count routes."""
        locked(self._lock, lambda: self._forget("routes"))

    def _forget(self, what: str) -> None:
        for tally in list(self._live.values()):
            self._full.append((tally.alias, tally.take()))
        self._merge_locked()
        setattr(self._totals, what, getattr(Totals(), what))


#: The scope of all statements of an alias whose routes are not noted.
NOWHERE = Scope("")

_collection = Collection()


def here(alias: str) -> Tally:
    """Return the tally of this thread for *alias*. Only this thread may write to it."""
    return _collection.here(alias)


def contention(alias: str) -> Contention:
    """Return who waits, and has waited, for connections of *alias*."""
    return _collection.contention(alias)


def fallback(alias: str) -> Scope:
    """Return the scope of this thread's statements outside of requests, tasks and so on."""
    return _collection.fallback(alias)


def route(alias: str) -> str:
    """Return the route of this thread or task; empty if routes are not noted."""
    fallback = _collection.fallback(alias)
    return fallback.route if fallback is NOWHERE else (CURRENT.get() or fallback).route


def current_route() -> str:
    """Return the route of this thread or task, whatever is noted."""
    return (CURRENT.get() or _collection._here().fallback).route


def follow(alias: str, *, queries: bool, routes: bool) -> None:
    """Note what is to be counted for *alias*: with neither, its pool only."""
    _collection.follow(alias, _Kinds(queries, routes))


def totals() -> Totals:
    """Return the counts of this process so far, of all threads. They are a copy."""
    return _collection.totals()


def pools() -> dict[str, PoolCounts]:
    """Return `Totals.pools` of `totals`, without the work for all else."""
    return _collection.pools()


def forget_statements() -> None:
    """Begin anew to count statements. The counts of pools stay."""
    _collection.forget_statements()


def forget_routes() -> None:
    """Begin anew to count routes. The counts of pools stay."""
    _collection.forget_routes()


def forked() -> None:
    """Begin anew with nothing, in a forked child."""
    global _collection
    kinds = _collection._kinds
    _collection = Collection()
    _collection._kinds = kinds
