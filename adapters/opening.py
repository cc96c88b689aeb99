"""Opening a connection: connect, configure, and close it if that fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from relet.core import PoolConfig

T = TypeVar("T")

#: The minimal wait, in seconds, while connections are being opened.
MIN_WAIT = 0.2


def opened(connect: Callable[[Mapping[str, Any]], Any], config: PoolConfig) -> Any:
    """Return a new, configured connection.

    :param connect: opens a connection in autocommit.
    """
    raw = None
    parameters = config.parameters()
    try:
        raw = connect(parameters)
        config.configure(raw)
    except BaseException as error:
        if raw is not None:
            raw.close()
        forget_frames(error)
        raise
    return raw


def configure_or_close(raw: T, configure: Callable[[T], object]) -> T:
    """Call *configure* with *raw*, which was just opened, and return *raw*.

    If *configure* raises, *raw* is closed.
    """
    try:
        configure(raw)
    except BaseException:
        raw.close()  # type: ignore[attr-defined]
        raise
    return raw


def forget_frames(error: BaseException) -> None:
    """Clear the frames of *error*, so that it keeps no connection alive.

    Until a driver returns a connection, only local variables of the driver refer to it. The
    traceback keeps these alive, and with them a session of the server.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
