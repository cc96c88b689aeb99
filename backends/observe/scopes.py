"""Scope: the route that the code of this thread or task runs for.

It is kept in a context variable, so that threads, asyncio tasks and greenlets do not mix.
"""

from __future__ import annotations

from contextvars import ContextVar
from weakref import ref

#: The innermost scope, or None.
CURRENT: ContextVar[Scope | None] = ContextVar("relet.observe.scope", default=None)

_LENGTH = 200
#: How many scopes may be open within each other before those that are over are looked for: of
#: requests that were never finished, and of blocks in generators that were dropped.
_DEPTH = 100


class Scope:
    """A request, a task, a command, or a block with a label.

    :ivar route: its name in reports. For a request it changes once the URL is resolved; all
        contexts that were copied meanwhile see that.
    :ivar owner: identifies it for `leave`. Of a block it is a weak reference, which tells whether
        that is over.
    :ivar outer: the scope around it, or None.
    """

    __slots__ = ("_depth", "_limit", "outer", "owner", "route")

    def __init__(self, route: str, owner: object = None, outer: Scope | None = None) -> None:
        self.rename(route)
        self.owner = owner
        self.outer = outer
        self._depth: int = 0 if outer is None else outer._depth + 1
        self._limit: int = _DEPTH if outer is None else outer._limit
        if self._depth > self._limit:
            self.outer = outer = _open(outer)
            self._depth = 0 if outer is None else outer._depth + 1
            self._limit = _DEPTH + 2 * self._depth

    def rename(self, route: str) -> None:
        """Give it another name."""
        self.route = route[:_LENGTH]


def _open(scope: Scope | None) -> Scope | None:
    """Return *scope* and those around it, without those that are over.

    Of a block that is known. Of requests, tasks and commands the innermost is open, if any.
    """
    found: list[Scope] = []
    owners: set[object] = set()
    while scope is not None:
        owner = scope.owner
        is_open = owner() is not None if isinstance(owner, ref) else owner not in owners
        if is_open:
            found.append(scope)
            owners.add(owner)
        scope = scope.outer
    outer = None
    for each in reversed(found):
        copy = Scope(each.route, each.owner)
        if outer is not None:
            copy.outer, copy._depth = outer, outer._depth + 1
        outer = copy
    return outer


def enter(route: str, owner: object) -> Scope:
    """Begin a scope here.

    :param owner: identifies it for `leave`. A block gives a weak reference to itself.
    """
    scope = Scope(route, owner, CURRENT.get())
    CURRENT.set(scope)
    return scope


def leave(owner: object) -> None:
    """End the innermost scope of *owner* here, and those inside it. Without one, do nothing."""
    scope = CURRENT.get()
    while scope is not None and scope.owner is not owner:
        scope = scope.outer
    if scope is not None:
        CURRENT.set(scope.outer)


def current_route() -> str | None:
    """Return the route of this thread or task, or None if no scope says it."""
    scope = CURRENT.get()
    return None if scope is None else scope.route
