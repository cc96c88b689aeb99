"""Sync threads: calls a function in the thread that runs the synchronous code of a task."""

from __future__ import annotations

from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Callable
from contextlib import suppress

from asgiref.sync import sync_to_async


def call_soon(function: Callable[[], object]) -> None:
    """Have *function* called in the thread to which asgiref gives the running task's code.

    Do nothing outside an event loop, or if the loop or the thread is about to end. The garbage
    collector may call this at any instruction, when only the loop itself may take locks.
    """
    loop: AbstractEventLoop | None = _get_running_loop()
    if loop is not None:
        with suppress(RuntimeError):  # it was closed
            loop.call_soon_threadsafe(_submit, function)


def _submit(function: Callable[[], object]) -> None:
    # The coroutine's first step submits the call. Nobody waits for the result, and so no task is
    # pending when the loop is closed.
    call = sync_to_async(function)()
    with suppress(RuntimeError):  # there is no thread any more
        call.send(None)
    call.close()
