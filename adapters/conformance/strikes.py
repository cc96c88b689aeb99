"""Strikes: an exception from outside, raised before each instruction in turn.

A signal handler, or `gevent.Timeout`, may raise at almost any moment. Timers hit only some of the
moments; these hit all of them, in order, and each time the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

#: This kit itself is not struck.
_KIT = str(Path(__file__).parent)


class Struck(BaseException):
    """As KeyboardInterrupt is, and nobody else's."""


def strike_at(
    number: int,
    run: Callable[[], object],
    *packages: ModuleType,
    error: type[BaseException] = Struck,
) -> bool:
    """Call *run*, and raise *error* before its instruction *number*.

    Instructions are counted from 1, in the order in which this thread runs them, and only those of
    *packages*. It strikes once: what runs on its way out, such as an ``except`` clause, is safe.

    :param error: is to be nobody else's.
    :return: whether there were so many instructions. Then *run* has raised *error*, or it struck
        in a finalizer, where Python ignores it.
    :raises AssertionError: *run* has swallowed it.
    :raises BaseException: whatever else *run* raises.
    """
    tracer = _Tracer(number, packages, error)
    try:
        tracer.watch(run)
    except error:
        return True
    if tracer.struck and not tracer.ignored:
        raise AssertionError(f"what struck at instruction {number} was swallowed: {tracer.place}")
    return tracer.struck


def each_instruction(
    run: Callable[[], object],
    *packages: ModuleType,
    before: Callable[[], object] | None = None,
    error: type[BaseException] = Struck,
    step: int = 1,
) -> Iterator[int]:
    """Strike at each instruction of *run* in turn; yield its number when it has struck.

    :param before: is called before each *run*, and is not struck.
    :param step: how many instructions there are from one that is struck to the next.
    """
    for number in count(1, step):
        if before is not None:
            before()
        if not strike_at(number, run, *packages, error=error):
            return
        yield number


class _Tracer:
    def __init__(
        self, number: int, packages: tuple[ModuleType, ...], error: type[BaseException]
    ) -> None:
        self.left = number
        self.error = error
        self.struck = False
        #: Whether Python has ignored it.
        self.ignored = False
        #: Where it struck.
        self.place = ""
        self._folders = tuple(_folder(package) for package in packages)
        self._known: dict[CodeType, bool] = {}

    def watch(self, run: Callable[[], object]) -> None:
        before, hook = sys.gettrace(), sys.unraisablehook

        def unraisable(found: Any) -> None:
            if isinstance(found.exc_value, self.error):
                self.ignored = True
            else:
                hook(found)

        sys.unraisablehook = unraisable
        # Python 3.12 traces instructions if any frame had it so when the tracer was set.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._call)
        try:
            run()
        finally:
            sys.settrace(before)
            sys.unraisablehook = hook

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        known = self._known.get(code)
        if known is None:
            name = code.co_filename
            known = name.startswith(self._folders) and not name.startswith(_KIT)
            self._known[code] = known
        if not known or self.struck:
            return None
        # First, else Python 3.13 does not look at what follows.
        frame.f_trace = self._instruction
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode" and not self.struck:
            self.left -= 1
            if not self.left:
                self.struck = True
                sys.settrace(None)
                code = frame.f_code
                self.place = f"{code.co_filename}:{frame.f_lineno}, in {code.co_name}"
                raise self.error(self.place)
        return self._instruction


def _folder(package: ModuleType) -> str:
    """Return what the file names of *package*, or of a module that is none, begin with."""
    if package.__file__ is not None and not hasattr(package, "__path__"):
        return package.__file__
    return str(Path(next(iter(package.__path__)))) + "/"
