"""The pool: it knows neither Django nor relet, and never waits."""

import threading
from time import monotonic


class Entry:
    """A connection, and when it was opened."""

    def __init__(self, raw):
        self.raw = raw
        self.opened_at = monotonic()
        #: What the adapter keeps with it.
        self.remembered = None


class StackPool:
    """Connections on a stack. Whoever uses it sees to it that there are not too many.

    :param connect: opens a connection.
    :param max_lifetime: seconds; what is older is closed instead of being put back.
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
        """Close all entries that are here now, and the others when they come back."""
        with self._lock:
            self.closed = True
            entries, self._stack = self._stack, []
        for entry in entries:
            entry.raw.close()
