"""Fork: functions that run before and after the process forks.

A child inherits locks that another thread of its parent may have held, and connections that its
parent still uses. Each part of relet that owns such a lock or connection registers handlers here.

https://docs.python.org/3/library/os.html#os.register_at_fork
"""

from __future__ import annotations

import os
from collections.abc import Callable

_inherited: list[object] = []


def keep_for_good(inherited: object) -> None:
    """Keep an object of the parent process alive in this child.

    Garbage collection would close sockets that the parent still uses, or join threads that do not
    exist in this process.
    """
    _inherited.append(inherited)


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Register functions to call when the process forks. On platforms without fork, do nothing."""
    given = {
        "before": before,
        "after_in_parent": after_in_parent,
        "after_in_child": after_in_child,
    }
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**{name: call for name, call in given.items() if call is not None})
