"""LeasedServerCursor: a named cursor, whose rows stay on the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from relet.backends.leases.runner import LeaseRunner
from relet.core import TransactionStatus

from .cursor import DriverSetting, LeasedCursor

_END = object()


class LeasedServerCursor(LeasedCursor):
    """A named cursor. Its rows are on the server, so the lease lasts until it is closed."""

    #: `_counted` is of the cursor that counts its statements. Here, so that its class can be mixed
    #: into another one that has slots.
    __slots__ = ("_counted", "name")

    itersize = DriverSetting()

    def __init__(self, runner: LeaseRunner, name: str) -> None:
        super().__init__(runner)
        self.name = name

    def execute(self, query: Any, params: Any = None, /, **kwargs: Any) -> LeasedCursor:
        runner, kept = self._runner, self._pin is not None
        try:
            runner.look_at_transfers()
            runner.refuse_during_transfer()
            if (effects := runner.effects_of(query)) is not None:
                runner.expect(effects, query, params)
        except BaseException:
            runner.drop_prepared()
            raise
        try:
            self.keep()
            return super().execute(query, params, **kwargs)
        except BaseException as error:
            if not isinstance(error, runner.Database.Error):
                runner.mark_dirty()  # an interrupt: the cursor may be open or not
            if not kept:
                self._release()
            raise

    def keep(self) -> None:
        super().keep()
        self._runner.lease.pins[self._pin] = self._driver

    # Reading rows uses the connection.

    def fetchone(self) -> Any:
        return self._runner.call(super().fetchone)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._runner.call(super().fetchmany, *args, **kwargs)

    def fetchall(self) -> Any:
        return self._runner.call(super().fetchall)

    def scroll(self, *args: Any, **kwargs: Any) -> Any:
        return self._runner.call(self.driver_cursor().scroll, *args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        rows = iter(self.driver_cursor())
        while (row := self._runner.call(next, rows, _END)) is not _END:
            yield row

    def close(self) -> None:
        runner = self._runner
        lease = runner.lease
        if lease.connection is None or self._pin not in lease.pins:
            self._closed = True
            # The lease has ended, and with it the cursor on the server. In a forked child, both
            # belong to the parent.
            if self._must_close_driver():
                with suppress(runner.Database.Error):
                    self._close_driver()
        elif runner.is_idle_here():
            if runner.status() == TransactionStatus.IN_ERROR:
                # CLOSE would fail now, and a cursor WITH HOLD outlives the transaction.
                runner.mark_dirty()
            self._closed = True
            try:
                self._close_driver()
            finally:
                self._release()
        else:
            self._closed = True
            self._release()  # the lease's owner closes it

    def _must_close_driver(self) -> bool:
        """Whether the driver's cursor is open and its connection is free.

        The garbage collector may close this cursor during a statement of a later lease on the
        same connection.
        """
        driver, runner = self._driver, self._runner
        if driver is None or driver.closed:
            return False
        connection, handle = runner.lease.connection, runner.handle
        raw = driver.connection
        return (connection is None or connection.raw is not raw) and not (
            handle is not None and handle.pool.is_blocked(raw)
        )

    def _close_driver(self) -> None:
        if self._driver is not None:
            self._runner.call(self._close_on_server)

    def _close_on_server(self) -> None:
        error = self._runner.Database.Error
        try:
            self._driver.close()
        except error:
            # The server is gone. A second close() keeps psycopg from warning about the cursor.
            with suppress(error):
                self._driver.close()
            raise
