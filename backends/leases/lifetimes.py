"""Leases that outlive their owner: the thread is dead, or the process is a child.

A lease ends with its statement, so this is about threads that die inside a
transaction, or with a server-side cursor open, and about forks in such a moment.
"""

from __future__ import annotations

import _socket
import _thread
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from relet.backends.pools import pools
from relet.core import Action, Event, Lease, PoolAdapter, State
from relet.core.fork import keep_for_good

from . import holders

logger = logging.getLogger("relet")

#: Every runner of this process, by its `id`, for a child to find those it has inherited. A
#: `WeakSet` cannot be iterated while other threads add to it.
_runners: dict[int, weakref.ref[Any]] = {}

#: Every lease of this process; that of a wrapper that introduces a connection is another.
_leases: weakref.WeakSet[Lease] = weakref.WeakSet()

#: The process whose leases these are.
_process = os.getpid()


def runners() -> list[Any]:
    """Return every `LeaseRunner` of this process."""
    return [runner for found in list(_runners.values()) if (runner := found()) is not None]


def holders_of(pool: PoolAdapter[Any] | None) -> Sequence[str]:
    """Return a line for each lease of *pool*."""
    return () if pool is None else holders.describe(pool, [one.lease for one in runners()])


class _ThreadEnd:
    """Lives in a thread's locals, and is destroyed with them when the thread ends."""

    def __init__(self) -> None:
        self.leases: weakref.WeakSet[Lease] = weakref.WeakSet()

    def __del__(self) -> None:
        for lease in list(self.leases):
            _abandon_elsewhere(lease)


_thread_locals = threading.local()


def watch(runner: Any, lease: Lease) -> None:
    """Discard the connection of *lease* when its thread has ended or *runner* is gone.

    A runner and its wrapper are in reference cycles, so the garbage collector may come to it late.
    That is why the end of its thread is watched as well.
    """
    _runners[id(runner)] = runner.ref
    _leases.add(lease)
    weakref.finalize(runner, _dropped, id(runner), lease).atexit = False
    try:
        _thread_locals.end.leases.add(lease)
    except AttributeError:
        _thread_locals.end = _ThreadEnd()
        _thread_locals.end.leases.add(lease)


def _dropped(key: int, lease: Lease) -> None:
    _runners.pop(key, None)
    lease.shared, lease.thread = False, 0  # nobody can use it any more
    _abandon_elsewhere(lease)


def close_at_exit() -> None:
    """The interpreter exits: close all connections, and say nothing of those that are leased."""
    global _exiting
    _exiting = True
    # Else each pool's threads are waited for when it is collected, in no order.
    pools.close_all()
    thread = _thread.get_ident()
    for runner in runners():
        # Other threads may still be running statements.
        if runner.thread == thread:
            lease = runner.lease
            if lease.send(Event.ABANDON) is Action.DISCARD and lease.connection is not None:
                lease.pool.discard_from(lease)


_exiting = False


def rest_if_exiting() -> None:
    """Stop here for good if the interpreter exits, and this is a thread that it does not wait for.

    Its pool was closed, and it would say so on stderr while everything is taken down.
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
        lost = "of which nothing is known"
        try:
            lost = holders.describe_abandoned(lease, pool)
        finally:
            holders.clear_holder(lease, pool)
            with _counting:
                pool.abandoned += 1
            pool.discard_from(lease)
            for open_cursor in lease.pins.values():
                # There is nothing left to be sent; but psycopg warns of what has not been told so.
                with suppress(Exception):
                    if open_cursor is not None:
                        open_cursor.close()
            lease.pins.clear()
        # Last, for a handler may want a connection.
        logger.warning(
            "DATABASES[%r]: a thread ended without closing its connection, %s; discarded, %d so "
            "far in this pool. Call django.db.close_old_connections() at the end of threads.",
            *(lease.alias, lost, pool.abandoned),
        )


def _abandon_elsewhere(lease: Lease) -> None:
    """Abandon *lease* in a thread of its own.

    The garbage collector calls this anywhere, perhaps inside the pool's own lock. A
    dying thread calls it when `threading` takes it for gone, and whatever it logs
    would leave a thread behind that is alive for `threading` only. So: another
    thread, and not by way of `threading.Thread`, which takes locks to start one.
    """
    if lease.connection is not None and not _exiting:
        if os.getpid() != _process:
            # The locals of the parent's other threads go before `forget_parent` is called.
            keep_for_good(lease)
            return
        with suppress(RuntimeError):  # the interpreter is shutting down
            _thread.start_new_thread(_abandon, (lease,))


def forget_parent() -> None:
    """In a child: no wrapper has a lease, and none goes on with its parent's transaction."""
    global _process, _counting
    _process = os.getpid()
    _counting = threading.Lock()
    in_transaction = set()
    for lease in {*_leases, *(runner.lease for runner in runners())}:
        if lease.state in _IN_TRANSACTION:
            in_transaction.add(lease)
        if lease.send(Event.FORK) is Action.FORGET and (connection := lease.connection) is not None:
            keep_for_good(connection)
            _sever(connection.raw)
            lease.connection = None
        lease.pins.clear()
        lease.clean()
        lease.pool = lease.call_site = None
    for runner in runners():
        runner.forked()
        runner.host.forked(runner.lease in in_transaction)


_IN_TRANSACTION = (State.IN_TRANSACTION, State.RUNNING_IN_TRANSACTION, State.BROKEN)


def _sever(raw: Any) -> None:
    """Put a dead socket in the place of that of *raw*, which is the parent's.

    Cursors, COPY and streams that were open on it end in this process too, and would tell the
    server so; whoever has kept the connection itself may use it.
    """
    with suppress(Exception):  # it has none, or is being closed
        number = raw.fileno()
        # Never connected: whatever is sent or awaited fails at once. Not that of `socket`,
        # which gevent replaces.
        dead = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            os.dup2(dead.fileno(), number, inheritable=False)
        finally:
            dead.close()


def shut_down(raw: Any) -> None:
    """End what *raw* has with the server, and leave it open: a call of its driver's fails then."""
    with suppress(Exception):  # it has no socket, or is being closed
        copy = _socket.socket(fileno=_socket.dup(raw.fileno()))
        try:
            copy.shutdown(_socket.SHUT_RDWR)
        finally:
            copy.close()
