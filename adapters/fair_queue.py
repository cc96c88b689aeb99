"""FairQueue: the queue of the threads that wait for a connection.

Handing each connection to the longest waiting thread makes a lock convoy. The connection lies idle
until that thread runs, which takes until it gets the interpreter's lock; meanwhile other threads
queue up behind it. So a connection that comes free goes to whichever thread takes it first, and the
first waiter is woken. Once the first waiter has waited for `fairness` seconds, the next connection
is handed to it, and no thread that comes later is served before. This is called eventual fairness.

A thread that gives a connection back often takes it again at once, and the first waiter is woken in
vain. This costs two context switches. So it is then left alone for a moment, and looks by itself.

https://webkit.org/blog/6161/locking-in-webkit/
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from threading import TIMEOUT_MAX, get_ident, main_thread
from time import monotonic
from typing import Any

from relet.core import ReleasePolicy

from .waiter import Waiter

#: Seconds after which the main thread, which alone runs the handlers of signals, looks whether one
#: has arrived. One that arrives just before the system call, or in another thread, does not
#: interrupt it.
_LOOK = 0.5
#: Seconds that a waiter rests after it was woken in vain: several statements, and less than the
#: default of `fairness`. Something that nobody else takes may lie idle for that long.
_REST = 0.002


class FairQueue:
    """A mixin for pools that keep their waiters in `_waiting`, under `_lock`.

    Two things are true whenever the lock is free. Waiters are served in order. And if something is
    free, the first waiter has been woken since it last looked, or it rests.

    :ivar fairness: seconds, see `ReleasePolicy`.
    """

    fairness = ReleasePolicy.fairness
    _waiting: deque[Any]
    _lock: Any

    def _is_due(self) -> bool:
        """Return whether the first waiter must be served before any thread that comes later.

        Called under the lock.
        """
        # psycopg_pool's own waiters have no `since`. They are always due.
        return bool(
            self._waiting and monotonic() - getattr(self._waiting[0], "since", 0.0) >= self.fairness
        )

    def _serve(self, present: Waiter | None = None) -> None:
        """Serve waiters that are due. If something is still free, wake the first waiter.

        Called under the lock. If it is interrupted, calling it again completes it.

        :param present: the waiter whose thread calls this. If it is the first, it is served.
        """
        raise NotImplementedError

    def _await_turn(self, waiter: Waiter, deadline: float) -> None:
        """Wait until *waiter* is served, gets an error, or times out.

        Called without the lock. If this is interrupted, the caller must take the lock, unless this
        thread still holds it, and call `_give_up`.

        :param deadline: in seconds of `time.monotonic`.
        """
        lock = self._lock
        look = _LOOK if get_ident() == main_thread().ident else TIMEOUT_MAX
        while True:
            patience = _REST if waiter.rests else look
            woken = waiter.wait(min(deadline - monotonic(), patience))
            if waiter.conn is not None or waiter.error is not None:
                return
            lock.acquire()
            self._serve(waiter)
            if waiter.conn is None and waiter.error is None and monotonic() < deadline:
                # Another thread was faster; this one keeps its place in the queue.
                waiter.rests = woken
                lock.release()
                continue
            self._give_up(waiter)
            lock.release()
            return

    def watch(self, began: Callable[[object], object], ended: Callable[[object], object]) -> None:
        """See `relet.core.PoolAdapter.watch_waits`. A queue that is not watched calls nothing."""
        await_turn = type(self)._await_turn
        found = weakref.ref(self)  # the queue must not keep itself alive

        def watched(waiter: Waiter, deadline: float) -> None:
            try:
                began(waiter)
                await_turn(found(), waiter, deadline)  # type: ignore[arg-type]
                ended(waiter)
            except BaseException:
                ended(waiter)  # perhaps again: it may have been interrupted itself
                raise

        self._await_turn = watched  # type: ignore[method-assign]

    def _give_up(self, waiter: Waiter) -> None:
        """Take *waiter* out of the queue. A connection that it was handed is in its `conn`.

        Called under the lock.
        """
        self._serve()  # completes what was interrupted
        waiter.leave(self._waiting)
        self._serve()  # the next waiter may not have been woken yet
