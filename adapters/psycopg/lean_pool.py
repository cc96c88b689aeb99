"""LeanPool: psycopg_pool's ConnectionPool, with a getconn and a putconn made for leases."""

from __future__ import annotations

from time import monotonic

import psycopg_pool
from psycopg_pool import PoolTimeout

from relet.adapters.drivers.psycopg import Connection
from relet.adapters.place import Place


class LeanPool(psycopg_pool.ConnectionPool[Connection]):
    """A `ConnectionPool` with a ``getconn()`` and a ``putconn()`` made for leases.

    A lease is one of each for every statement. What there is to decide takes the
    pool few steps; the others, mostly log calls and look-ups, and two locks for each
    wait, are a fifth of the CPU of a ``SELECT 1``. `take` and `give` do what is to
    be done, under the pool's own lock, and leave to the pool what is rare: to grow, to
    check, to expire, to close. Those who wait are served in order. Of the connections
    that are ready, the last to come back is the first to go: its server process is
    warm, has the prepared statements, and those not needed stay idle, to be closed.

    And they lose nothing to an interrupt. psycopg_pool cleans up after an `Exception`
    only: a KeyboardInterrupt, SystemExit or GreenletExit that strikes in ``getconn()``
    leaves a place in the queue, the next connection is given to nobody, and the pool is
    one smaller for good.

    They rely on the pool's insides, see `LEAN`.
    """

    def take(self, timeout: float | None) -> Connection:
        if self._check is not None:
            return self.getconn(timeout)
        with self._lock:
            ready = self._pool
            if ready and not self._closed:
                raw: Connection = ready.pop()
                if len(ready) < self._nconns_min:
                    self._nconns_min = len(ready)
                self._stats["requests_num"] += 1
                raw._pool = self
                return raw
            refused = self._closed or 0 < self.max_waiting <= len(self._waiting)
            if not refused:
                place = Place()
                self._waiting.append(place)  # type: ignore[arg-type]
                self._stats["requests_num"] += 1
                self._stats["requests_queued"] += 1
                self._maybe_grow_pool()
        if refused:
            return self.getconn(timeout)  # says why
        return self._wait_for(place, self.timeout if timeout is None else timeout)

    def _wait_for(self, place: Place, timeout: float) -> Connection:
        began = monotonic()
        try:
            raw: Connection | None = place.wait(timeout, self._lock, self._waiting, self._give_back)
            if raw is None:
                raise PoolTimeout(f"couldn't get a connection after {timeout:.2f} sec")
        except BaseException:
            self._stats["requests_errors"] += 1
            raise
        finally:
            self._stats["requests_wait_ms"] += int(1000 * (monotonic() - began))
        raw._pool = self
        return raw

    def _give_back(self, raw: Connection) -> None:
        raw._pool = self
        self.putconn(raw)

    def give(self, raw: Connection, now: float) -> None:
        """Return *raw*, on which no transaction is open."""
        if not (
            self._reset is not None
            or self._pool_full_event is not None
            or raw._expire_at <= now
            or raw._created_at <= self._drained_at
        ):
            with self._lock:
                if not self._closed:
                    raw._pool = None
                    while self._waiting:
                        if self._waiting.popleft().set(raw):
                            return
                    self._pool.append(raw)
                    return
        self.putconn(raw)


#: Whether this psycopg_pool is one that `LeanPool` has been read against.
LEAN = psycopg_pool.__version__.split(".")[:2] in (["3", "2"], ["3", "3"])
