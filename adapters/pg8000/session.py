"""Session: sends the statements of cursors, and begins and ends transactions.

It knows the wire below it, but neither the cursors nor the connection above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relet.core import TransactionStatus
from relet.core.locks import locked

from .exclusive import exclusive
from .loaders import Loaders
from .results import Copying, Result
from .wire import Wire

IDLE = TransactionStatus.IDLE


class Session:
    """Sends statements on a wire, in transactions. Threads may share it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.values = wire.values
        self.lock = wire.lock
        #: Whether each statement is a transaction of its own.
        self.autocommit = False
        #: The statement that begins a transaction.
        self.begin_sql = "BEGIN"

    def send(
        self,
        sql: str,
        loaders: Loaders | None = None,
        copying: Copying | None = None,
        before: Sequence[str] = (),
    ) -> list[Result]:
        """Send *sql*, see `Wire.exchange`; without autocommit, begin a transaction first."""
        if self.autocommit:
            return self.wire.exchange(sql, loaders, copying, before)
        # Under one lock, because otherwise another thread's COMMIT could come in between.
        return locked(self.lock, lambda: self._begin_and_send(sql, loaders, copying, before))

    def _begin_and_send(
        self, sql: str, loaders: Loaders | None, copying: Copying | None, before: Sequence[str]
    ) -> list[Result]:
        self.begin()
        return self.wire.exchange(sql, loaders, copying, before)

    @exclusive("lock")
    def begin(self) -> None:
        """Begin a transaction, unless one is open or autocommit is on."""
        if not self.autocommit and self.wire.transaction_status == IDLE:
            self.wire.exchange(self.begin_sql)

    @exclusive("lock")
    def begin_with(self, sql: str) -> None:
        """Begin a transaction and run *sql* in it, in one message."""
        self.wire.exchange(f"{self.begin_sql}; {sql}")

    def commit(self) -> None:
        """Commit the transaction, if one is open."""
        self._end_transaction("COMMIT")

    def rollback(self) -> None:
        """Roll the transaction back, if one is open."""
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
