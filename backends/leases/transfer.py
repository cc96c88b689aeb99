"""Transfer: a ``stream()`` or ``copy()`` of the driver, which uses the connection until it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from relet.core.sql.effects import Effects


class Transfer:
    """A transfer that is under way.

    The request to end it may come from any thread, such as the garbage collector's or an event
    loop's. Only the owner of the lease ends it on the connection.

    :param find: a weak reference to the runner.
    :param opened: the object that the driver returned.
    :param finish: ends the transfer on the connection. It is called with the runner, *opened*, and
        the error or None.
    :param effects: the effects of its statement on the session, or None.
    :param before: the transaction status before the transfer.
    :ivar ended: whether it has ended, so that the connection is free.
    """

    def __init__(
        self,
        find: ref[Any],
        opened: Any,
        finish: Callable[[Any, Any, BaseException | None], Any],
        effects: Effects | None,
        sql: Any,
        params: object,
        before: int,
    ) -> None:
        self._find = find
        self._opened, self._finish = opened, finish
        self._effects, self._sql, self._params = effects, sql, params
        self._before = before
        self.ended = False
        #: Called with the runner and the error when it has ended, however that came.
        self.when_ended: Callable[[Any, BaseException | None], object] | None = None

    def end(self, error: BaseException | None) -> Any:
        """End the transfer, record its session state, and return the result of *finish*.

        Do nothing if it has ended already.

        :param error: the error that ends it, if any.
        """
        runner = self._find()
        if self.ended or runner is None:
            return None
        try:
            result = self._finish(runner, self._opened, error)
        except BaseException as raised:
            # An interrupt may have come before the driver ended it. Then it is still open.
            if isinstance(raised, runner.Database.Error) or not runner.is_blocked():
                self._account(runner, raised)
            raise
        self._account(runner, error)
        return result

    def close(self) -> None:
        """End the transfer early."""
        self.end(GeneratorExit())

    def _account(self, runner: Any, error: BaseException | None) -> None:
        if self._effects is not None:
            runner.account(self._effects, self._sql, self._params, None, self._before, error)
        runner.check_driver_state()
        self.ended = True
        if self.when_ended is not None:
            self.when_ended(runner, error)
