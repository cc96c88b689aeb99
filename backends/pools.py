"""The pools of this process: one for each alias, made when first used."""

from __future__ import annotations

import _thread
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from time import monotonic
from typing import Any

from django.db import connections

from relet.backends.config.copying import copy_settings
from relet.core import PoolAdapter, ReleasePolicy
from relet.core.background import Latch
from relet.core.fork import keep_for_good
from relet.core.locks import locked

_always_there = itemgetter("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")


def _made_from(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Take from an alias' settings what a pool is made from, beside the time zone."""
    return (*_always_there(settings), settings.get("POOL_OPTIONS"))


MakePool = Callable[[], tuple[PoolAdapter[Any], ReleasePolicy]]
"""Makes a pool, and tells its policy."""

#: Seconds to wait for pools that are being closed already.
_PATIENCE = 5.0
#: And for a thread to begin.
_A_MOMENT = 1.0


class _Thread:
    """Lives in a thread's locals, and goes with them when the thread ends."""

    __slots__ = ("__weakref__",)


_locals = threading.local()


def _this_thread() -> _Thread:
    if not hasattr(_locals, "thread"):
        _locals.thread = _Thread()
    thread: _Thread = _locals.thread
    return thread


@dataclass(eq=False)
class PoolHandle:
    """A pool, its policy, and what they were made from.

    :param declared: whether its alias was in ``DATABASES`` when a wrapper last asked for it.
    :param users: the wrappers that use it, and the thread in which each has asked for it. A
        wrapper is in reference cycles of Django's, and may outlive its thread by hours.
    """

    alias: str
    made_from: tuple[Any, ...]
    timezone_name: str
    pool: PoolAdapter[Any]
    policy: ReleasePolicy
    declared: bool = False
    users: dict[weakref.ref[Any], weakref.ref[_Thread]] = field(default_factory=dict)

    @property
    def wanted(self) -> bool:
        """Whether its alias is still there, and the settings or a wrapper refer to it."""
        settings = connections.settings.get(self.alias)
        if self.declared and settings is None:
            return False
        return bool(self.users) or (settings is not None and self.made_from == _made_from(settings))

    def use(self, wrapper: Any) -> None:
        thread = weakref.ref(_this_thread(), self._thread_ended)
        self.users[weakref.ref(wrapper, self._left)] = thread

    def _left(self, user: weakref.ref[Any]) -> None:
        self.users.pop(user, None)
        self._look()

    def _thread_ended(self, thread: weakref.ref[_Thread]) -> None:
        for user, its in list(self.users.items()):
            if its is thread:
                self._left(user)

    def _look(self, exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        # This module may be gone by then.
        if not exiting() and not self.users and not self.wanted:
            # The garbage collector calls this anywhere, perhaps inside the lock.
            with suppress(RuntimeError):  # the interpreter is shutting down
                _thread.start_new_thread(pools.close_unwanted, ())

    def serves(self, alias: str, settings: dict[str, Any], timezone_name: str) -> bool:
        return (
            self.made_from == _made_from(settings)
            and self.alias == alias
            and self.timezone_name == timezone_name
            and not self.pool.closed
        )


class Closing:
    """A pool that is to be closed, or is."""

    def __init__(self, handle: PoolHandle) -> None:
        self.handle = handle
        #: Whether somebody sees to it, and whether it is closed.
        self.begun = self.done = False
        self._runs, self._over = Latch(), Latch()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        try:
            self.begun = True
            _thread.start_new_thread(self._run, ())
            self._runs.wait(_A_MOMENT)  # who asks for the pool next is to find it closed
        except RuntimeError:  # there are too many, or the interpreter is shutting down
            self._run()
        except BaseException:
            self.begun = False
            raise

    def _run(self) -> None:
        self._runs.set()
        with suppress(Exception):
            self.finish()
        self._over.set()

    def finish(self) -> None:
        """Close it here. Who is interrupted leaves it to the next who closes pools."""
        try:
            self.begun = True
            self.handle.pool.close()
            self.done = True
            self._over.set()
        except BaseException:
            self.begun = False
            raise

    @property
    def over(self) -> bool:
        """Whether it is closed, or could not be."""
        return self._over.is_set

    def wait(self, timeout: float) -> None:
        self._over.wait(timeout)


class Pools:
    """Every pool of this process.

    A pool belongs to an alias *and* to the settings it was made from: Django's
    test runner changes ``NAME`` in place, a copied wrapper may have other options.
    """

    def __init__(self) -> None:
        # A signal handler may close pools in the middle of anything.
        self._lock = threading.RLock()
        self._open: list[PoolHandle] = []
        self._closing: list[Closing] = []
        #: The aliases of pools that were in ``DATABASES``.
        self._declared: set[str] = set()

    def get(
        self,
        alias: str,
        settings: dict[str, Any],
        timezone_name: str,
        plan: Callable[[], MakePool],
        user: Any,
    ) -> PoolHandle:
        """Return the pool for *alias* with *settings*; make one if there is none.

        :param plan: looks at the settings, and returns what makes the pool.
        :param user: the wrapper that is to use it, and no other any more.
        """
        find = partial(self._find, alias, settings, timezone_name, user)
        if (handle := locked(self._lock, find)) is not None:
            if not all(one.users for one in self._open):  # it may have been another's last
                self.close_unwanted()
            return handle
        # Outside the lock: what settings name is imported, and may use the database.
        add = partial(self._add, alias, settings, timezone_name, plan(), user)
        handle = locked(self._lock, lambda: find() or add())
        self.close_unwanted()
        return handle

    def _find(
        self, alias: str, settings: dict[str, Any], timezone_name: str, user: Any
    ) -> PoolHandle | None:
        for handle in self._open:
            if handle.serves(alias, settings, timezone_name):
                self._give(handle, user)
                return handle
        return None

    def _add(
        self,
        alias: str,
        settings: dict[str, Any],
        timezone_name: str,
        make: MakePool,
        user: Any,
    ) -> PoolHandle:
        pool = None
        try:
            pool, policy = make()
            # Copied, for Django's test runner changes settings in place.
            made_from = copy_settings(_made_from(settings))
            handle = PoolHandle(alias, made_from, timezone_name, pool, policy)
            self._give(handle, user)
            self._open.append(handle)
        except BaseException:
            if pool is not None and all(one.pool is not pool for one in self._open):
                pool.close()
            raise
        return handle

    def _give(self, handle: PoolHandle, user: Any) -> None:
        for other in self._open:
            other.users.pop(weakref.ref(user), None)
        handle.use(user)
        if handle.alias in connections.settings:
            handle.declared = True
            self._declared.add(handle.alias)

    def __iter__(self) -> Iterator[PoolHandle]:
        return iter(list(self._open))

    def close_alias(self, alias: str) -> None:
        """Close all pools of *alias*."""
        self._close(lambda handle: handle.alias == alias)

    def close_database(self, settings: dict[str, Any], name: str) -> None:
        """Close all pools on the database *name*, whatever their alias.

        A test mirror is another alias on the same database, and DROP DATABASE
        wants nobody else connected.
        """

        def same_database(handle: PoolHandle) -> bool:
            _, its_name, _, _, host, port, *_ = handle.made_from
            return (its_name, host, port) == (name, settings["HOST"], settings["PORT"])

        self._close(same_database)

    def close_unwanted(self) -> None:
        """Close the pools whose alias is gone, and those that nothing refers to."""
        # Whoever sees it, in a request, is not to wait for it.
        self._close_in_background(lambda handle: not handle.wanted)

    def look_at_aliases(self, **kwargs: Any) -> None:
        """Close the pools of aliases that have left ``DATABASES``, as those of tenants do."""
        if not self._declared <= connections.settings.keys():
            self._declared = self._declared & connections.settings.keys()
            self.close_unwanted()

    def close_all(self) -> None:
        """Close every pool."""
        self._close(lambda handle: True)

    def close_within(self, timeout: float) -> bool:
        """Close every pool, all at once; return whether that took *timeout* seconds at most."""
        deadline = monotonic() + timeout
        self._close_in_background(lambda handle: True)
        closings = list(self._closing)
        for closing in closings:
            closing.wait(max(0.0, deadline - monotonic()))
        return all(closing.done for closing in closings)

    def _close(self, chosen: Callable[[PoolHandle], bool]) -> None:
        # Outside the lock: closing waits for the pool's threads.
        mine = self._take(chosen)
        for closing in mine:
            closing.finish()
        for closing in list(self._closing):
            if chosen(closing.handle) and closing not in mine:
                closing.wait(_PATIENCE)

    def _close_in_background(self, chosen: Callable[[PoolHandle], bool]) -> None:
        """Close each, and do not wait for it."""
        for closing in self._take(chosen):
            closing.start()

    def _take(self, chosen: Callable[[PoolHandle], bool]) -> list[Closing]:
        """Take handles out, for they are to be closed; also those that somebody was to close."""
        return locked(self._lock, partial(self._take_out, chosen))

    def _take_out(self, chosen: Callable[[PoolHandle], bool]) -> list[Closing]:
        self._closing = [one for one in self._closing if not one.over]
        known = [one.handle for one in self._closing]
        for handle in filter(chosen, list(self._open)):
            # First there, then not here any more: it is never nowhere.
            if handle not in known:
                self._closing.append(Closing(handle))
            self._open.remove(handle)
        return [one for one in self._closing if chosen(one.handle) and not one.begun]

    def forget(self) -> None:
        """In a child process: drop the parent's pools without touching them."""
        keep_for_good(self._open)
        self._lock = threading.RLock()
        self._open, self._closing = [], []
        self._declared = set()


pools = Pools()


def close_all(timeout: float = 5.0) -> bool:
    """Close all pools of this process: what is idle now, what is leased when it comes back.

    For servers that stop, and processes about to fork. A pool that is needed afterwards is made
    anew. At the interpreter's exit pools are closed without it.

    :param timeout: seconds to wait for it, at most. A pool may have threads that are to end, and
        a server may not answer; what is not closed by then goes on in the background.
    :return: whether all of them are closed.
    """
    return pools.close_within(timeout)
