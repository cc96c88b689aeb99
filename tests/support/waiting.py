"""Waiting for what nobody announces."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")

#: How long anything may take at most, in seconds.
PATIENCE = 60.0
#: From one look to the next, in seconds: whoever is waited for needs the processor, too.
_INTERVAL = 0.001


def until(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Wait until *condition* returns something true; return that."""
    deadline = monotonic() + seconds
    while not (found := condition()):
        assert monotonic() < deadline, f"not true after {seconds:g} s"
        sleep(_INTERVAL)
    return found
