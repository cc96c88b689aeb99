"""An exception from outside at each instruction of relet's code, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import relet.adapters
import relet.core
from relet.adapters.conformance import strikes
from relet.adapters.conformance.strikes import Struck

__all__ = ["Struck", "each_instruction", "strike_at"]

#: Every so many instructions are struck; at night, each.
STEP = int(os.environ.get("RELET_STRIKES_STEP", "47"))

RELET: tuple[ModuleType, ...] = (relet.core, relet.adapters)


def strike_at(
    number: int,
    run: Callable[[], object],
    packages: Sequence[ModuleType] = RELET,
    error: type[BaseException] = Struck,
) -> bool:
    """Call *run*, and raise *error* before instruction *number* of *packages*.

    :return: whether there were so many.
    """
    return strikes.strike_at(number, run, *packages, error=error)


def each_instruction(
    run: Callable[[], object],
    packages: Sequence[ModuleType] = RELET,
    before: Callable[[], object] | None = None,
    error: type[BaseException] = Struck,
    step: int = STEP,
) -> Iterator[int]:
    """Strike at each instruction of *run* in turn; yield its number when it has struck.

    :param step: how many instructions there are from one that is struck to the next.
    """
    return strikes.each_instruction(run, *packages, before=before, error=error, step=step)
