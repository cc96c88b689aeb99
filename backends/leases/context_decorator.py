"""AsyncContextDecorator: a context manager for ``with``, ``async with`` and functions."""

from __future__ import annotations

import asyncio
import inspect
from _thread import get_ident
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Generic, TypeVar, cast

from asgiref.sync import sync_to_async

Entry = TypeVar("Entry")
Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


class AsyncContextDecorator(ABC):
    """A block of code for which something holds.

    ``with`` and ``async with`` take it, and so do functions, by ``@``. The same one may be nested
    in itself, and be in use in many threads.
    """

    @abstractmethod
    def __enter__(self) -> Any: ...

    @abstractmethod
    def __exit__(self, *exc_info: object) -> None: ...

    @abstractmethod
    async def __aenter__(self) -> Any: ...

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None: ...

    def __call__(self, function: Function) -> Function:
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"{function!r} is no function, and cannot be decorated.")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function!r} is a generator function: its body would run when the block has "
                "been left. Put a 'with' block into it."
            )
        if _is_asynchronous(function):

            @wraps(function)
            async def decorated(*args: Any, **kwargs: Any) -> Any:
                async with self:
                    return await function(*args, **kwargs)

        else:

            @wraps(function)
            def decorated(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return function(*args, **kwargs)

        return cast(Function, decorated)


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    marker = getattr(asyncio.coroutines, "_is_coroutine", None)  # asgiref's, before Python 3.12
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
        or (marker is not None and getattr(function, "_is_coroutine", None) is marker)
    )


async def in_thread(
    function: Callable[[], Result], undo: Callable[[], object] | None = None
) -> Result:
    """Run *function* where synchronous code of this task runs, to its end.

    A task that is cancelled meanwhile would leave it half done, or done unawares.

    :param undo: what is to be run, there, if it was done and the task was cancelled.
    """
    running = asyncio.ensure_future(_run(function))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await _finished(running)
        if undo is not None and not running.cancelled() and running.exception() is None:
            await _finished(asyncio.ensure_future(_run(undo)))
        raise


async def _run(function: Callable[[], Result]) -> Result:
    return await sync_to_async(function, thread_sensitive=True)()


async def _finished(future: asyncio.Future[Any]) -> None:
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])


class Entered(Generic[Entry]):
    """What each `with` of one block has entered, and in which thread.

    It may be left in another thread: a generator that has the `with` is closed by whoever drops
    it, an asynchronous one by the event loop.
    """

    def __init__(self) -> None:
        self._entries: dict[Entry, int] = {}

    def add(self, entry: Entry) -> None:
        """Something was entered, in this thread."""
        self._entries[entry] = get_ident()

    def discard(self, entry: Entry) -> None:
        """It was left."""
        self._entries.pop(entry, None)

    def last(self) -> Entry | None:
        """Return what was entered last in this thread; in any, if nothing was in this."""
        thread = get_ident()
        entries = list(self._entries.items())
        here = [entry for entry, entered_in in entries if entered_in == thread]
        return next(reversed(here or [entry for entry, _ in entries]), None)
