"""Locks that an exception from outside may strike: how often they are held, and back to that."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def depth(lock: Any) -> int:
    """Return how often this thread holds *lock*, an `RLock`."""
    if not lock._is_owned():
        return 0
    if hasattr(lock, "_recursion_count"):
        return int(lock._recursion_count())
    # Before Python 3.11; and that of gevent.
    return lock._count if hasattr(lock, "_count") else int(_COUNT.findall(repr(lock))[0])


_COUNT = re.compile(r"count=(\d+)")


def release_to(lock: Any, held: int) -> None:
    """Release *lock*, an `RLock`, until this thread holds it *held* times.

    ``with`` does not guard the few instructions in which it calls ``__exit__``. An ``except``
    around all that is done with the lock does, and knows by `depth` how far that came.

    :param held: the `depth` before. It is more than 0 where a finalizer, or a signal handler, has
        come in the middle of other code that holds the lock.
    """
    while depth(lock) > held:
        lock.release()


def locked(lock: Any, function: Callable[[], Result]) -> Result:
    """Return what *function* does while this thread holds *lock*, an `RLock`.

    Whatever is raised, at whatever instruction, the lock is free again.
    """
    held = depth(lock)
    try:
        with lock:
            return function()
    except BaseException:
        release_to(lock, held)
        raise
