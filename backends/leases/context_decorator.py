"""AsyncContextDecorator: a context manager for ``with``, ``async with`` and functions."""

from __future__ import annotations

import asyncio
import inspect
from _thread import get_ident
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, Generic, TypeVar, cast

from asgiref.sync import sync_to_async

Entry = TypeVar("Entry")
Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


class AsyncContextDecorator(ABC):
    """A context manager for ``with`` and ``async with`` that also decorates functions.

    One instance may be entered again while it is entered, and by many threads at a time.
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
        if not callable(function) or isinstance(function, (type, staticmethod)):
            raise TypeError(
                f"{function!r} is not a function and cannot be decorated. Decorate the functions "
                "of a class, below @staticmethod, @classmethod and @property."
            )
        if _is_generator(function):
            raise TypeError(
                f"{function!r} is a generator function: its body would run after the block has "
                "ended. Use a 'with' block inside it."
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


def _called(function: Any) -> tuple[Any, ...]:
    """Return what a call of *function* may run: itself, or the ``__call__`` of an object."""
    while isinstance(function, partial):
        function = function.func
    return function, getattr(function, "__call__", None)  # noqa: B004


def _is_generator(function: Callable[..., Any]) -> bool:
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in _called(function)
    )


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    # Before Python 3.12, asgiref marks functions with this.
    marker = getattr(asyncio.coroutines, "_is_coroutine", None)
    return any(map(inspect.iscoroutinefunction, _called(function))) or (
        marker is not None and getattr(function, "_is_coroutine", None) is marker
    )


async def in_thread(
    function: Callable[[], Result], undo: Callable[[], object] | None = None
) -> Result:
    """Run *function* to its end in the thread that runs this task's synchronous code.

    If the task is cancelled meanwhile, wait until *function* has returned, so that its effect is
    either complete or undone.

    :param undo: run in the same thread if the task was cancelled and *function* succeeded.
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
    """The entries of one block that were not left yet, each with the thread that entered it.

    Another thread may leave the block: a generator with a `with` inside is closed by the thread
    that drops it, an asynchronous one by the event loop.
    """

    def __init__(self) -> None:
        self._entries: dict[Entry, int] = {}

    def add(self, entry: Entry) -> None:
        """Record that this thread has entered *entry*."""
        self._entries[entry] = get_ident()

    def discard(self, entry: Entry) -> None:
        """Record that *entry* was left."""
        self._entries.pop(entry, None)

    def last(self) -> Entry | None:
        """Return this thread's last entry; any thread's last entry if this one has none."""
        thread = get_ident()
        entries = list(self._entries.items())
        here = [entry for entry, entered_in in entries if entered_in == thread]
        return next(reversed(here or [entry for entry, _ in entries]), None)
