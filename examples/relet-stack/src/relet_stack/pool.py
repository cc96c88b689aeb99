"""The pool. It knows nothing of Django and relet, and never waits."""

import threading
from time import monotonic


class Entry:
    """A connection, and when it was opened."""

    def __init__(self, raw):
        self.raw = raw
        self.opened_at = monotonic()
        #: The adapter's `PooledConnection` for it.
        self.pooled = None


class StackPool:
    """A pool of connections on a stack. Its user must limit their number.

    :param connect: opens a connection.
    :param max_lifetime: seconds. A connection that is older is closed instead of put back.
    """

    def __init__(self, connect, max_lifetime):
        self._connect = connect
        self._max_lifetime = max_lifetime
        self._lock = threading.Lock()
        self._stack = []
        self.closed = False

    def __len__(self):
        return len(self._stack)

    def pop(self):
        """Return the entry that was put back last, or a new one."""
        with self._lock:
            if self._stack:
                return self._stack.pop()
        return Entry(self._connect())

    def push(self, entry):
        """Put *entry* back, or close it."""
        with self._lock:
            if not self.closed and monotonic() - entry.opened_at < self._max_lifetime:
                self._stack.append(entry)
                return
        entry.raw.close()

    def close(self):
        """Close all idle entries now, and each of the others when it is put back."""
        with self._lock:
            self.closed = True
            entries, self._stack = self._stack, []
        for entry in entries:
            entry.raw.close()
