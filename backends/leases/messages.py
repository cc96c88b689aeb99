"""Messages: what relet has to tell the log, kept until no statement is under way.

A handler of the log may write to the database itself, on the very connection that a message is
about. So nothing is logged from inside of a statement or a transaction.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

logger = logging.getLogger("relet")

#: How many are kept at most; the oldest go first.
_MOST = 100


class _Message(NamedTuple):
    level: int
    text: str
    arguments: tuple[object, ...]
    error: BaseException | None


class Messages:
    """The messages of one wrapper that the log has not been told yet."""

    def __init__(self) -> None:
        self._kept: deque[_Message] = deque(maxlen=_MOST)

    def __bool__(self) -> bool:
        return bool(self._kept)

    def warning(self, text: str, *arguments: object) -> None:
        """Keep a warning."""
        self._kept.append(_Message(logging.WARNING, text, arguments, None))

    def debug(self, alias: str, what: str, error: BaseException) -> None:
        """Keep what is for those alone who look for the cause of something."""
        self._kept.append(_Message(logging.DEBUG, "DATABASES[%r]: %s", (alias, what), error))

    def log(self) -> None:
        """Tell the log all of them, in order."""
        while self._kept:
            message = self._kept.popleft()
            logger.log(message.level, message.text, *message.arguments, exc_info=message.error)
