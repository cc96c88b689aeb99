"""Blocks: context managers that decorate functions, too, asynchronous ones included."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from .registry import registry

Function = TypeVar("Function", bound=Callable[..., Any])


class Block(ABC):
    """A block of code for which something holds.

    ``with`` and ``async with`` take it, and so do functions, by ``@``. Blocks may be
    nested, be it the same one, and a decorated function may run in many threads.
    """

    @abstractmethod
    def __enter__(self) -> Any: ...

    @abstractmethod
    def __exit__(self, *exc_info: object) -> None: ...

    @abstractmethod
    async def __aenter__(self) -> Any: ...

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None: ...

    @abstractmethod
    def _again(self) -> Block:
        """Return such a block that has not been entered."""

    def __call__(self, function: Function) -> Function:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__}() is a generator: it would run when the block is left. "
                "Put a 'with' block into it."
            )
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def decorated(*args: Any, **kwargs: Any) -> Any:
                async with self._again():
                    return await function(*args, **kwargs)

        else:

            @wraps(function)
            def decorated(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return function(*args, **kwargs)

        return cast(Function, decorated)


class HeldBlock(Block):
    """What `hold` returns."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._owners: list[Any] = []

    def _again(self) -> HeldBlock:
        return HeldBlock(self.alias)

    def __enter__(self) -> Any:
        owner = registry.owners().here(self.alias)
        owner.hold()
        self._owners.append(owner)
        return owner

    def __exit__(self, *exc_info: object) -> None:
        self._owners.pop().let_go()

    async def __aenter__(self) -> Any:
        return await registry.owners().run(self.__enter__)

    async def __aexit__(self, *exc_info: object) -> None:
        await registry.owners().run(self.__exit__)


def hold(alias: str = "default") -> HeldBlock:
    """Keep one connection for a block, or for a function that it decorates.

    The connection is taken with the block's first statement. When the outermost block of
    its thread is left, all session state that was made inside is undone, also what
    functions have made, unseen; then the connection goes back. If a transaction is open
    by then, or session state from before the block keeps the connection, that happens
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
    return HeldBlock(alias)
