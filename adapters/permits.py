"""Permits: a pool's part in a budget that many processes share; see `relet.core.budget`.

Each new connection takes a permit before it is configured. If all are taken, the connection that
was just opened asks for one as long as threads of its pool wait. It is the only connection of its
pool without a permit, because a pool with a budget opens one connection at a time. The threads wait
in the pool's queue meanwhile, and get whatever comes first: a connection that another thread gives
back, or the new one. When no thread waits any more, and the pool has its ``min_size``, the
connection is closed.

While others ask, a thread of each pool that could give up connections looks once a second whether
it should.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from relet.core import PoolAdapter, PoolConfig
from relet.core.budget import POOL_NUMBERS, Budget, describe_holders, shares, surplus

from .slots import Slot

logger = logging.getLogger("relet")

#: Neither reads nor changes the sequence of a project that has seeded Python's own.
_random = random.SystemRandom()
#: Seconds between two attempts to take a permit: the first, and the last for pools that have
#: connections and for those that have none.
_FIRST_S, _LAST_S, _LAST_WITHOUT_S = 0.05, 0.4, 0.1
#: Seconds for which permits count as scarce after one was refused, or others have asked.
_SCARCE_S = 10.0
#: Seconds between two looks at who holds the permits.
_LOOK_S = 1.0


class NoPermit(BaseException):
    """There is no permit for a new connection, and nobody waits for it any more.

    It is no `Exception`, because pools retry, log and report to waiters what is one. Only the two
    pools of relet meet it.
    """


class Permits:
    """The permits of one pool.

    :ivar wanted: returns whether somebody still waits for the connection that asks.
    """

    def __init__(self, budget: Budget, adapter: PoolAdapter[Any]) -> None:
        self.budget = budget
        #: The number by which the pools of the group tell each other apart. A forked child makes
        #: its own pools, with other numbers.
        self.pool = _random.randrange(POOL_NUMBERS)
        #: How many this pool held when it last took one.
        self.held = 0
        #: Connections that the pool never gives up.
        self.guaranteed = 1
        self.wanted: Callable[[], bool] = lambda: False
        self._adapter = weakref.ref(adapter)  # a cycle would delay its collection
        self._free = threading.Condition()
        self._opening = self._patient = False
        #: Whether a connection of this pool asks for a permit.
        self.asking = False
        self._holders: Sequence[str] = ()
        #: When one last stopped asking, in seconds of `time.monotonic`.
        self._asked_at = float("-inf")
        self._looks = self._warned = False
        #: When it was last seen that permits are scarce, in seconds of `time.monotonic`.
        self._scarce_at = float("-inf")

    def config(self, config: PoolConfig) -> PoolConfig:
        """Return *config* with a function that takes a permit before a connection is configured."""
        configure = config.configure

        def configured(raw: Any) -> object:
            self._take(raw)
            return configure(raw)

        return replace(config, configure=configured)

    # One connection at a time. These are called in the pools' own threads, never interrupted.

    def begin(self, *, patient: bool = True) -> bool:
        """Wait until this thread may open a connection; return False if another one asks.

        :param patient: whether the connection is to ask if no permit is free.
        """
        with self._free:
            self._free.wait_for(lambda: self.asking or not self._opening)
            if self.asking:
                return False
            self._opening, self._patient = True, patient
            return True

    def end(self) -> None:
        """Let other threads open connections again. Called once for each `begin` that is true."""
        with self._free:
            if self.asking:
                self._asked_at = time.monotonic()
            self._opening = self._patient = self.asking = False
            self._free.notify_all()

    def _take(self, raw: Any) -> None:
        """Take a permit for *raw*, a new connection.

        :raises NoPermit: see there.
        """
        if not (self._take_any(raw) or self._try(raw)):
            self._ask(raw)
        if not self._looks:
            self._looks = True
            look = threading.Thread(target=_look, args=[weakref.ref(self)], daemon=True)
            look.name = f"relet-budget-{self.budget.group}"
            with suppress(RuntimeError):  # the interpreter is shutting down
                look.start()

    def _take_any(self, raw: Any) -> bool:
        """Return whether *raw* got a permit, at a time when they are not scarce."""
        if time.monotonic() - self._scarce_at < _SCARCE_S:
            return False
        ((pid, permit),) = self._execute(raw, self.budget.take_any(self.pool))
        self._check_session(raw, pid)
        return permit is not None

    def _ask(self, raw: Any) -> None:
        adapter: Any = self._adapter()  # those that share a budget have a `dbapi`
        if not self._opening and adapter is not None:
            # Other code has the pool connect in its own thread, where nobody can wait.
            raise adapter.dbapi.OperationalError(
                f"DATABASES[{adapter.config.alias!r}]: the budget of the group "
                f"{self.budget.group!r}, {self.budget.connections} connections, is spent."
            )
        if not (self._patient and self.wanted()):
            raise NoPermit
        self._execute(raw, self.budget.ask(self.pool))
        with self._free:
            self.asking = True
            self._free.notify_all()
        pause, looked_at = _FIRST_S, 0.0
        while self.wanted():
            if (now := time.monotonic()) - looked_at > _LOOK_S:
                self._holders = describe_holders(self._execute(raw, self.budget.holders()))
                looked_at = now
            time.sleep(pause * _random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LAST_S if self.held else _LAST_WITHOUT_S)
            if self._try(raw):
                return
        raise NoPermit

    def _try(self, raw: Any) -> bool:
        """Return whether *raw* got a permit."""
        sql = self.budget.take(self.pool, asks=self.asking)
        ((pid, held, permit),) = self._execute(raw, sql)
        self.held = held + (permit is not None)
        self._check_session(raw, pid)
        if permit is None:
            self._scarce_at = time.monotonic()
        return permit is not None

    def _check_session(self, raw: Any, pid: int) -> None:
        """Warn if the session of *raw*, whose process id is *pid*, is behind a pooler."""
        if not self._warned and (adapter := self._adapter()) is not None:
            # What PgBouncer tells at the login is random, and may be no process id at all.
            self._warned = adapter.backend_pid(raw) != pid
            if self._warned:
                logger.warning(
                    "DATABASES[%r]['OPTIONS']['budget']: there is a pooler between this process "
                    "and the server. The budget needs a server session for each connection: use "
                    "session pooling, or remove the budget and set the pooler's own limits.",
                    adapter.config.alias,
                )

    def _execute(self, raw: Any, sql: str) -> list[tuple[Any, ...]]:
        adapter = self._adapter()
        if adapter is None:
            raise NoPermit
        return adapter.execute_internal(raw, sql)

    def describe(self) -> str:
        """Return who holds the permits, for the error of a thread that waited for one in vain.

        Empty if the pool has not asked for one.
        """
        # The thread that waited has left the queue, so the connection may just have been closed.
        if not (self.asking or time.monotonic() - self._asked_at < _LOOK_S):
            return ""
        lines = "".join(f"\n  {line}" for line in self._holders)
        return (
            f"\nThe budget of the group {self.budget.group!r}, {self.budget.connections} "
            f"connections, is spent. Raise OPTIONS['budget']['connections'], or lower the pools' "
            f"sizes; 'relet budget' shows both.{' Its holders:' if lines else ''}{lines}"
        )

    # Giving up connections.

    def look(self) -> bool:
        """Give up connections that others need more; return whether to look again."""
        adapter = self._adapter()
        if adapter is None or adapter.closed:
            return False
        stats = adapter.stats()
        if stats.in_use + stats.idle <= self.guaranteed:
            return True
        pool, slot = adapter.native, Slot()
        # In turn with the threads that wait, and for not longer than until the next look.
        with suppress(Exception):
            pool.checkout_into(slot, _LOOK_S)
        if slot.connection is None:
            return True
        idle = 0 if stats.waiting else stats.idle
        given_up = 0
        try:
            found = shares(adapter.execute_internal(slot.connection.raw, self.budget.look()))
            if any(share.asks for share in found.values()):
                self._scarce_at = time.monotonic()
            chance = _random.random()
            count = surplus(found, self.pool, guaranteed=self.guaranteed, idle=idle, chance=chance)
            while given_up < count and slot.connection is not None:
                pool.give_up(slot)
                given_up += 1
                if given_up < count and adapter.stats().idle:
                    with suppress(Exception):  # another thread was faster
                        pool.checkout_into(slot, 0.0)
        except Exception:  # noqa: BLE001 - the connection is lost, say
            if slot.connection is not None:
                pool.discard_from(slot)
        else:
            if slot.connection is not None:
                pool.checkin_from(slot)
        return True


def _look(permits: weakref.ref[Permits]) -> None:
    looks = True
    while looks:
        time.sleep(_LOOK_S * _random.uniform(0.75, 1.25))
        found = permits()
        looks = found is not None and found.look()
        found = None
