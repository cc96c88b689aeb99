"""Instructions: act before one instruction of the code that a thread runs.

Timers hit only some moments of a race. Here each moment has a number, so that each can be tried.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

#: The instructions of the kit itself do not count.
_KIT = str(Path(__file__).parent)


class Instruction:
    """One of the instructions that count, by its number.

    :param number: counted from 1, in the order in which the thread runs them.
    :param counts: returns whether the instructions of a file count, given its name.
    :param act: is called once, before the instruction. If it raises, the error is raised there.
    :param ready: no instruction counts until this returns true.
    """

    def __init__(
        self,
        number: int,
        counts: Callable[[str], bool],
        act: Callable[[], object],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._left = number
        self._counts = counts
        self._act = act
        self._ready = ready
        self._known: dict[CodeType, bool] = {}
        #: Whether the thread reached it.
        self.reached = False
        #: Where it is: file, line and function.
        self.place = ""

    def watch(self, run: Callable[[], object]) -> None:
        """Call *run* in this thread."""
        before = sys.gettrace()
        # Python 3.12 traces instructions only if a frame asked for it when the tracer was set.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._call)
        try:
            run()
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        known = self._known.get(code)
        if known is None:
            name = code.co_filename
            known = not name.startswith(_KIT) and self._counts(name)
            self._known[code] = known
        if not known or self.reached:
            return None
        # Before the next line, which Python 3.13 otherwise ignores.
        frame.f_trace = self._instruction
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode" and not self.reached and self._ready():
            self._left -= 1
            if not self._left:
                self.reached = True
                sys.settrace(None)
                code = frame.f_code
                self.place = f"{code.co_filename}:{frame.f_lineno}, in {code.co_name}"
                self._act()
        return self._instruction
