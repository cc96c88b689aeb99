"""What goes wrong in the chaos test, when, and how often it has."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any

from ..support import driver
from ..support.proxy import Proxy
from ..support.server import Server
from .bank import TOTAL

#: What there is beside the kills, and when: in parts of the whole.
PLAN = {
    "stall": (0.06, 0.15, 0.24, 0.42, 0.56, 0.72, 0.88),
    "fast": (0.3,),
    "reset": (0.48,),
    "immediate": (0.64,),
    "lull": tuple(number / 20 for number in range(1, 20)),
    "look": tuple((number + 0.5) / 12 for number in range(12)),
}
#: Seconds between one kill and the next, at most; less, where fewer than so many a second came off.
OFTEN, RATE = 0.2, 4.5
#: Kills a second that there must have been.
LEAST = 200 / 60
BACKENDS = """SELECT pid, state FROM pg_stat_activity
              WHERE backend_type = 'client backend' AND application_name <> 'havoc'"""


class Havoc:
    """Kills server processes at random moments, and does what is in the `PLAN`.

    :param busy: is cleared for the clients to pause, so that what is idle is killed, too.
    :param resting: tells whether they do.
    :param sessions: how many there are to be at most.
    """

    def __init__(
        self,
        server: Server,
        network: Proxy,
        chance: random.Random,
        busy: threading.Event,
        resting: Callable[[], bool],
        sessions: int,
    ) -> None:
        self.server, self.network, self.chance = server, network, chance
        self.busy, self.resting = busy, resting
        #: How many server processes were killed, in which state.
        self.kills: Counter[str] = Counter()
        #: How often each thing of the `PLAN` was done.
        self.done: Counter[str] = Counter()
        self.sessions = sessions
        #: How many there were at most; for how many seconds there were too many without a break.
        #: One whose client has gone stays until it looks: it may wait for a lock.
        self.most, self.too_many_for = 0, 0.0
        self._well_at: float | None = None
        self._over = threading.Event()
        self._stack = ExitStack()
        self._observer: driver.Observer | None = None

    def wreak(self, seconds: float) -> None:
        begun = monotonic()
        plan = sorted((part * seconds, name) for name, parts in PLAN.items() for part in parts)
        with self._stack:
            while (now := monotonic() - begun) < seconds or (
                # Where others have the processors, it takes longer.
                self.kills.total() < LEAST * seconds and now < 3 * seconds
            ):
                if plan and plan[0][0] <= now:
                    _, name = plan.pop(0)
                    getattr(self, f"_{name}")()
                    self.done[name] += 1
                self._kill()
                self._wait(0.01, OFTEN if self.kills.total() >= RATE * now else OFTEN / 4)
            for _, name in plan:  # it was too short a time
                getattr(self, f"_{name}")()
                self.done[name] += 1

    def _wait(self, least: float, most: float) -> None:
        self._over.wait(self.chance.uniform(least, most))

    def _ask(self, sql: str, params: Any = None) -> list[Any]:
        """Ask the server, beside the network that is bad; nothing is known while it is gone."""
        try:
            if self._observer is None:
                told = {**self.server.parameters, "application_name": "havoc"}
                self._observer = self._stack.enter_context(driver.connect(**told))
            return list(self._observer.execute(sql, params).fetchall())
        except (driver.dbapi.OperationalError, driver.dbapi.InterfaceError):
            self._observer = None
            with suppress(driver.dbapi.Error):
                self._stack.close()
            return []

    def _kill(self) -> None:
        found = self._ask(BACKENDS)
        self._count(len(found))
        if found:
            state = self.chance.choice(sorted({state or "" for _, state in found}))
            pid = self.chance.choice([pid for pid, its in found if (its or "") == state])
            if self._ask("SELECT pg_terminate_backend(%s)", [pid]) in ([(True,)], [[True]]):
                self.kills[state] += 1

    def _count(self, sessions: int) -> None:
        now = monotonic()
        if sessions <= self.sessions or self._well_at is None:
            self._well_at = now
        self.most = max(self.most, sessions)
        self.too_many_for = max(self.too_many_for, now - self._well_at)

    def _lull(self) -> None:
        self.busy.clear()
        for _ in range(20):
            if self.resting():
                self._kill()
                break
            self._wait(0.02, 0.05)
        self.busy.set()

    def _look(self) -> None:
        for (total,) in self._ask("SELECT sum(balance)::bigint FROM faults_account"):
            assert total == TOTAL, total

    def _stall(self) -> None:
        with self.network.stalled():
            self._wait(0.1, 0.3)
            self._kill()
            self._wait(0.1, 0.7)

    def _reset(self) -> None:
        self.network.reset()

    def _fast(self) -> None:
        self.server.restart("fast")

    def _immediate(self) -> None:
        self.server.restart("immediate")
