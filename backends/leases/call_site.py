"""CallSite: the line of a project that made relet take a connection."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

from django.db.backends.utils import CursorWrapper

#: Packages whose frames are on the way to the call site, and never it.
_INSIDE = (
    *("relet", "django", "contextlib", "asgiref", "asyncio", "concurrent", "threading"),
    # Tools that lay themselves around each statement.
    *("ddtrace", "debug_toolbar", "elasticapm", "newrelic", "opentelemetry", "scout_apm"),
    *("sentry_sdk", "silk", "wrapt"),
)

#: A code object and an offset in it: to look up the line takes longer than all the rest.
#: Empty if no frame is outside Django and relet.
CallSite = tuple[CodeType, int] | tuple[()]

#: The names of modules that were found to be inside.
_inside: set[str | None] = set()


def _is_inside(module: str | None) -> bool:
    if module in _inside:
        return True
    if (module or "").partition(".")[0] not in _INSIDE:
        return False
    _inside.add(module)
    return True


def first_outside(frame: FrameType | None) -> CallSite:
    """Return the first call site from *frame* outwards."""
    while frame is not None:
        if not _is_inside(frame.f_globals.get("__name__")):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return ()


#: From `current` to whoever calls relet's cursor, and, by way of Django's, to whoever calls that.
_CURSOR, _DJANGOS_CURSOR = 4, 7


def current() -> CallSite:
    """Return the call site of the statement that has just run in this thread."""
    return first_outside(sys._getframe(_CURSOR))


if sys.version_info >= (3, 12):  # it tells modules; frame objects take three times as long

    def current() -> CallSite:
        name, inside = sys._getframemodulename, _inside
        try:
            depth = _DJANGOS_CURSOR if name(_CURSOR) == _UTILS else _CURSOR
            while name(depth) in inside or _is_inside(name(depth)):
                depth += 1
            # A function that was decorated by Django has the name of the project's module.
            return first_outside(sys._getframe(depth))
        except ValueError:
            return ()


#: The module of Django's cursors.
_UTILS = CursorWrapper.__module__


def written(site: CallSite | None) -> str:
    """Return *site* as ``file:line``."""
    if not site:
        return "an unknown place"
    code, instruction = site
    lines = (line for start, end, line in code.co_lines() if start <= instruction < end)
    return f"{code.co_filename}:{next(lines, code.co_firstlineno)}"
