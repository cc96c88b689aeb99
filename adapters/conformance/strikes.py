"""Strikes: an exception from outside, raised before each instruction in turn.

A signal handler, or `gevent.Timeout`, may raise at almost any moment. Timers hit only some of
these moments. A strike hits each of them in order, and the same ones each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from .instructions import Instruction


class Struck(BaseException):
    """Like KeyboardInterrupt, but raised by a strike alone."""


def strike_at(
    number: int,
    run: Callable[[], object],
    *packages: ModuleType,
    error: type[BaseException] = Struck,
) -> bool:
    """Call *run*, and raise *error* before its instruction *number*.

    :return: whether *run* has that many instructions. See `struck_at`.
    """
    return struck_at(number, run, *packages, error=error) is not None


def struck_at(
    number: int,
    run: Callable[[], object],
    *packages: ModuleType,
    error: type[BaseException] = Struck,
) -> str | None:
    """Call *run*, and raise *error* before its instruction *number*.

    Only instructions of *packages* count, from 1, in the order in which this thread runs them. The
    error is raised once: the code that it passes through, such as an ``except`` clause, is safe.

    :param error: a class that nothing else raises.
    :return: where the instruction is; None if *run* has fewer instructions. Otherwise *run* has
        raised *error*, or a finalizer has, where Python ignores it.
    :raises AssertionError: *run* has swallowed *error*.
    :raises BaseException: whatever else *run* raises.
    """
    folders = tuple(_folder(package) for package in packages)

    def strike() -> None:
        raise error(instruction.place)

    instruction = Instruction(number, lambda name: name.startswith(folders), strike)
    ignored = False
    hook = sys.unraisablehook

    def unraisable(found: Any) -> None:
        nonlocal ignored
        if isinstance(found.exc_value, error):
            ignored = True
        else:
            hook(found)

    sys.unraisablehook = unraisable
    try:
        call_apart(lambda: instruction.watch(run))
    except error:
        return instruction.place
    finally:
        sys.unraisablehook = hook
    if instruction.reached and not ignored:
        raise AssertionError(
            f"the exception raised at instruction {number} was swallowed: {instruction.place}"
        )
    return instruction.place or None


def each_instruction(
    run: Callable[[], object],
    *packages: ModuleType,
    before: Callable[[], object] | None = None,
    error: type[BaseException] = Struck,
    step: int = 1,
) -> Iterator[int]:
    """Strike at each instruction of *run* in turn; yield its number afterwards.

    :param before: is called before each *run*; it is never struck.
    :param step: the distance from one struck instruction to the next.
    """
    for number in count(1, step):
        if before is not None:
            before()
        if not strike_at(number, run, *packages, error=error):
            return
        yield number


def call_apart(function: Callable[[], object]) -> None:
    """Call *function* in a generator, which keeps the exception that is being handled to itself.

    An exception that strikes at the last instruction of an ``except`` clause may leave Python with
    that clause's exception. It would be the context of all that this thread raises from then on.
    """

    def work() -> Iterator[None]:
        function()
        yield

    next(work())


def _folder(package: ModuleType) -> str:
    """Return the prefix of the file names of *package*, which may be a plain module."""
    if package.__file__ is not None and not hasattr(package, "__path__"):
        return package.__file__
    return str(Path(next(iter(package.__path__)))) + "/"
