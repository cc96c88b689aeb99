"""Lifetimes: ends leases whose owner is gone, because its thread ended or the process forked.

Most leases end with their statement. This is for threads that end, and processes that fork, inside
a transaction or with a server-side cursor open.
"""

from __future__ import annotations

import _socket
import _thread
import logging
import os
import threading
import weakref
from _thread import get_ident
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from relet.backends.pools import pools
from relet.core import Action, Event, Lease, PoolAdapter, State
from relet.core.fork import keep_for_good

from . import holders

logger = logging.getLogger("relet")

#: All runners of this process by `id`, so that a forked child finds those it inherited. Not a
#: `WeakSet`, which cannot be iterated while other threads add to it.
_runners: dict[int, weakref.ref[Any]] = {}

#: The first lease of each runner. While a runner initializes a connection, it has another lease.
_leases: weakref.WeakSet[Lease] = weakref.WeakSet()

#: The process that the leases belong to.
_process = os.getpid()


def runners() -> list[Any]:
    """Return every `LeaseRunner` of this process."""
    return [runner for found in list(_runners.values()) if (runner := found()) is not None]


def holders_of(pool: PoolAdapter[Any] | None) -> Sequence[str]:
    """Return a line for each lease of *pool*; see `holders.describe`."""
    return () if pool is None else holders.describe(pool, [one.lease for one in runners()])


class _ThreadLeases:
    """The leases of one thread, in its locals. It is collected when the thread ends."""

    def __init__(self) -> None:
        self.leases: weakref.WeakSet[Lease] = weakref.WeakSet()

    def __del__(self) -> None:
        for lease in list(self.leases):
            if lease.thread == get_ident() and not lease.shared:
                lease.thread = 0  # the next thread may get the same number
            _abandon_in_background(lease)


_thread_locals = threading.local()


def watch(runner: Any, lease: Lease) -> None:
    """Discard the connection of *lease* when its thread has ended or *runner* was collected.

    A runner and its wrapper are in reference cycles and may be collected late, so the end of the
    thread is watched as well.
    """
    _runners[id(runner)] = runner.ref
    _leases.add(lease)
    weakref.finalize(runner, _dropped, id(runner), lease).atexit = False
    try:
        _thread_locals.owned.leases.add(lease)
    except AttributeError:
        _thread_locals.owned = _ThreadLeases()
        _thread_locals.owned.leases.add(lease)


def _dropped(key: int, lease: Lease) -> None:
    _runners.pop(key, None)
    lease.shared, lease.thread = False, 0  # no thread can use it any more
    _abandon_in_background(lease)


def close_at_exit() -> None:
    """Close all connections at interpreter exit, without warnings about leased ones."""
    global _exiting
    _exiting = True
    # Now, because a pool that is collected later joins its threads in arbitrary order.
    pools.close_all()
    thread = get_ident()
    for runner in runners():
        # Only this thread's: other threads may still run statements.
        if runner.thread == thread:
            lease = runner.lease
            if lease.send(Event.ABANDON) is Action.DISCARD and lease.connection is not None:
                lease.pool.discard_from(lease)


_exiting = False


def block_if_exiting() -> None:
    """Block forever if the interpreter is exiting and does not wait for this thread.

    Its pool was closed, so it would print an error to stderr during shutdown.
    """
    if _exiting and threading.current_thread() is not threading.main_thread():
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()


#: Held while `PoolAdapter.abandoned` is counted.
_counting = threading.Lock()


def _abandon(lease: Lease) -> None:
    if lease.shared:
        return  # another thread may be using it
    connection, pool = lease.connection, lease.pool
    if lease.send(Event.ABANDON) is Action.DISCARD and connection is not None and pool is not None:
        lost = "reason unknown"
        try:
            lost = holders.describe_abandoned(lease, pool)
        finally:
            holders.clear_holder(lease, pool)
            with _counting:
                pool.abandoned += 1
            pool.discard_from(lease)
            for open_cursor in lease.pins.values():
                # The connection is gone; this keeps psycopg from warning about open cursors.
                with suppress(Exception):
                    if open_cursor is not None:
                        open_cursor.close()
            lease.pins.clear()
        # Last, because a log handler may take a connection.
        logger.warning(
            "DATABASES[%r]: a thread ended without closing its connection (%s). The connection was "
            "discarded; %d so far in this pool. Call django.db.close_old_connections() at the end "
            "of each thread.",
            *(lease.alias, lost, pool.abandoned),
        )


def _abandon_in_background(lease: Lease) -> None:
    """Abandon *lease* in a background thread.

    The garbage collector may call this while this thread holds the pool's lock. An ending thread
    calls this after `threading` has removed it; logging there would register it again, as a thread
    that never ends. `threading.Thread` is not used, because it takes locks to start.
    """
    if lease.connection is not None and not _exiting:
        if os.getpid() != _process:
            # In a forked child, the locals of other threads are cleared before `forget_parent`.
            keep_for_good(lease)
            return
        with suppress(RuntimeError):  # the interpreter is shutting down
            _thread.start_new_thread(_abandon, (lease,))


def forget_parent() -> None:
    """Take all leases and transactions of the parent from the wrappers of a forked child."""
    global _process, _counting
    _process = os.getpid()
    _counting = threading.Lock()
    in_transaction = set()
    for lease in {*_leases, *(runner.lease for runner in runners())}:
        if lease.state in _IN_TRANSACTION:
            in_transaction.add(lease)
        if lease.send(Event.FORK) is Action.FORGET and (connection := lease.connection) is not None:
            keep_for_good(connection)
            _replace_socket(connection.raw)
            lease.connection = None
        lease.pins.clear()
        lease.clean()
        lease.pool = lease.call_site = None
    for runner in runners():
        runner.forked()
        if (host := runner.find_host()) is not None:
            host.forked(runner.lease in in_transaction)


_IN_TRANSACTION = (State.IN_TRANSACTION, State.RUNNING_IN_TRANSACTION, State.BROKEN)


def _replace_socket(raw: Any) -> None:
    """Replace the socket of *raw*, which the parent still uses, with a dead one.

    Otherwise cursors, COPY and streams that end in this process would send to the parent's session,
    as would code that has kept the driver's connection.
    """
    with suppress(Exception):  # it has no socket, or is being closed
        number = raw.fileno()
        # Never connected, so sending and receiving fail at once. From `_socket`, because gevent
        # replaces `socket.socket`.
        dead = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            os.dup2(dead.fileno(), number, inheritable=False)
        finally:
            dead.close()


def shut_down_socket(raw: Any) -> None:
    """Shut the socket of *raw* down without closing it, so that a running driver call fails."""
    with suppress(Exception):  # it has no socket, or is being closed
        copy = _socket.socket(fileno=_socket.dup(raw.fileno()))
        try:
            copy.shutdown(_socket.SHUT_RDWR)
        finally:
            copy.close()
