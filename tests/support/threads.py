"""Threads that do one thing, or one after the other as they are told."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


def in_thread(function):
    """Run *function* in a thread of its own; return its result, raise its error."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


class Thread:
    """Runs functions in a thread of its own, one after the other."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (function := self._todo.get()) is not None:
            try:
                self._done.put((function(), None))
            except BaseException as error:
                self._done.put((None, error))

    def __call__(self, function: Callable[[], Any]) -> Any:
        self.begin(function)
        return self.result()

    def begin(self, function: Callable[[], Any]) -> None:
        """Have it call *function*, and go on; `result` is to be called before the next one."""
        self._todo.put(function)

    def result(self) -> Any:
        """Return what the function that was begun returns; raise its error."""
        # A missed release would block for good.
        result, error = self._done.get(timeout=30)
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        self._todo.put(None)
        self._thread.join(30)
