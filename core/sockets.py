"""Sockets: whether the server has sent something on an idle connection."""

from __future__ import annotations

import select
from typing import Any


def has_unread_data(raw: Any) -> bool:
    """Return whether data waits to be read from the socket of *raw*. This does not block.

    :param raw: a driver's connection. If its socket is closed, the answer is True. If it has no
        ``fileno()``, the answer is False, because nobody can tell.
    """
    if not hasattr(raw, "fileno"):
        return False
    try:
        descriptor = raw.fileno()
        if hasattr(select, "poll"):  # select() takes no descriptor above 1023
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([descriptor], [], [], 0)[0])
    except Exception:  # noqa: BLE001 - the driver's or the system's, where it is closed
        return True
