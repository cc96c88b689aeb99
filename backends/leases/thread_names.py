"""Names of threads, for reports and errors."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from types import FrameType


class ThreadNames:
    """The threads that are alive at one moment.

    :param frames: what `sys._current_frames` returns.
    """

    def __init__(self, frames: Mapping[int, FrameType]) -> None:
        self._names = {thread.ident: thread.name for thread in threading.enumerate()}
        self._alive = frames.keys()

    def of(self, ident: int) -> str | None:
        """Return the name of a thread or greenlet; None if it has ended.

        `threading` does not know those that were started without it.
        """
        if (name := self._names.get(ident)) is not None:
            return name
        # Greenlets have numbers as well, and are in no list. A lease whose thread has ended has 0.
        if ident in self._alive or (ident and "gevent" in sys.modules):
            return f"(id {ident})"
        return None
