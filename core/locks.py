"""Locks that stay consistent when a foreign exception interrupts the code that holds them.

`relet.core.outside` explains where foreign exceptions come from.
"""

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
    # Python before 3.11, and gevent, have no such method.
    return lock._count if hasattr(lock, "_count") else int(_COUNT.findall(repr(lock))[0])


def release_to(lock: Any, held: int) -> None:
    """Release *lock*, an `RLock`, until this thread holds it *held* times.

    Code that must survive foreign exceptions puts one ``except`` around everything from `acquire`
    to `release`, and compares `depth` to find out how far it got. ``with`` is not enough: an
    exception can strike between the end of its block and the call of ``__exit__``.

    :param held: the `depth` before. It is more than 0 when a finalizer or a signal handler runs in
        the middle of other code that holds the lock.
    """
    while depth(lock) > held:
        lock.release()


def locked(lock: Any, function: Callable[[], T], *, timeout: float | None = None) -> T:
    """Call *function* while holding *lock*, an `RLock`; return its result or raise its error.

    The lock is released even if a foreign exception strikes. *function* itself must take care of
    everything else.

    :param timeout: how long to wait for the lock, in seconds; None for however long it takes. If
        another thread still holds it then, *function* is not called, and the result is None.
    """
    held = depth(lock)
    try:
        if timeout is None:
            lock.acquire()
        # To gevent's locks, -1 is a time-out like any other.
        elif not (lock.acquire(True, timeout) if timeout else lock.acquire(False)):
            return None  # type: ignore[return-value]
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
        del error  # break the cycle from the error through its traceback and this frame


def _outcome(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return the result of *function*, or the error that it raised.

    Returning the error keeps it out of the caller's ``except``, in which a foreign exception could
    still strike and nothing would release the lock.
    """
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        return None, error
