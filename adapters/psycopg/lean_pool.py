"""LeanPool: psycopg_pool's ConnectionPool, with a getconn and a putconn made for leases."""

from __future__ import annotations

from time import monotonic
from typing import Any

import psycopg_pool
from psycopg_pool import PoolTimeout
from psycopg_pool.pool import AddConnection

from relet.adapters.drivers.psycopg import Connection
from relet.adapters.place import Place

#: Seconds between one attempt to connect and the next, at most, while somebody waits.
_AGAIN = 0.5


class _Attempt(AddConnection):
    """An attempt to connect that is made later; sooner, and still once, if somebody waits."""

    def __init__(self, pool: LeanPool, later: AddConnection) -> None:
        super().__init__(pool, later.attempt, growing=later.growing)
        #: When it may be made at the soonest, in seconds of `time.monotonic`; None: it will.
        self.soonest: float | None = monotonic() + _AGAIN

    def tick(self) -> None:
        pool: Any = self.pool()
        if pool is not None and pool._attempts.pop(self, None) is not None:
            super().tick()


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

    Where connections cannot be opened, psycopg_pool waits twice as long each time before it
    tries again: when the server is back, requests would wait for that. So while somebody waits
    it tries every half second.

    They rely on the pool's insides, see `LEAN`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._attempts: dict[_Attempt, bool] = {}
        super().__init__(*args, **options)

    def schedule_task(self, task: Any, delay: float) -> None:
        if isinstance(task, AddConnection):
            task = _Attempt(self, task)
            self._attempts[task] = True
            if self._waiting:
                delay = min(delay, _AGAIN)
        super().schedule_task(task, delay)

    def _hasten(self) -> None:
        """Somebody waits: have attempts made that were to be made later."""
        now = monotonic()
        for attempt in list(self._attempts):
            if attempt.soonest is not None:
                # In the pool's own thread, where no interrupt strikes.
                self._sched.enter(max(attempt.soonest - now, 0), attempt.tick)
                attempt.soonest = None

    def take(self, timeout: float | None) -> Connection:
        if self._check is not None:
            return self.getconn(timeout)
        raw: Connection | None = None
        place: Place | None = None
        began = 0.0
        try:
            with self._lock:
                ready = self._pool
                if ready and not self._closed:
                    # Not pop(): an interrupt strikes when a call returns, and would lose it.
                    raw = ready[-1]
                    del ready[-1]
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
                    if self._attempts:
                        self._hasten()
            if place is None:
                return self.getconn(timeout)  # says why
            seconds = self.timeout if timeout is None else timeout
            began = monotonic()
            if not place.wait(seconds, self._lock, self._waiting):
                raise PoolTimeout(f"couldn't get a connection after {seconds:.2f} sec")
            self._stats["requests_wait_ms"] += int(1000 * (monotonic() - began))
            raw, place.conn = place.conn, None
            raw._pool = self
            return raw
        except BaseException:
            if place is not None:
                self._stats["requests_errors"] += 1
                if began:
                    self._stats["requests_wait_ms"] += int(1000 * (monotonic() - began))
                place.leave(self._lock, self._waiting, self._give_back)
            if raw is not None:
                self._give_back(raw)
            raise

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
                    place = None
                    try:
                        while self._waiting:
                            place = self._waiting.popleft()
                            if place.set(raw):
                                return
                        self._pool.append(raw)
                    except BaseException:
                        if raw not in self._pool and (place is None or place.conn is not raw):
                            raw._pool = self  # whoever returns it may try again
                        raise
                    return
        self.putconn(raw)


#: Whether this psycopg_pool is one that `LeanPool` has been read against.
LEAN = psycopg_pool.__version__.split(".")[:2] == ["3", "3"]
