"""Scope: the route that the code of this thread or task runs for.

It is kept in a context variable, so that threads, asyncio tasks and greenlets do not mix.
"""

from __future__ import annotations

from contextvars import ContextVar

#: The innermost scope, or None.
CURRENT: ContextVar[Scope | None] = ContextVar("relet.observe.scope", default=None)

_LENGTH = 200
#: How many scopes may be open within each other. Those of requests that were never finished would
#: pile up without it.
_DEPTH = 16


class Scope:
    """A request, a task, a command, or a block with a label.

    :ivar route: its name in reports. For a request it changes once the URL is resolved; all
        contexts that were copied meanwhile see that.
    :ivar outer: the scope around it, or None.
    """

    __slots__ = ("depth", "outer", "owner", "route")

    def __init__(self, route: str, owner: object = None, outer: Scope | None = None) -> None:
        self.rename(route)
        self.owner = owner
        self.outer: Scope | None = None
        self.depth = 0
        if outer is not None and outer.depth < _DEPTH:
            self.outer, self.depth = outer, outer.depth + 1

    def rename(self, route: str) -> None:
        """Give it another name."""
        self.route = route[:_LENGTH]


def enter(route: str, owner: object) -> Scope:
    """Begin a scope here.

    :param owner: identifies it for `leave`.
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
