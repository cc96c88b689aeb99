"""Observer: makes a pool tell what happens in it.

Everything is hooked into the one pool that is observed. The others run the code that they would
run if there were no observation.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from relet.core import PoolAdapter, PoolConfig

from . import collection, durations
from .kept import KeptLeases, Sessions


class PoolObserver:
    """Notes what happens in one pool: before it is made with `config`, then with `watch`.

    :param alias: the key in ``DATABASES``.
    :param with_stacks: whether to note where leases that outlast a statement were taken.
    """

    def __init__(self, alias: str, *, with_stacks: bool) -> None:
        self._alias = alias
        self._with_stacks = with_stacks
        self._opening = threading.local()
        self._sessions: Sessions | None = None

    def config(self, config: PoolConfig) -> PoolConfig:
        """Return *config* with functions that note how long it takes to open a connection.

        A pool calls ``ask``, opens the connection, and calls ``configure``, all in one thread.
        """
        ask, configure = config.ask, config.configure

        def asked() -> Mapping[str, Any]:
            self._opening.began = monotonic()
            return ask()

        def configured(raw: Any) -> object:
            result = configure(raw)
            self._opened(raw)
            return result

        return replace(config, ask=asked, configure=configured)

    def _opened(self, raw: Any) -> None:
        now = monotonic()
        began = vars(self._opening).pop("began", now)
        durations.add(self._alias, "creations", now - began)
        if self._sessions is not None:
            self._sessions.add(raw, now)

    def watch(self, pool: PoolAdapter[Any]) -> None:
        """Note what happens in *pool*, which was just made."""
        kept = KeptLeases(pool, with_stacks=self._with_stacks)
        self._sessions = kept.sessions
        pool.long_leases = kept
        pool.on_timeout = self._timed_out
        pool.watch_waits(self._wait_began, self._wait_ended)
        pool.discard_from = _counting(pool, self._discarded)  # type: ignore[assignment]

    def _timed_out(self) -> None:
        collection.here(self._alias).pool.timeouts += 1

    def _discarded(self) -> None:
        collection.here(self._alias).pool.discarded += 1

    def _wait_began(self, wait: object) -> None:
        collection.contention(self._alias).begin(wait, monotonic())

    def _wait_ended(self, wait: object) -> None:
        seconds = collection.contention(self._alias).end(wait, monotonic())
        if seconds > 0:  # else its end was noted already
            durations.add(self._alias, "waits", seconds).waited += seconds


def _counting(pool: PoolAdapter[Any], count: Callable[[], object]) -> Callable[[Any], None]:
    """Return ``pool.discard_from``, which calls *count* as well."""
    discard_from = type(pool).discard_from
    found = weakref.ref(pool)  # the pool must not keep itself alive

    def discard(lease: Any) -> None:
        discards = lease.connection is not None
        discard_from(found(), lease)  # type: ignore[arg-type]
        if discards:
            count()

    return discard
