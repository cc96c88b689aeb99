"""A thread that holds something while a test goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from .waiting import PATIENCE


@contextmanager
def staying(
    begin: Callable[[], Any], end: Callable[[], object] = lambda: None, **thread: Any
) -> Iterator[Any]:
    """A thread that calls *begin*, stays until the block ends, and then calls *end*.

    What *begin* returns is yielded when it has.

    :param thread: more arguments of `threading.Thread`.
    """
    begun: Future[Any] = Future()
    over = threading.Event()

    def run() -> None:
        try:
            begun.set_result(begin())
        except BaseException as error:
            begun.set_exception(error)
            return
        over.wait(PATIENCE)
        end()

    holder = threading.Thread(target=run, name="holder", **thread)
    holder.start()
    try:
        yield begun.result(PATIENCE)
    finally:
        over.set()
        holder.join(PATIENCE)
        assert not holder.is_alive()


def holding(make: Callable[[], AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
    """A thread that is in the block that *make* makes, until ours ends."""
    stack = ExitStack()
    return staying(lambda: stack.enter_context(make()), stack.close)
