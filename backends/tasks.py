"""Tasks: which asynchronous task waits for the synchronous code that a thread runs.

asgiref runs that code for a task in whatever thread, and tells nobody whose it is. Only what
makes messages asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import CoroutineType, FrameType
from typing import Any

#: What asgiref's ``sync_to_async()`` runs in the thread, and the local that its caller has, too.
_HANDLER, _TOKEN = "thread_handler", "task_context"


def task_of(frame: FrameType | None) -> asyncio.Task[Any] | None:
    """Return the task that waits for what *frame*, or a caller of it, runs; if one does."""
    while frame is not None:
        if frame.f_code.co_name == _HANDLER and _TOKEN in frame.f_locals:
            return _waiting_for(frame.f_locals[_TOKEN], frame.f_locals.get("loop"))
        frame = frame.f_back
    return None


def _waiting_for(token: object, loop: Any) -> asyncio.Task[Any] | None:
    for task in asyncio.all_tasks(loop):
        if any(frame.f_locals.get(_TOKEN) is token for frame in frames_of(task)):
            return task
    return None


def frames_of(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of what *task* awaits, the outermost first."""
    awaited: Any = task.get_coro()
    while isinstance(awaited, CoroutineType):
        if awaited.cr_frame is not None:
            yield awaited.cr_frame
        awaited = awaited.cr_await
