"""Notes: requests from others to the owner of a lease, because only the owner may change it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Note = Callable[[Any], object]
"""Called with the runner. Must be idempotent, because it may be called twice."""


class Notes:
    """A queue of notes. Any thread may add one at any instruction."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[Note] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, note: Note) -> None:
        self._queue.append(note)

    def act(self, runner: Any) -> None:
        """Call the notes in order. A note that raises is not called again."""
        queue = self._queue
        while queue:
            note = queue[0]
            try:
                note(runner)
            except Exception:
                self._forget(note)
                raise
            self._forget(note)

    def _forget(self, note: Note) -> None:
        with suppress(ValueError):  # a finalizer has run in between and acted on it, too
            self._queue.remove(note)
