"""Exclusive: methods that run under the lock of their connection. No interrupt leaves it taken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from operator import attrgetter
from typing import Concatenate, ParamSpec, TypeVar

from relet.core.locks import locked

P = ParamSpec("P")
T = TypeVar("T")
Owner = TypeVar("Owner")

Method = Callable[Concatenate[Owner, P], T]


def exclusive(path: str) -> Callable[[Method[Owner, P, T]], Method[Owner, P, T]]:
    """Return a decorator of methods.

    :param path: where their owner has the lock.
    """
    lock = attrgetter(path)

    def decorate(method: Method[Owner, P, T]) -> Method[Owner, P, T]:
        @wraps(method)
        def run(self: Owner, *args: P.args, **kwargs: P.kwargs) -> T:
            return locked(lock(self), partial(method, self, *args, **kwargs))

        return run

    return decorate
