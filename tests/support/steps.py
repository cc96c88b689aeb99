"""Steps: how much work a call does, counted and not timed.

What Python does is counted by line, each time that one is run; a loop within a line counts as
well. What is done to a text or a list as a whole (`find`, a slice) is counted by character or item,
where the text is a `Text` or a `Data`, and the list an `Items`. What a regular expression does
cannot be counted; see tests/unit/test_linear.py for that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]


class _Counter:
    steps = 0


_counter = _Counter()


def steps(call: Callable[..., object], *args: object) -> int:
    """Return how many steps *call* takes. What it raises is no matter."""
    before, _counter.steps = sys.gettrace(), 0
    sys.settrace(_trace)
    try:
        call(*args)
    except Exception:
        pass
    finally:
        sys.settrace(before)
    return _counter.steps


def _trace(frame: FrameType, event: str, arg: object) -> Any:
    if not str(frame.f_globals.get("__name__")).startswith("relet."):
        return None  # pytest's, say
    _counter.steps += 1
    return _trace


def _found(length: int, begin: int, found: int) -> None:
    _counter.steps += (length if found == -1 else found) - begin


class Text(str):
    """A text; what is done to it is counted."""

    __slots__ = ()

    def find(self, sub: str, start: int = 0, *end: int) -> int:  # type: ignore[override]
        found = super().find(sub, start, *end)
        _found(len(self), start, found)
        return found

    def __getitem__(self, key: Any) -> str:
        text = super().__getitem__(key)
        _counter.steps += len(text)
        return text


class Data(bytes):
    """Bytes, likewise."""

    def find(self, sub: bytes, start: int = 0, *end: int) -> int:  # type: ignore[override]
        found = super().find(sub, start, *end)
        _found(len(self), start, found)
        return found

    def __getitem__(self, key: Any) -> Any:
        data = super().__getitem__(key)
        if isinstance(key, slice):
            _counter.steps += len(data)
        return data


class Items(list[Any]):
    """A list, likewise. Its slices are counted, too."""

    __slots__ = ()

    def index(self, value: Any, *bounds: int) -> int:  # type: ignore[override]
        found = super().index(value, *bounds)
        _counter.steps += found
        return found

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(key, slice):
            _counter.steps += len(found)
            return Items(found)
        return found


#: How long one call may take, in a process of its own: seconds of the processor's. What is linear
#: takes a thirtieth of it.
SECONDS = 5
_CALLS = """
import importlib, signal, sys
function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
for argument in sys.argv[4:]:
    signal.setitimer(signal.ITIMER_VIRTUAL, float(sys.argv[3]))  # which ends the process
    function(argument)
    print(argument, flush=True)
"""


def first_that_does_not_end(function: Callable[[str], object], arguments: list[str]) -> str:
    """Return the first of *arguments* with which *function* does not end soon, or ""."""
    called = [function.__module__, function.__name__, str(SECONDS), *arguments]
    command = [sys.executable, "-c", _CALLS, *called]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert done == arguments[: len(done)]
    return arguments[len(done)] if len(done) < len(arguments) else ""
