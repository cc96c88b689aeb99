"""``close_all()``: the end of all pools of this process."""

from __future__ import annotations

from .registry import registry


def close_all(timeout: float = 5.0) -> bool:
    """Close all pools of this process: what is idle now, what is leased when it comes back.

    For servers that stop, and processes about to fork. A pool that is needed afterwards is made
    anew. At the interpreter's exit pools are closed without it.

    :param timeout: seconds to wait for it, at most. A pool may have threads that are to end, and
        a server may not answer; what is not closed by then goes on in the background.
    :return: whether all of them are closed.
    """
    return registry.owners().close_pools(timeout)
