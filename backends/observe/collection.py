"""The counts of this process: one `Tally` for each thread and alias, and what ended threads left.

::

    from relet.backends.observe import collection

    counts = collection.totals()  # merged, at this moment
    for fingerprint, statement in counts.statements: ...
    for alias, pool in counts.pools.items(): ...  # these only grow; `forget` does not reset them
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from relet.core.locks import depth, locked
from relet.core.observe import Batch, Contention, PoolCounts, Tally, Totals
from relet.core.sql.fingerprint import normalized

from . import routes
from .scopes import CURRENT, Scope

#: How many tallies may wait to be merged before the thread that adds one has to merge them.
_UNMERGED = 16
#: How many of what was merged at once may wait to be added up.
_PARTS = 8


def _no_fingerprint(text: str) -> str:
    return ""


Kind = Literal["queries", "routes"]


@dataclass(frozen=True)
class _Kinds:
    """What is counted for an alias."""

    queries: bool = True
    routes: bool = True


@dataclass(frozen=True)
class _Merged:
    """What threads that have ended left, and what live ones have handed over.

    It is replaced as a whole, so that an interrupt leaves all of it or nothing.

    :param parts: their counts, to be added up.
    :param taken: the tallies and batches that are in them, until they are dropped elsewhere.
    """

    parts: tuple[Totals, ...] = ()
    taken: tuple[Tally | Batch, ...] = ()


def _sum(parts: Iterable[Totals]) -> Totals:
    found = Totals()
    for part in parts:
        found.merge(part)
    return found


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
        #: All tallies that were not merged yet, and those of them whose threads have ended. By
        #: `id`, as all below. Added without a lock, because a finalizer may do it anywhere; removed
        #: under the lock only.
        self._live: dict[int, Tally] = {}
        self._ended: dict[int, Tally] = {}
        #: (alias, what was handed over). A batch is here before its thread begins another one.
        self._full: dict[int, tuple[str, Batch]] = {}
        self._merged = _Merged()
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
            tally = self._new_tally(alias)
            self._live[id(tally)] = tally
            tallies.by_alias[alias] = tally
        return tally

    def _new_tally(self, alias: str) -> Tally:
        read = normalized if self.kinds(alias).queries else _no_fingerprint
        return Tally(alias, read, self._hand_over)

    def contention(self, alias: str) -> Contention:
        """Return who waits for connections of *alias*."""
        found = self._contentions.get(alias)
        return found or self._contentions.setdefault(alias, Contention())

    def _hand_over(self, alias: str, batch: Batch) -> None:
        self._full[id(batch)] = alias, batch
        if len(self._full) >= _UNMERGED:
            self._merge()

    def thread_ended(self, tally: Tally) -> None:
        """Keep the counts of a thread that has ended. A finalizer calls this."""
        tally.ended = True
        self._ended[id(tally)] = tally

    def _merge(self) -> None:
        locked(self._lock, self._merge_locked)

    def _merge_locked(self) -> None:
        if depth(self._lock) > 1:
            return  # a signal handler or a finalizer, in the middle of the same
        self._drop_taken()
        ended = list(self._ended.values())
        gone = set(map(id, ended))
        live = [tally for key, tally in list(self._live.items()) if key not in gone]
        # A batch may be handed over, and its thread not yet have another one.
        current = {id(tally.batch) for tally in live}
        batches = {key: full for key, full in list(self._full.items()) if key not in current}
        part = Totals()
        for tally in ended:
            part.add_pool(tally)
            batches[id(tally.batch)] = tally.alias, tally.batch
        if not batches:
            return
        for alias, batch in batches.values():
            part.add_batch(alias, batch)
        parts = (*self._merged.parts, part)
        if len(parts) > _PARTS:
            parts = (_sum(parts),)
        self._merged = _Merged(parts, (*ended, *(batch for _, batch in batches.values())))
        self._drop_taken()

    def _drop_taken(self) -> None:
        """Drop the tallies and batches that were merged."""
        for key in map(id, self._merged.taken):
            self._live.pop(key, None)
            self._ended.pop(key, None)
            self._full.pop(key, None)
        self._merged = _Merged(self._merged.parts)

    def totals(self) -> Totals:
        """Return the counts of all threads so far."""
        return locked(self._lock, self._read)

    def pools(self) -> dict[str, PoolCounts]:
        """Return the counts of pools so far, by alias."""
        return locked(self._lock, lambda: self._read(pools_only=True).pools)

    def _read(self, *, pools_only: bool = False) -> Totals:
        """Return all counts, each of them once, whatever threads and finalizers do meanwhile."""
        self._merge_locked()
        merged = self._merged
        taken = set(map(id, merged.taken))
        found = Totals()
        for part in merged.parts:
            if pools_only:
                found.merge_pools(part)
            else:
                found.merge(part)
        batches: dict[int, tuple[str, Batch]] = {}
        for key, tally in list(self._live.items()):
            batch = tally.batch
            batches[id(batch)] = tally.alias, batch
            if key not in taken:
                found.add_pool(tally)
        # These last: a batch that was handed over meanwhile is here, and counted once.
        batches |= self._full
        add = found.add_batch_to_pool if pools_only else found.add_batch
        for key, (alias, batch) in batches.items():
            if key not in taken:
                add(alias, batch)
        return found

    def forget_statements(self) -> None:
        """Begin anew to count statements."""
        locked(self._lock, lambda: self._forget("statements"))

    def forget_routes(self) -> None:
        """Begin anew to count routes."""
        locked(self._lock, lambda: self._forget("routes"))

    def _forget(self, what: str) -> None:
        for tally in list(self._live.values()):
            tally.forget(what)
        self._merge_locked()
        kept = _sum(self._merged.parts)
        setattr(kept, what, getattr(Totals(), what))
        self._merged = _Merged((kept,), self._merged.taken)


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


def is_counted(alias: str, kind: Kind) -> bool:
    """Return whether *kind* is counted for *alias*, if that is observed at all."""
    return bool(getattr(_collection.kinds(alias), kind))


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
