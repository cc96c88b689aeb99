"""PlainPool: leases on a version of ConnectionPool that `LeanPool` was not written for."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

import psycopg_pool

from relet.adapters.drivers.psycopg import Connection
from relet.adapters.opening import opened
from relet.core import PoolConfig, PooledConnection
from relet.core.background import BackgroundCall

#: Seconds that a thread waits, after a timeout, for the reason.
_PROBE_TIMEOUT = 0.15
#: The key of the attempt in `_probes`.
_PROBE = "probe"


class PlainPool:
    """Does what `LeanPool` does, but only by public methods of a `ConnectionPool`.

    An exception from outside may lose a connection at some instructions.
    """

    def __init__(self, native: psycopg_pool.ConnectionPool[Connection], config: PoolConfig) -> None:
        self.native = native
        self._config = config
        #: Threads that are known to be connecting.
        self.connecting: set[int] = set()
        self._probes: dict[str, BackgroundCall] = {}
        self.in_use: set[PooledConnection] = set()

    def checkout_into(self, slot: Any, timeout: float | None = None) -> None:
        raw: Any = None
        try:
            raw = self.native.getconn(timeout)
            connection = getattr(raw, "relet", None)
            if connection is None:
                connection = raw.relet = PooledConnection(raw, monotonic())
            connection.raw = raw
            self.in_use.add(connection)
            slot.connection = connection
        except BaseException:
            if raw is not None and slot.connection is None:
                self.in_use.discard(getattr(raw, "relet", None))
                raw.close()
                self.native.putconn(raw)
            raise

    def checkin_from(self, slot: Any) -> None:
        connection = slot.connection
        raw, connection.last_used_at = connection.raw, monotonic()
        try:
            self.in_use.discard(connection)
            connection.raw = None
            self.native.putconn(raw)
        except BaseException:
            if raw._pool is self.native:  # true until the pool has it back
                connection.raw = raw
                self.in_use.add(connection)
            else:
                slot.connection = None
            raise
        slot.connection = None

    def discard_from(self, slot: Any) -> None:
        connection = slot.connection
        if (raw := connection.raw) is not None:
            raw.close()
            if raw._pool is self.native:
                self.native.putconn(raw)
        self.in_use.discard(connection)
        connection.raw = None
        slot.connection = None

    def reach(self) -> None:
        """Open the pool if the server can be reached, in a thread that is never interrupted.

        The pool connects in threads of its own and only logs errors there: a waiting thread gets a
        timeout, and does not learn that the password is wrong. So this first connects directly.

        :raises Exception: connecting failed. This may be called again.
        """
        self._probe()
        self.native.open()

    def _probe(self) -> None:
        opened(self._connect_once, self._config).close()

    def _connect_once(self, parameters: Mapping[str, Any]) -> Connection:
        return self.native.connection_class.connect(**{**parameters, "autocommit": True})

    @property
    def failure(self) -> Exception | None:
        """The error of connecting now, if it fails. One thread at a time tries."""
        probe = self._probes.setdefault(_PROBE, BackgroundCall(self._probe))
        probe.start()
        if not probe.wait(_PROBE_TIMEOUT):
            return None
        self._probes.pop(_PROBE, None)
        return probe.error if isinstance(probe.error, Exception) else None
