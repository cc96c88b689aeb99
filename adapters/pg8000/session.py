"""Session: what cursors send statements by, in transactions that begin by themselves.

It knows the wire, and nothing of the cursors and the connection above it.
"""

from __future__ import annotations

from typing import Any

from relet.core import TransactionStatus
from relet.core.locks import locked

from .exclusive import exclusive
from .loaders import Loaders
from .results import Copying, Result
from .wire import Wire

IDLE = TransactionStatus.IDLE


class Session:
    """A wire, and how transactions begin and end on it. Threads may share it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.values = wire.values
        self.lock = wire.lock
        #: Whether statements are transactions by themselves.
        self.autocommit = False
        #: The statement that begins a transaction.
        self.begin_sql = "BEGIN"

    def send(
        self, sql: str, loaders: Loaders | None = None, copying: Copying | None = None
    ) -> list[Result]:
        """Send *sql*; see `Wire.exchange`. Out of autocommit, begin a transaction first."""
        if self.autocommit:
            return self.wire.exchange(sql, loaders, copying)
        # Under one lock, or another thread's COMMIT could come between.
        return locked(self.lock, lambda: self._begin_and_send(sql, loaders, copying))

    def _begin_and_send(
        self, sql: str, loaders: Loaders | None, copying: Copying | None
    ) -> list[Result]:
        self.begin()
        return self.wire.exchange(sql, loaders, copying)

    @exclusive("lock")
    def begin(self) -> None:
        """Begin a transaction, if none has begun and this is not in autocommit."""
        if not self.autocommit and self.wire.transaction_status == IDLE:
            self.wire.exchange(self.begin_sql)

    def commit(self) -> None:
        """Commit the transaction, if there is one."""
        self._end_transaction("COMMIT")

    def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        self._end_transaction("ROLLBACK")

    @exclusive("lock")
    def _end_transaction(self, sql: str) -> None:
        self.wire.check_open()
        if self.wire.transaction_status != IDLE:
            self.wire.exchange(sql)

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run *sql*, and begin no transaction; return the rows of the first statement with rows."""
        for result in self.wire.exchange(sql):
            if result.columns is not None:
                return result.rows
        return []
