"""Locks that no exception from outside leaves taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_COUNT = re.compile(r"count=(\d+)")


def depth(lock: Any) -> int:
    """Return how often this thread holds *lock*, an `RLock`."""
    if not lock._is_owned():
        return 0
    if hasattr(lock, "_recursion_count"):
        return int(lock._recursion_count())
    # Before Python 3.11; and that of gevent.
    return lock._count if hasattr(lock, "_count") else int(_COUNT.findall(repr(lock))[0])


def release_to(lock: Any, held: int) -> None:
    """Release *lock*, an `RLock`, until this thread holds it *held* times.

    This is for code that has to be safe from exceptions from outside. An ``except`` around all
    that is done with the lock, from `acquire` to `release`, knows by its `depth` how far that came.
    ``with`` will not do: it does not guard the few instructions in which it calls ``__exit__``, nor
    that of a ``try`` in its block.

    :param held: the `depth` before. It is more than 0 where a finalizer, or a signal handler, has
        come in the middle of other code that holds the lock.
    """
    while depth(lock) > held:
        lock.release()


def locked(lock: Any, function: Callable[[], T]) -> T:
    """Call *function* under *lock*, an `RLock`, and return what it does, or raise it.

    The lock is free again, whatever strikes; *function* is to see to everything else.
    """
    held = depth(lock)
    try:
        lock.acquire()
        result, error = _outcome(function)
        lock.release()
    except BaseException:
        release_to(lock, held)
        raise
    if error is None:
        return result  # type: ignore[return-value]
    try:
        raise error
    finally:
        del error  # else it would refer to itself, by its traceback and this frame


def _outcome(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return what *function* returns, and what it raises.

    So that an error of its own is dealt with where an exception from outside may still strike:
    there is nothing around the ``except`` of the caller.
    """
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        return None, error
