"""Opening a connection: connect, configure, and close it if that fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from relet.core import PoolConfig

T = TypeVar("T")


def opened(connect: Callable[[Mapping[str, Any]], Any], config: PoolConfig) -> Any:
    """Return a new connection that is configured.

    :param connect: the driver's, in autocommit.
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
    """Return *raw*, which was just opened and which *configure* was called with.

    If that raises, *raw* is closed.
    """
    try:
        configure(raw)
    except BaseException:
        raw.close()  # type: ignore[attr-defined]
        raise
    return raw


def forget_frames(error: BaseException) -> None:
    """Have *error* keep no connection that was being opened when it was raised.

    Until a driver returns a connection, only the variables of its own functions refer to it. A
    traceback keeps these alive, and a session of the server with them.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
