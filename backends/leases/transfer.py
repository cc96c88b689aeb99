"""Transfer: the driver's ``stream()`` or ``copy()`` that uses the connection until its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from relet.core.sql.effects import Effects


class Transfer:
    """A transfer that is under way, and what to do at its end.

    Anybody may end it: the garbage collector, which closes a generator that has it, or an event
    loop's thread. But only the owner of the lease ends it on the connection.

    :param find: finds the runner, without keeping it alive.
    :param opened: what the driver has returned for it.
    :param finish: ends it on the connection; takes the runner, *opened*, and the error, or None.
    :param effects: what its statement leaves in the session, if anything.
    :param before: the transaction status before.
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
        self._ended = False

    def end(self, error: BaseException | None) -> Any:
        """End it, once, and account for what it has left; return what `finish` returns.

        :param error: what has gone wrong, if anything.
        """
        runner = self._find()
        if self._ended or runner is None:
            return None
        try:
            result = self._finish(runner, self._opened, error)
        except BaseException as raised:
            self._account(runner, raised)
            raise
        self._account(runner, error)
        return result

    def close(self) -> None:
        """End it before its end."""
        self.end(GeneratorExit())

    def _account(self, runner: Any, error: BaseException | None) -> None:
        if self._effects is not None:
            runner.account(self._effects, self._sql, self._params, None, self._before, error)
        runner.check_driver_state()
        self._ended = True
