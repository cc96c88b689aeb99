"""The pools of this process: one for each alias, made when first used."""

from __future__ import annotations

import atexit
import copy
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from relet.core import PoolAdapter

#: Parent's pools, in a child. Kept for good: collecting one would join threads that
#: do not exist here, and might close sockets that the parent still uses.
_PARENTS: list[object] = []


@dataclass(frozen=True)
class _Entry:
    alias: str
    settings: dict[str, Any]
    timezone_name: str
    pool: PoolAdapter[Any]


class Pools:
    """Every pool of this process.

    A pool belongs to an alias *and* to the settings it was made from: Django's
    test runner changes ``NAME`` in place, a copied wrapper may have other options.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []

    def get(
        self,
        alias: str,
        settings: dict[str, Any],
        timezone_name: str,
        make: Callable[[], PoolAdapter[Any]],
    ) -> PoolAdapter[Any]:
        """Return the pool for *alias* with *settings*; *make* one if there is none."""
        with self._lock:
            for entry in self._entries:
                if (
                    entry.alias == alias
                    and entry.timezone_name == timezone_name
                    and entry.settings == settings
                    and not entry.pool.closed
                ):
                    return entry.pool
            pool = make()
            self._entries.append(_Entry(alias, copy.deepcopy(settings), timezone_name, pool))
            return pool

    def __iter__(self) -> Iterator[tuple[str, PoolAdapter[Any]]]:
        """Yield (alias, pool) for what is open now."""
        with self._lock:
            entries = list(self._entries)
        return ((entry.alias, entry.pool) for entry in entries)

    def close_alias(self, alias: str) -> None:
        """Close all pools of *alias*."""
        self._close(lambda entry: entry.alias == alias)

    def close_database(self, settings: dict[str, Any], name: str) -> None:
        """Close all pools on the database *name*, whatever their alias.

        A test mirror is another alias on the same database, and DROP DATABASE
        wants nobody else connected.
        """

        def same_database(entry: _Entry) -> bool:
            return entry.settings["NAME"] == name and all(
                entry.settings[key] == settings[key] for key in ("HOST", "PORT")
            )

        self._close(same_database)

    def close_all(self) -> None:
        """Close every pool."""
        self._close(lambda entry: True)

    def _close(self, chosen: Callable[[_Entry], bool]) -> None:
        with self._lock:
            closing = [entry for entry in self._entries if chosen(entry)]
            self._entries = [entry for entry in self._entries if entry not in closing]
        # Outside the lock: closing waits for the pool's threads.
        for entry in closing:
            entry.pool.close()

    def forget(self) -> None:
        """In a child process: drop the parent's pools without touching them."""
        _PARENTS.append(self._entries)
        self._lock = threading.Lock()
        self._entries = []


pools = Pools()

# Else each pool's threads are waited for when it is collected, in no order.
atexit.register(pools.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pools.forget)
