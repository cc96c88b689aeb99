"""Exclusive: methods that run under the connection's lock, which no interrupt leaves held."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from operator import attrgetter
from typing import ParamSpec, TypeVar

from relet.core.locks import locked

P = ParamSpec("P")
T = TypeVar("T")


def exclusive(path: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator for such methods.

    :param path: the attribute of the object that is the lock, with dots.
    """
    lock = attrgetter(path)

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        @wraps(method)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            return locked(lock(args[0]), partial(method, *args, **kwargs))

        return run

    return decorate
