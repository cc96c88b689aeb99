"""Tasks: finds the asynchronous task that waits for the synchronous code of a thread.

asgiref runs synchronous code in a thread without recording the task, so this reads frames. It is
used only to write messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import CoroutineType, FrameType
from typing import Any

#: The function that asgiref's ``sync_to_async()`` runs in the thread, and a local variable that
#: this function and the waiting coroutine share.
_HANDLER, _TOKEN = "thread_handler", "task_context"


class Tasks:
    """A snapshot of the tasks of this process that wait for threads."""

    def __init__(self) -> None:
        self._by_token: dict[Any, dict[int, asyncio.Task[Any]]] = {}

    def of(self, frame: FrameType | None) -> asyncio.Task[Any] | None:
        """Return the task that waits for *frame* or one of its callers, or None."""
        while frame is not None:
            if frame.f_code.co_name == _HANDLER and _TOKEN in frame.f_locals:
                loop = frame.f_locals.get("loop")
                return self._of_loop(loop).get(id(frame.f_locals[_TOKEN]))
            frame = frame.f_back
        return None

    def _of_loop(self, loop: Any) -> dict[int, asyncio.Task[Any]]:
        if loop not in self._by_token:
            self._by_token[loop] = {
                id(frame.f_locals[_TOKEN]): task
                for task in (() if loop is None else asyncio.all_tasks(loop))
                for frame in frames_of(task)
                if _TOKEN in frame.f_locals
            }
        return self._by_token[loop]


def frames_of(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yield the frames of the coroutines that *task* awaits, the outermost first."""
    awaited: Any = task.get_coro()
    while isinstance(awaited, CoroutineType):
        if awaited.cr_frame is not None:
            yield awaited.cr_frame
        awaited = awaited.cr_await
