"""Silence: whether something has arrived on an idle connection."""

from __future__ import annotations

import select
from typing import Any


def silent(raw: Any) -> bool:
    """Return whether nothing waits to be read from the socket of *raw*. It does not block.

    :param raw: a driver's connection. One that has no socket any more is not silent; one that has
        no ``fileno()`` at all is, for nobody can tell.
    """
    if not hasattr(raw, "fileno"):
        return True
    try:
        descriptor = raw.fileno()
        if hasattr(select, "poll"):  # select() takes no descriptor above 1023
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return not poll.poll(0)
        return not select.select([descriptor], [], [], 0)[0]
    except Exception:  # noqa: BLE001 - the driver's or the system's, where it is closed
        return False
