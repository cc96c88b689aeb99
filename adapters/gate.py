"""Deprecated: use `relet.adapters.semaphore`."""

from __future__ import annotations

from relet.core.deprecated import moved, warn_renamed

from .semaphore import FairSemaphore

__getattr__ = moved(__name__, {"GateClosed": "relet.adapters.semaphore:SemaphoreClosed"})


class Gate(FairSemaphore):
    """A `FairSemaphore` by its old names."""

    def __init__(self, size: int | None) -> None:
        warn_renamed("relet.adapters.gate.Gate", "relet.adapters.semaphore.FairSemaphore")
        super().__init__(size)

    enter = FairSemaphore.acquire
    leave = FairSemaphore.release
    inside = FairSemaphore.in_use
