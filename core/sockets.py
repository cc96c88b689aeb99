"""Sockets: has the server sent something on an idle connection?"""

from __future__ import annotations

import select
from typing import Any


def has_unread_data(raw: Any) -> bool:
    """Return whether the socket of *raw* has data to read. This does not block.

    :param raw: a driver's connection. If its socket is closed, the answer is True. If it has no
        ``fileno()``, its socket cannot be checked, and the answer is False.
    """
    if not hasattr(raw, "fileno"):
        return False
    try:
        descriptor = raw.fileno()
        if hasattr(select, "poll"):  # select() cannot handle descriptors above 1023
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([descriptor], [], [], 0)[0])
    except Exception:  # noqa: BLE001 - from the driver or the system, if it is closed
        return True
