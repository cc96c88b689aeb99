"""Kept leases: what is noted of leases that outlast a statement, and of idle connections."""

from __future__ import annotations

import weakref
from time import monotonic
from typing import Any

from relet.core import Lease, PooledConnection

from . import collection, durations, stacks
from .stacks import Stack

#: Frames from `stacks.here` to the caller of relet's cursor, at least.
_STATEMENT_FRAMES = 4


class Trace:
    """What is noted of a lease that outlasts a statement.

    :ivar route: what it was taken for.
    :ivar leased_at: where the statement ran that took it.
    :ivar cursor_at: where the last cursor was taken.
    :ivar ran_at: where the last statement ran.
    :ivar ran: seconds for which statements ran in it.
    :ivar since: when its last statement began or ended, in seconds of `time.monotonic`.
    :ivar alone: whether the statement that now runs is a lease of its own if it ends the lease,
        because the lease was only begun for it.
    :ivar depth: how many frames of a stack are kept; 0 for no stacks.
    :ivar waited_before: `Contention.waited` when the lease began.
    """

    __slots__ = (
        *("alone", "cursor_at", "depth", "leased_at"),
        *("ran", "ran_at", "route", "since", "waited_before"),
    )

    def __init__(self, route: str, now: float, leased_at: Stack, depth: int) -> None:
        self.route, self.depth = route, depth
        self.leased_at = self.cursor_at = self.ran_at = leased_at
        self.ran = 0.0
        self.since = now
        self.alone = False
        self.waited_before = 0.0


class KeptLeases(dict[Lease, "Trace | None"]):
    """`PoolAdapter.long_leases` of a pool that is observed: each lease -> its `Trace`.

    The leases add themselves and remove themselves, in the thread that uses them.

    :param depth: how many frames of a stack are kept.
    :ivar sessions: the connections of the pool.
    """

    def __init__(self, pool: Any, depth: int) -> None:
        super().__init__()
        self._pool = weakref.ref(pool)
        self.alias: str = pool.config.alias
        self.depth = depth
        self.sessions = Sessions()

    def __setitem__(self, lease: Lease, value: Any) -> None:
        if lease in lease.pins:  # it only initializes a connection
            super().__setitem__(lease, None)
            return
        route = collection.route(self.alias)
        depth, now = self.depth, monotonic()
        stack = stacks.here(_STATEMENT_FRAMES, depth) if depth else ()
        trace = Trace(route, now, stack, depth)
        contention = collection.contention(self.alias)
        if contention.until > 0:
            since = contention.waited_since(lease.leased_at, now)
            trace.waited_before = contention.waited(now) - since
        super().__setitem__(lease, trace)

    def pop(self, lease: Lease, default: Any = None) -> Any:
        if (trace := super().pop(lease, None)) is not None and not trace.alone:
            self._ended(lease, trace)
        return trace

    def _ended(self, lease: Lease, trace: Trace) -> None:
        now = monotonic()
        held = now - lease.leased_at
        tally = collection.here(self.alias)
        durations.add(self.alias, "uses", held)
        counts = tally.route(trace.route).counts
        counts.add_lease(held, trace.ran)
        waited = collection.contention(self.alias).waited(now) - trace.waited_before
        if waited > 0:
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
