"""Fork: what is to be done before and after the process forks.

A child inherits locks that a thread of its parent's may have held, and connections that are still
its parent's. Each part of relet that has such a thing registers here what it does about it.

https://docs.python.org/3/library/os.html#os.register_at_fork
"""

from __future__ import annotations

import os
from collections.abc import Callable

_inherited: list[object] = []


def keep_for_good(inherited: object) -> None:
    """In a child: keep what is its parent's, so that nothing closes it here.

    Collecting it would close sockets that the parent still uses, or join threads that this process
    does not have.
    """
    _inherited.append(inherited)


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Have functions called when the process forks. Where there is no fork(), nothing is done."""
    given = {
        "before": before,
        "after_in_parent": after_in_parent,
        "after_in_child": after_in_child,
    }
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**{name: call for name, call in given.items() if call is not None})
