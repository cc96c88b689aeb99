"""``hold()``: one connection for a block."""

from __future__ import annotations

from typing import Any

from . import locator
from .context_decorator import AsyncContextDecorator, Entered, in_thread


class _Held:
    """One entered ``with hold()`` and the wrapper that it holds."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner


class Hold(AsyncContextDecorator):
    """The context manager and decorator that `hold` returns."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._entered: Entered[_Held] = Entered()

    def __enter__(self) -> Any:
        owner = locator.current(self.alias)
        held = _Held(owner)
        try:
            self._entered.add(held)
            owner.hold(held)
        except BaseException:
            self._leave(held)
            raise
        return owner

    def __exit__(self, *exc_info: object) -> None:
        if (held := self._entered.last()) is not None:
            self._leave(held)

    def _leave(self, held: _Held) -> None:
        try:
            held.owner.release_hold(held)
            self._entered.discard(held)
        except BaseException:
            # An interrupt may have prevented the first attempt.
            held.owner.release_hold(held)
            self._entered.discard(held)
            raise

    async def __aenter__(self) -> Any:
        return await in_thread(self.__enter__, undo=self.__exit__)

    async def __aexit__(self, *exc_info: object) -> None:
        await in_thread(self.__exit__)


def hold(alias: str = "default") -> Hold:
    """Keep one connection for a block or a decorated function.

    The block's first statement takes the connection. Leaving the thread's outermost block undoes
    all session state made inside, including changes made by SQL functions that relet cannot see,
    and returns the connection to the pool. If a transaction or cursor is still open, or session
    state from before the block keeps the connection, this happens when that ends. A connection
    that is lost inside the block is not replaced until ``close()``.

    In asynchronous code, use ``async with``. All tasks whose synchronous code runs in the same
    thread share that thread's connection.

    :param alias: the key in ``DATABASES``.
    :return: a context manager whose value is ``connections[alias]``.
    :raises ConfigurationError: *alias* has no relet engine.

    ::

        with hold("default") as connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '5s'")
            ...

        @hold()
        def report(): ...
    """
    if not isinstance(alias, str):
        raise TypeError(f"hold() takes an alias, not {alias!r}. Decorate with @hold().")
    return Hold(alias)
