"""An exception from outside at instructions of relet's code, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import relet.adapters
import relet.core
from relet.adapters.conformance import strikes
from relet.adapters.conformance.strikes import Struck

__all__ = ["Struck", "each_instruction", "strike_at"]

#: Every so many instructions are struck; at night, each.
STEP = int(os.environ.get("RELET_STRIKES_STEP", "11"))

RELET: tuple[ModuleType, ...] = (relet.core, relet.adapters)


def strike_at(number: int, run: Callable[[], object], packages: Any = RELET) -> bool:
    """Call *run*, and raise `Struck` before instruction *number* of *packages*.

    :return: whether there were so many.
    """
    return strikes.strike_at(number, run, *packages)


def each_instruction(
    run: Callable[[], object],
    packages: Any = RELET,
    before: Callable[[], object] | None = None,
    step: int = STEP,
) -> Iterator[int]:
    """Strike at instructions of *run* in turn; yield its number when it has struck."""
    return strikes.each_instruction(run, *packages, before=before, step=step)
