"""The pools of this process: one for each alias, made when first used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from time import monotonic
from typing import Any

from relet.core import PoolAdapter, ReleasePolicy

#: Parent's pools, in a child. Kept for good: collecting one would join threads that
#: do not exist here, and might close sockets that the parent still uses.
_PARENTS: list[object] = []


_always_there = itemgetter("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")


def _made_from(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Take from an alias' settings what a pool is made from, beside the time zone."""
    return (*_always_there(settings), settings.get("POOL_OPTIONS"))


def copied(settings: Any) -> Any:
    """Return *settings* with dicts, lists and tuples copied, and what is in them as it is.

    There may be what cannot be copied: a connector, an `ssl.SSLContext`.
    """
    if type(settings) is dict:
        return {key: copied(value) for key, value in settings.items()}
    if type(settings) in (list, tuple):
        return type(settings)(map(copied, settings))
    return settings


@dataclass(frozen=True)
class OpenPool:
    """A pool, its policy, and what they were made from."""

    alias: str
    made_from: tuple[Any, ...]
    timezone_name: str
    pool: PoolAdapter[Any]
    policy: ReleasePolicy

    def serves(self, alias: str, settings: dict[str, Any], timezone_name: str) -> bool:
        return (
            self.made_from == _made_from(settings)
            and self.alias == alias
            and self.timezone_name == timezone_name
            and not self.pool.closed
        )


class Pools:
    """Every pool of this process.

    A pool belongs to an alias *and* to the settings it was made from: Django's
    test runner changes ``NAME`` in place, a copied wrapper may have other options.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[OpenPool] = []

    def get(
        self,
        alias: str,
        settings: dict[str, Any],
        timezone_name: str,
        make: Callable[[], tuple[PoolAdapter[Any], ReleasePolicy]],
    ) -> OpenPool:
        """Return the pool for *alias* with *settings*; *make* one if there is none."""
        with self._lock:
            for entry in self._open:
                if entry.serves(alias, settings, timezone_name):
                    return entry
            # Copied, for Django's test runner changes settings in place.
            made_from = copied(_made_from(settings))
            entry = OpenPool(alias, made_from, timezone_name, *make())
            self._open.append(entry)
            return entry

    def __iter__(self) -> Iterator[OpenPool]:
        with self._lock:
            return iter(list(self._open))

    def close_alias(self, alias: str) -> None:
        """Close all pools of *alias*."""
        self._close(lambda entry: entry.alias == alias)

    def close_database(self, settings: dict[str, Any], name: str) -> None:
        """Close all pools on the database *name*, whatever their alias.

        A test mirror is another alias on the same database, and DROP DATABASE
        wants nobody else connected.
        """

        def same_database(entry: OpenPool) -> bool:
            _, its_name, _, _, host, port, *_ = entry.made_from
            return (its_name, host, port) == (name, settings["HOST"], settings["PORT"])

        self._close(same_database)

    def close_all(self) -> None:
        """Close every pool."""
        self._close(lambda entry: True)

    def close_within(self, timeout: float) -> bool:
        """Close every pool, all at once; return whether that took *timeout* seconds at most."""
        deadline = monotonic() + timeout
        threads = [
            threading.Thread(
                target=entry.pool.close, name=f"relet-close-{entry.alias}", daemon=True
            )
            for entry in self._take(lambda entry: True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _close(self, chosen: Callable[[OpenPool], bool]) -> None:
        # Outside the lock: closing waits for the pool's threads.
        for entry in self._take(chosen):
            entry.pool.close()

    def _take(self, chosen: Callable[[OpenPool], bool]) -> list[OpenPool]:
        """Take entries out, for they are about to be closed."""
        with self._lock:
            closing = [entry for entry in self._open if chosen(entry)]
            self._open = [entry for entry in self._open if entry not in closing]
        return closing

    def forget(self) -> None:
        """In a child process: drop the parent's pools without touching them."""
        _PARENTS.append(self._open)
        self._lock = threading.Lock()
        self._open = []


pools = Pools()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pools.forget)
