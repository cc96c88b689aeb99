"""``hold()``: one connection for a block."""

from __future__ import annotations

from typing import Any

from . import locator
from .context_decorator import AsyncContextDecorator, Entered, in_thread


class _Held:
    """One `with hold()`, and whose connection it holds."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner


class Hold(AsyncContextDecorator):
    """What `hold` returns."""

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
            # An exception from outside may have come before.
            held.owner.release_hold(held)
            self._entered.discard(held)
            raise

    async def __aenter__(self) -> Any:
        return await in_thread(self.__enter__, undo=self.__exit__)

    async def __aexit__(self, *exc_info: object) -> None:
        await in_thread(self.__exit__)


def hold(alias: str = "default") -> Hold:
    """Keep one connection for a block, or for a function that it decorates.

    The connection is taken with the block's first statement. When the outermost block of
    its thread is left, all session state that was made inside is undone, also what
    functions have made, unseen; then the connection goes back. If a transaction or a cursor is
    open by then, or session state from before the block keeps the connection, that happens
    when it ends. If the connection is lost inside of the block it is not replaced before
    ``close()``.

    In asynchronous code, use ``async with``; a thread's connection is one that all tasks
    whose synchronous code runs in that thread share.

    :param alias: the key in ``DATABASES``.
    :return: a context manager, whose value is ``connections[alias]``.
    :raises ConfigurationError: *alias* has no relet engine.

    ::

        with hold("default") as connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '5s'")
            ...

        @hold()
        def report(): ...
    """
    if not isinstance(alias, str):
        raise TypeError(f"hold() takes an alias, not {alias!r}. As a decorator it is @hold().")
    return Hold(alias)
