"""Transfers: the driver's ``stream()`` and ``copy()``, which use the connection until their end.

Whoever ends one may be anybody: the garbage collector, which closes a generator that has it, or an
event loop's thread. But only the owner of the lease ends it on the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relet.core.sql.effects import Effects

    from .cursor import LeasedCursor
    from .wrapper import LeasingWrapper

_END = object()


class Transfer:
    """One that is under way, and what there is to do at its end. It refers to no wrapper.

    :param opened: what the driver has returned for it.
    :param finish: ends it on the connection; takes the wrapper, *opened*, and what has gone
        wrong, or None.
    :param effects: what its statement leaves in the session, if anything.
    """

    def __init__(
        self,
        db: LeasingWrapper,
        opened: Any,
        finish: Callable[[Any, Any, BaseException | None], Any],
        effects: Effects | None,
        text: Any,
        params: object,
    ) -> None:
        self._find = db.ref
        self._opened, self._finish = opened, finish
        self._effects, self._text, self._params = effects, text, params
        self._before = db._status()
        self._ended = False

    def end(self, error: BaseException | None) -> Any:
        """End it, once, and keep account of what it has left; return what `finish` returns.

        :param error: what has gone wrong, if anything.
        """
        db: Any = self._find()
        if self._ended or db is None:
            return None
        try:
            result = self._finish(db, self._opened, error)
        except BaseException as raised:
            self._account(db, raised)
            raise
        self._account(db, error)
        return result

    def close(self) -> None:
        """End it before its end."""
        self.end(GeneratorExit())

    def _account(self, db: Any, error: BaseException | None) -> None:
        if self._effects is not None:
            db._ran(self._effects, self._text, self._params, None, self._before, error)
        db._look_at_driver()
        self._ended = True


class _Transferring:
    """What a caller has of a transfer. When it is dropped, that ends."""

    def __init__(
        self, cursor: LeasedCursor, query: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._cursor, self._db = cursor, cursor._db
        self._query, self._args, self._kwargs = query, args, kwargs
        self._pin = self._db._pin_of(self)
        self._transfer: Transfer | None = None

    def _begin(self, method: str, finish: Callable[[Any, Any, BaseException | None], Any]) -> Any:
        """Call the driver's *method*, on a lease that lasts until the end."""
        db, query = self._db, self._query
        db.validate_thread_sharing()
        params = self._args[0] if self._args else None
        if (effects := db._effects_of(query)) is not None:
            db._expect(effects, query, params)
        try:
            driver = self._cursor._pinned_driver(self._pin)
            opened = getattr(driver, method)(query, *self._args, **self._kwargs)
            self._transfer = Transfer(db, opened, finish, effects, query, params)
            db._lease.pins[self._pin] = self._transfer
        except BaseException:
            db._unpin(self._pin)
            raise
        return opened

    def _end(self, error: BaseException | None) -> Any:
        """End it: now in the owner's thread, else when the owner's statement has ended."""
        db, transfer = self._db, self._transfer
        if transfer is None:
            return None
        if not db._is_idle_here():
            db._leave(lambda owner: owner._end_transfer(transfer, self._pin, error))
            return None
        try:
            result = transfer.end(error)
        finally:
            db._unpin(self._pin)
        db._tell()
        return result


def _close_rows(db: LeasingWrapper, rows: Any, error: BaseException | None) -> None:
    db._call(rows.close)


class Stream(_Transferring):
    """The rows of the driver's ``stream()``."""

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
            row = self._db._call(next, self._rows, _END)
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
        """End it. What has not been asked for is not sent any more."""
        if not self._over:
            self._over = True
            self._end(GeneratorExit())


def _leave_block(db: LeasingWrapper, block: Any, error: BaseException | None) -> Any:
    if error is None:
        return db._call(block.__exit__, None, None, None)
    return db._call(block.__exit__, type(error), error, error.__traceback__)


class Copy(_Transferring):
    """The block of the driver's ``copy()``."""

    def __enter__(self) -> Any:
        block = self._begin("copy", _leave_block)
        try:
            return self._db._call(block.__enter__)
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(self, *exc_info: Any) -> Any:
        return self._end(exc_info[1])
