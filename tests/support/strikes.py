"""An exception from outside at each instruction of relet's code, one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import pytest

import relet.adapters
import relet.core
from relet.adapters.conformance import strikes
from relet.adapters.conformance.strikes import Struck

__all__ = ["Struck", "each_instruction", "strike_at"]

#: Every so many instructions are struck; in the gate's other sessions others, and at night each.
STEP = int(os.environ.get("RELET_STRIKES_STEP", "193"))

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
    with _sound_interpreter():
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
    with _sound_interpreter():
        yield from strikes.each_instruction(run, *packages, before=before, error=error, step=step)


@contextmanager
def _sound_interpreter() -> Iterator[None]:
    """Skip the test if CPython 3.11 mixes up its stack.

    Once in some thousand times it does so when a trace function raises below a ``with``, and calls
    the traceback instead of ``__exit__``. Later versions do not.
    """
    try:
        yield
    except TypeError as broken:
        if sys.version_info >= (3, 12) or str(broken) != "'traceback' object is not callable":
            raise
        pytest.skip("CPython 3.11 has mixed up its stack: it called a traceback")
