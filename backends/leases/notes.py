"""Notes: what others ask the owner of a lease to do, because the owner alone moves it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Note = Callable[[Any], object]
"""Takes the runner. Done twice, it has the effect of once."""


class Notes:
    """A queue of notes. Any thread may add one, in the middle of anything."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[Note] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, note: Note) -> None:
        self._queue.append(note)

    def act(self, runner: Any) -> None:
        """Do what the notes ask for, in order. A note that fails is not tried again."""
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
        with suppress(ValueError):  # a finalizer has come in between, and acted on it, too
            self._queue.remove(note)
