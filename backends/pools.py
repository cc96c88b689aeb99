"""The pools of this process: one for each alias, opened on first use."""

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

_required = itemgetter("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")


def _pool_settings(settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return the settings of an alias that a pool depends on, except the time zone."""
    return (*_required(settings), settings.get("POOL_OPTIONS"))


MakePool = Callable[[], tuple[PoolAdapter[Any], ReleasePolicy]]
"""Makes a pool; returns it and its policy."""

#: Seconds to wait for a pool that another thread is closing.
_CLOSE_TIMEOUT_S = 5.0
#: Seconds to wait for a thread to start.
_START_TIMEOUT_S = 1.0


class _ThreadMarker:
    """An object in a thread's locals, which is collected when the thread ends."""

    __slots__ = ("__weakref__",)


_locals = threading.local()


def _thread_marker() -> _ThreadMarker:
    if not hasattr(_locals, "marker"):
        _locals.marker = _ThreadMarker()
    marker: _ThreadMarker = _locals.marker
    return marker


@dataclass(eq=False)
class PoolHandle:
    """A pool, its policy, and the settings they were made from.

    :param declared: whether its alias was in ``DATABASES`` when a wrapper last asked for it.
    :param users: the wrappers that use it, each with the threads that have asked for it through
        that wrapper and still run. A wrapper alone does not keep the pool: it is part of Django's
        reference cycles, and may outlive its threads by hours.
    """

    alias: str
    made_from: tuple[Any, ...] = field(repr=False)  # the password is in it
    timezone_name: str
    pool: PoolAdapter[Any]
    policy: ReleasePolicy
    declared: bool = False
    users: dict[weakref.ref[Any], set[weakref.ref[_ThreadMarker]]] = field(default_factory=dict)

    @property
    def database(self) -> tuple[Any, ...]:
        """The name, host and port of its database. Pools of several aliases may have the same."""
        _, name, _, _, host, port, *_ = self.made_from
        return (name, host, port)

    @property
    def in_use(self) -> bool:
        """Whether a thread that still runs uses it."""
        return any(list(self.users.values()))

    @property
    def wanted(self) -> bool:
        """Whether it is open, its alias exists, and a wrapper or the current settings use it."""
        if self.pool.closed:  # by other code
            return False
        settings = connections.settings.get(self.alias)
        if self.declared and settings is None:
            return False
        return self.in_use or (settings is not None and self.made_from == _pool_settings(settings))

    def add_user(self, wrapper: Any) -> None:
        # Each step is atomic: a finalizer may remove users at any moment.
        threads = self.users.setdefault(weakref.ref(wrapper, self._remove_user), set())
        threads.add(weakref.ref(_thread_marker(), self._thread_ended))

    def _remove_user(self, user: weakref.ref[Any]) -> None:
        self.users.pop(user, None)
        self._close_if_unwanted()

    def _thread_ended(self, ended: weakref.ref[_ThreadMarker]) -> None:
        for threads in list(self.users.values()):
            threads.discard(ended)
        self._close_if_unwanted()

    def _close_if_unwanted(self, exiting: Callable[[], bool] = sys.is_finalizing) -> None:
        # A default argument, because this module's names may be gone at interpreter exit.
        if not exiting() and not self.in_use and not self.wanted:
            # In a thread of its own: the garbage collector calls this anywhere, perhaps in code
            # that holds the lock.
            with suppress(RuntimeError):  # the interpreter is shutting down
                _thread.start_new_thread(pools.close_unwanted, ())

    def serves(self, alias: str, settings: dict[str, Any], timezone_name: str) -> bool:
        return (
            self.made_from == _pool_settings(settings)
            and self.alias == alias
            and self.timezone_name == timezone_name
            and not self.pool.closed
        )


class Closing:
    """The closing of one pool: pending, under way or finished.

    :ivar begun: whether a thread is closing the pool, or has closed it.
    :ivar done: whether the pool is closed.
    """

    def __init__(self, handle: PoolHandle) -> None:
        self.handle = handle
        self.begun = self.done = False
        self._running, self._finished = Latch(), Latch()

    def start(self) -> None:
        """Close the pool in a background thread."""
        try:
            self.begun = True
            _thread.start_new_thread(self._run, ())
            # Wait, so that the next caller who asks for the pool finds it closed.
            self._running.wait(_START_TIMEOUT_S)
        except RuntimeError:  # too many threads, or the interpreter is shutting down
            self._run()
        except BaseException:
            self.begun = False
            raise

    def _run(self) -> None:
        self._running.set()
        with suppress(Exception):
            self.close()
        self._finished.set()

    def close(self) -> None:
        """Close the pool in this thread. After an interrupt, the next call to close retries."""
        try:
            self.begun = True
            self.handle.pool.close()
            self.done = True
            self._finished.set()
        except BaseException:
            self.begun = False
            raise

    @property
    def finished(self) -> bool:
        """Whether the pool is closed or failed to close."""
        return self._finished.is_set

    def wait(self, timeout: float) -> None:
        """Wait until `finished`, for at most *timeout* seconds."""
        self._finished.wait(timeout)


class Pools:
    """All pools of this process.

    A pool belongs to an alias *and* to the settings it was made from, because Django's test runner
    changes ``NAME`` in place and a copied wrapper may have other options.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may close pools while this thread holds it.
        self._lock = threading.RLock()
        self._open: list[PoolHandle] = []
        self._closing: list[Closing] = []
        #: Aliases of pools that were in ``DATABASES`` when the pool was asked for.
        self._declared: set[str] = set()
        #: Called when a pool was opened, by the thread that opened it.
        self.on_open: Callable[[], object] | None = None
        #: Called before `close_all` closes all pools, with the seconds that it may take.
        self.before_close: Callable[[float], object] | None = None

    def get(
        self,
        alias: str,
        settings: dict[str, Any],
        timezone_name: str,
        plan: Callable[[], MakePool],
        user: Any,
    ) -> PoolHandle:
        """Return the pool for *alias* with *settings*; make it if it does not exist.

        :param plan: checks the settings and returns a function that makes the pool.
        :param user: the wrapper that asks. It stops using any other pool.
        """
        find = partial(self._find, alias, settings, timezone_name, user)
        if (handle := locked(self._lock, find)) is not None:
            if not all(one.in_use for one in self._open):  # *user* may have been another's last
                self.close_unwanted()
            return handle
        # Outside the lock: planning imports modules named in the settings, which may query.
        add = partial(self._add, alias, settings, timezone_name, plan(), user)
        handle = locked(self._lock, lambda: find() or add())
        self.close_unwanted()
        if self.on_open is not None:
            self.on_open()
        return handle

    def _find(
        self, alias: str, settings: dict[str, Any], timezone_name: str, user: Any
    ) -> PoolHandle | None:
        for handle in self._open:
            if handle.serves(alias, settings, timezone_name):
                self._assign(handle, user)
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
            # Copied, because Django's test runner changes settings in place.
            made_from = copy_settings(_pool_settings(settings))
            handle = PoolHandle(alias, made_from, timezone_name, pool, policy)
            self._assign(handle, user)
            self._open.append(handle)
        except BaseException:
            if pool is not None and all(one.pool is not pool for one in self._open):
                pool.close()
            raise
        return handle

    def _assign(self, handle: PoolHandle, user: Any) -> None:
        """Make *user* a user of *handle* only."""
        for other in self._open:
            if other is not handle:
                other.users.pop(weakref.ref(user), None)
        handle.add_user(user)
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

        A test mirror is another alias on the same database, and DROP DATABASE fails while any
        other session is connected.
        """

        database = (name, settings["HOST"], settings["PORT"])
        self._close(lambda handle: handle.database == database)

    def close_unwanted(self) -> None:
        """Close pools whose alias is gone or that nothing uses, without waiting for them."""
        self._close_in_background(lambda handle: not handle.wanted)

    def close_removed_aliases(self, **kwargs: Any) -> None:
        """Close the pools of aliases that were removed from ``DATABASES``, such as tenants'."""
        if not self._declared <= connections.settings.keys():
            self._declared = self._declared & connections.settings.keys()
            self.close_unwanted()

    def close_all(self) -> None:
        """Close every pool."""
        self._close(lambda handle: True)

    def close_within(self, timeout: float) -> bool:
        """Close all pools in parallel; return whether all were closed within *timeout* seconds."""
        deadline = monotonic() + timeout
        self._close_in_background(lambda handle: True)
        closings = list(self._closing)
        for closing in closings:
            closing.wait(max(0.0, deadline - monotonic()))
        return all(closing.done for closing in closings)

    def _close(self, chosen: Callable[[PoolHandle], bool]) -> None:
        # Outside the lock: closing waits for the pool's threads.
        mine = self._claim(chosen)
        for closing in mine:
            closing.close()
        for closing in list(self._closing):
            if chosen(closing.handle) and closing not in mine:
                closing.wait(_CLOSE_TIMEOUT_S)

    def _close_in_background(self, chosen: Callable[[PoolHandle], bool]) -> None:
        for closing in self._claim(chosen):
            closing.start()

    def _claim(self, chosen: Callable[[PoolHandle], bool]) -> list[Closing]:
        """Remove the *chosen* pools from use; return the closings that nobody has begun.

        Among them are closings that an interrupted call has left behind.
        """
        return locked(self._lock, partial(self._claim_locked, chosen))

    def _claim_locked(self, chosen: Callable[[PoolHandle], bool]) -> list[Closing]:
        self._closing = [one for one in self._closing if not one.finished]
        known = [one.handle for one in self._closing]
        for handle in filter(chosen, list(self._open)):
            # Add before removing: an interrupt in between must not lose the pool.
            if handle not in known:
                self._closing.append(Closing(handle))
            self._open.remove(handle)
        return [one for one in self._closing if chosen(one.handle) and not one.begun]

    def forget(self) -> None:
        """Drop the parent's pools without touching them. Called in a forked child."""
        keep_for_good(self._open)
        self._lock = threading.RLock()
        self._open, self._closing = [], []
        self._declared = set()


pools = Pools()


def close_all(timeout: float = 5.0) -> bool:
    """Close all pools of this process. Leased connections are closed when they are given back.

    Call it before a server stops or a process forks. A pool that is needed afterwards is opened
    again. At interpreter exit, pools are closed without this call.

    :param timeout: seconds to wait at most, because a pool may have threads to join and a server
        may not answer. Pools that take longer are closed in the background.
    :return: whether all pools are closed.
    """
    deadline = monotonic() + timeout
    if pools.before_close is not None:
        pools.before_close(timeout / 2)  # a server that does not answer must leave time for them
    return pools.close_within(max(0.0, deadline - monotonic()))
