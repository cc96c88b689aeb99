"""Transfers: what ``stream()`` and ``copy()`` of a leased cursor return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from relet.backends.leases.runner import LeaseRunner
from relet.backends.leases.transfer import Transfer

_END = object()


class _Cursor(Protocol):
    """The part of `LeasedCursor` that a transfer needs."""

    _driver: Any
    _runner: Any

    def _pinned_driver(self, pin: object) -> Any: ...


class Transferring:
    """The caller's end of a transfer. The transfer ends when this is dropped."""

    def __init__(
        self, cursor: _Cursor, query: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._cursor, self._runner = cursor, cursor._runner
        self._query, self._args, self._kwargs = query, args, kwargs
        self._pin = self._runner.pin_for(self)
        self._transfer: Transfer | None = None

    def _begin(self, method: str, finish: Callable[[Any, Any, BaseException | None], Any]) -> Any:
        """Call the driver's *method* on a lease that lasts until the transfer ends."""
        runner, query = self._runner, self._query
        runner.host.validate_thread_sharing()
        params = self._args[0] if self._args else None
        try:
            runner.look_at_transfers()
            runner.refuse_during_transfer()
            if (effects := runner.effects_of(query)) is not None:
                runner.expect(effects, query, params)
        except BaseException:
            runner.drop_prepared()
            raise
        try:
            driver = self._cursor._pinned_driver(self._pin)
            before = runner.status()
            runner.transfer(query)
            opened = getattr(driver, method)(query, *self._args, **self._kwargs)
            transfer = Transfer(runner.ref, opened, finish, effects, query, params, before)
            self._transfer = transfer
            runner.lease.pins[self._pin] = transfer
            runner.detour = True
        except BaseException:
            runner.unpin(self._pin)
            raise
        return opened

    def _end(self, error: BaseException | None) -> Any:
        """End the transfer: now in the owner's thread, else after the owner's statement."""
        runner, transfer = self._runner, self._transfer
        if transfer is None:
            return None
        if not runner.is_idle_here():
            runner.leave(lambda owner: owner.end_transfer(transfer, self._pin, error))
            return None
        if error is None and transfer.ended:
            raise runner.Database.ProgrammingError(
                "a ROLLBACK has ended this stream() or copy(), so rows may be missing"
            )
        try:
            result = transfer.end(error)
        finally:
            runner.unpin(self._pin)
        runner.tell()
        return result


def _close_rows(runner: LeaseRunner, rows: Any, error: BaseException | None) -> None:
    runner.call_for_transfer(rows.close)


class Stream(Transferring):
    """The iterator over the rows of the driver's ``stream()``."""

    _rows: Iterator[Any] | None = None
    _over = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        try:
            if self._rows is None:
                self._rows = self._begin("stream", _close_rows)
            row = self._runner.call_for_transfer(next, self._rows, _END)
        except BaseException as error:
            self._over = True
            self._end(error)
            raise
        if row is _END:
            self._over = True
            self._end(None)
            raise StopIteration
        return row

    def close(self) -> None:
        """End the stream. Rows that were not read yet are not sent."""
        if not self._over:
            self._over = True
            self._end(GeneratorExit())


def _leave_block(runner: LeaseRunner, block: Any, error: BaseException | None) -> Any:
    if error is None:
        return runner.call_for_transfer(block.__exit__, None, None, None)
    return runner.call_for_transfer(block.__exit__, type(error), error, error.__traceback__)


class Copy(Transferring):
    """The context manager of the driver's ``copy()``."""

    def __enter__(self) -> Any:
        block = self._begin("copy", _leave_block)
        try:
            return self._runner.call_for_transfer(block.__enter__)
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(self, *exc_info: Any) -> Any:
        return self._end(exc_info[1])
