"""Messages: log messages that wait until no statement is under way.

A log handler may write to the database, on the very connection that the message is about. So
nothing is logged inside a statement or a transaction.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

logger = logging.getLogger("relet")

#: The number of messages kept; older ones are dropped.
_MAX_PENDING = 100


class _Message(NamedTuple):
    level: int
    text: str
    arguments: tuple[object, ...]
    error: BaseException | None


class Messages:
    """The pending log messages of one wrapper."""

    def __init__(self) -> None:
        self._pending: deque[_Message] = deque(maxlen=_MAX_PENDING)

    def __bool__(self) -> bool:
        return bool(self._pending)

    def warning(self, text: str, *arguments: object) -> None:
        """Add a warning."""
        self._pending.append(_Message(logging.WARNING, text, arguments, None))

    def debug(self, alias: str, what: str, error: BaseException) -> None:
        """Add a debug message with the traceback of *error*."""
        self._pending.append(_Message(logging.DEBUG, "DATABASES[%r]: %s", (alias, what), error))

    def log(self) -> None:
        """Log all pending messages, in order."""
        while self._pending:
            message = self._pending.popleft()
            logger.log(message.level, message.text, *message.arguments, exc_info=message.error)
