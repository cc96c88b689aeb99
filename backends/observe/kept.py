"""Kept leases: what is noted of leases that outlast a statement, and of idle connections."""

from __future__ import annotations

import weakref
from _thread import get_ident
from collections.abc import Callable
from time import monotonic
from typing import Any

from relet.core import Lease, PooledConnection
from relet.core.observe import Contention, Tally

from . import collection, durations, stacks
from .scopes import CURRENT, Scope
from .stacks import FULL, Stack, Walk, of, of_deep

#: Frames from `KeptLeases.__setitem__` to relet's cursor.
_CURSOR_FRAMES = 3


class Trace:
    """What is noted of a lease that outlasts a statement.

    :ivar route: what it was taken for.
    :ivar leased_at: where the statement ran that took it.
    :ivar cursor_at: where the last cursor was taken.
    :ivar ran_at: where the last statement ran.
    :ivar ran: seconds for which statements ran in it.
    :ivar since: when its last statement began or ended, in seconds of `time.monotonic`.
    :ivar walk: returns the stack of a frame; None if no stacks are kept.
    :ivar waited_before: `Contention.waited` when the lease began.
    """

    __slots__ = (
        *("cursor_at", "leased_at", "ran"),
        *("ran_at", "route", "since", "waited_before", "walk"),
    )

    def __init__(self, route: str, now: float, leased_at: Stack, walk: Walk | None) -> None:
        self.route, self.walk = route, walk
        self.leased_at = self.cursor_at = self.ran_at = leased_at
        self.ran = self.waited_before = 0.0
        self.since = now


def _nowhere() -> Scope | None:
    return None


class ObservedLease(Lease):
    """A lease of a wrapper that is observed.

    :ivar trace: what is noted of it while it outlasts a statement, else None.
    :ivar tally: what its thread has counted for its alias.
    :ivar home: that thread.
    :ivar scope: returns the scope of this thread or task, if any.
    :ivar fallback: the scope if there is none.
    :ivar contention: who waits for connections of its alias.
    :ivar running_for: the scope of its last statement, while it has no trace.
    """

    __slots__ = ("contention", "fallback", "home", "running_for", "scope", "tally", "trace")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trace: Trace | None = None
        self.running_for: Scope | None = None
        self.observe()

    def observe(self) -> None:
        """Count for this thread from now on."""
        alias = self.alias
        self.home = get_ident()
        self.tally: Tally = collection.here(alias)
        self.fallback = fallback = collection.fallback(alias)
        self.scope: Callable[[], Scope | None] = (
            _nowhere if fallback is collection.NOWHERE else CURRENT.get
        )
        self.contention: Contention = collection.contention(alias)


class KeptLeases(dict[Lease, "Trace | None"]):
    """`PoolAdapter.long_leases` of a pool that is observed: each lease -> its `Trace`.

    The leases add themselves and remove themselves, in the thread that uses them.

    :param with_stacks: whether to keep stacks.
    :ivar sessions: the connections of the pool.
    """

    def __init__(self, pool: Any, *, with_stacks: bool) -> None:
        super().__init__()
        self._pool = weakref.ref(pool)
        self.alias: str = pool.config.alias
        #: The walk that suited the last lease.
        self._walk: Walk | None = of if with_stacks else None
        self.sessions = Sessions()

    def __setitem__(self, lease: Lease, value: Any) -> None:
        trace = None
        if not isinstance(lease, ObservedLease):
            # The wrapper was made before its settings changed, so it is not observed.
            dict.__setitem__(self, lease, None)
            return
        if lease not in lease.pins:  # else it only initializes a connection
            stack: Stack = ()
            if (walk := self._walk) is not None:
                stack = stacks.of_statement(_CURSOR_FRAMES, walk)
                self._walk = walk = of_deep if len(stack) == FULL else of
            began, contention = lease.leased_at, lease.contention
            trace = Trace((lease.scope() or lease.fallback).route, began, stack, walk)
            if contention.until > 0:
                trace.waited_before = contention.waited(began)
        dict.__setitem__(self, lease, trace)
        lease.trace = trace

    def pop(self, lease: Lease, default: Any = None) -> Any:
        # Removed last: after an interrupt, this is called once more.
        if isinstance(lease, ObservedLease):
            lease.trace = None
            if (trace := dict.pop(self, lease, None)) is not None:
                self._ended(lease, trace)
            return trace
        return dict.pop(self, lease, None)

    def _ended(self, lease: ObservedLease, trace: Trace) -> None:
        now, began = monotonic(), lease.leased_at
        held = now - began
        tally = lease.tally
        if lease.home != get_ident() or tally.ended:
            tally = collection.here(self.alias)
        durations.note(tally, "uses", held)
        counts = tally.route(trace.route).counts
        counts.add_lease(held, trace.ran)
        contention = lease.contention
        if contention.until > began:  # else nobody has waited since then
            waited = contention.waited(now) - trace.waited_before
            pool = self._pool()
            counts.blocked += waited / ((pool is not None and pool.max_size) or 1)


class Session:
    """A connection of a pool.

    :ivar opened_at: in seconds of `time.monotonic`.
    """

    __slots__ = ("_connection", "_raw", "opened_at")

    def __init__(self, raw: weakref.ref[Any], now: float) -> None:
        self._raw, self.opened_at = raw, now
        self._connection: weakref.ref[PooledConnection] | None = None

    @property
    def raw(self) -> Any:
        """The driver's connection, or None if it is gone."""
        return self._raw()

    @property
    def last_used_at(self) -> float:
        """When it was last used, in seconds of `time.monotonic`."""
        connection = None if self._connection is None else self._connection()
        return self.opened_at if connection is None else connection.last_used_at

    def used(self, connection: PooledConnection) -> None:
        """Note that it was leased as *connection*."""
        self._connection = weakref.ref(connection)


class Sessions:
    """The open connections of a pool, leased or not."""

    def __init__(self) -> None:
        self._by_id: dict[int, Session] = {}

    def add(self, raw: Any, now: float) -> None:
        """Note a new connection, while it lives."""
        by_id, key = self._by_id, id(raw)
        try:
            found = weakref.ref(raw, lambda gone: by_id.pop(key, None))
        except TypeError:
            return  # the driver's connections cannot be referred to weakly
        by_id[key] = Session(found, now)

    def find(self, raw: Any) -> Session | None:
        """Return the session of the driver's connection *raw*, if it is known."""
        return self._by_id.get(id(raw))

    def __iter__(self) -> Any:
        return iter(list(self._by_id.values()))
