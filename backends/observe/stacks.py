"""Stacks: where a thread stands, kept as code objects and instruction offsets.

Frames would keep requests alive, and finding line numbers is too slow while statements run. So a
stack is formatted only when somebody reads it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import dropwhile
from types import CodeType, FrameType
from typing import Any, cast

from django.db.backends.utils import CursorWrapper

#: How many of the innermost frames are kept, of a statement and of a cursor. To look at one costs a
#: twentieth of a microsecond or more. The others of a cursor are those of its statement.
DEPTH, CURSOR_DEPTH = 15, 4

#: The length of a stack that is not shorter than `DEPTH`.
FULL = 2 * DEPTH

#: Called by whoever runs a statement with Django's cursor.
DJANGO_EXECUTE = CursorWrapper.execute.__code__

#: Code objects and offsets in turns, the innermost first.
Stack = tuple[CodeType | int, ...]
#: (file, line, function)
Line = tuple[str, int, str]
#: Returns the stack of a frame.
Walk = Callable[["FrameType | None"], Stack]


def of_statement(skip: int, walk: Walk) -> Stack:
    """Return the stack of who has called Django's cursor, or relet's.

    Frames in between are skipped without a look at them, which is what takes time.

    :param skip: how many frames to leave out, up to that of relet's cursor.
    :param walk: `of` or `of_deep`.
    """
    try:
        # Relet's cursor is called by a method of Django's, that by another one, that by this.
        django = sys._getframe(skip + 4)
        if django.f_code is DJANGO_EXECUTE:
            return walk(django.f_back)
    except ValueError:  # there are not so many
        pass
    try:
        return walk(sys._getframe(skip + 2))
    except ValueError:
        return ()


def of(frame: FrameType | None, depth: int = DEPTH) -> Stack:
    """Return the stack of *frame* and its callers."""
    found: list[CodeType | int] = []
    for _ in range(depth):
        if frame is None:
            break
        found += frame.f_code, frame.f_lasti
        frame = frame.f_back
    return tuple(found)


def of_deep(frame: FrameType | None) -> Stack:
    """Return the stack of *frame* and its callers, in half the time if there are `DEPTH` of them.

    For that, the loop is written out. With fewer callers it takes longer.
    """
    f: Any = frame
    try:
        # fmt: off
        return (
            f.f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti,
        )
        # fmt: on
    except AttributeError:  # None has no code
        return of(frame)


def of_cursor(frame: FrameType) -> Stack:
    """Return the `CURSOR_DEPTH` innermost frames of *frame* and its callers."""
    f: Any = frame
    try:
        # fmt: off
        return (
            f.f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
            (f := f.f_back).f_code, f.f_lasti, (f := f.f_back).f_code, f.f_lasti,
        )
        # fmt: on
    except AttributeError:
        return of(frame, CURSOR_DEPTH)


def of_frames(frames: Iterable[FrameType]) -> Stack:
    """Return the stack that *frames* are, the innermost first."""
    return tuple(part for frame in frames for part in (frame.f_code, frame.f_lasti))


def completed(stack: Stack, other: Stack) -> Stack:
    """Return *stack* with the outer frames of *other*, if it was cut at a frame that both have."""
    codes = other[::2]
    if len(stack) < 2 * CURSOR_DEPTH or stack[-2] not in codes:
        return stack
    return stack + other[2 * codes.index(stack[-2]) + 2 :]


def lines(stack: Stack) -> tuple[Line, ...]:
    """Return (file, line, function) of each frame, the innermost first.

    It begins with the project's own code: innermost frames of relet, Django, drivers and tools that
    wrap statements are left out, unless there is nothing else.
    """
    found = [*map(_line, cast("tuple[CodeType]", stack[::2]), cast("tuple[int]", stack[1::2]))]
    skipped = tuple(_skipped_paths())
    own = tuple(dropwhile(lambda line: line[0].startswith(skipped), found))
    return own or tuple(found)


def _line(code: CodeType, offset: int) -> Line:
    found = (line for start, end, line in code.co_lines() if start <= offset < end)
    return code.co_filename, next(found, None) or code.co_firstlineno, code.co_name


#: Packages whose innermost frames are left out.
_SKIPPED = (
    *("relet.core", "relet.adapters", "relet.backends", "django", "asgiref"),
    *("psycopg", "psycopg_pool", "psycopg2", "pg8000", "sqlalchemy", "dj_db_conn_pool"),
    *("ddtrace", "debug_toolbar", "elasticapm", "newrelic", "opentelemetry", "scout_apm"),
    *("sentry_sdk", "silk", "wrapt", "gevent"),
)
_SKIPPED_MODULES = (
    *("contextlib", "threading", "asyncio", "concurrent.futures"),
    *("socket", "selectors", "ssl"),
)


def _skipped_paths() -> Iterator[str]:
    for name in (*_SKIPPED, *_SKIPPED_MODULES):
        if (module := sys.modules.get(name)) is not None:
            if hasattr(module, "__path__"):
                yield from (f"{path}{os.sep}" for path in module.__path__)
            elif file := getattr(module, "__file__", None):
                yield file
