"""LeanPool: psycopg_pool's ConnectionPool, with a getconn and a putconn made for leases."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg
import psycopg_pool
from psycopg_pool import PoolTimeout

Connection = psycopg.Connection[Any]


class Place:
    """A place in the pool's queue, in the terms of psycopg_pool's ``WaitingClient``.

    `set` is called under the pool's lock, and so is the change of mind in `LeanPool.take`:
    a connection is given to whoever takes it, or stays.
    """

    __slots__ = ("conn", "error", "turn")

    def __init__(self) -> None:
        self.conn: Connection | None = None
        self.error: BaseException | None = None
        self.turn = threading.Lock()
        self.turn.acquire()

    def set(self, raw: Connection) -> bool:
        if self.error is not None:
            return False
        self.conn = raw
        self.turn.release()
        return True

    def fail(self, error: Exception) -> bool:
        if self.conn is not None or self.error is not None:
            return False
        self.error = error
        self.turn.release()
        return True


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
            place.turn.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
            raw = place.conn
            if raw is None:
                raise place.error or PoolTimeout(
                    f"couldn't get a connection after {timeout:.2f} sec"
                )
        except BaseException as error:
            with self._lock:
                place.error = place.error or error
                raw = place.conn
                self._stats["requests_errors"] += 1
                with suppress(ValueError):  # the pool has taken it off
                    self._waiting.remove(place)  # type: ignore[arg-type]
            if raw is None:
                raise
            if not isinstance(error, Exception):
                raw._pool = self
                self.putconn(raw)
                raise
            # It came at the last moment.
        finally:
            self._stats["requests_wait_ms"] += int(1000 * (monotonic() - began))
        raw._pool = self
        return raw

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
