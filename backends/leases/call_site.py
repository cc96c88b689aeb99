"""CallSite: the line of project code that made relet take a connection."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

from django.db.backends.utils import CursorWrapper

#: Packages whose frames are skipped when looking for the call site.
_SKIPPED = (
    *("relet", "django", "contextlib", "asgiref", "asyncio", "concurrent", "threading"),
    # Tools that wrap each statement.
    *("ddtrace", "debug_toolbar", "elasticapm", "newrelic", "opentelemetry", "scout_apm"),
    *("sentry_sdk", "silk", "wrapt"),
)

#: A code object and an instruction offset, because finding the line number is too slow to do here.
#: Empty if every frame is skipped.
CallSite = tuple[CodeType, int] | tuple[()]

#: The names of modules that are known to be skipped.
_skipped: set[str | None] = set()


def is_skipped(module: str | None) -> bool:
    """Return whether *module* belongs to relet, Django, or a tool that wraps statements."""
    if module in _skipped:
        return True
    if (module or "").partition(".")[0] not in _SKIPPED:
        return False
    _skipped.add(module)
    return True


def first_outside(frame: FrameType | None) -> CallSite:
    """Return the first call site outside relet, Django and tools, from *frame* outwards."""
    while frame is not None:
        if not is_skipped(frame.f_globals.get("__name__")):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return ()


def of_running(frame: FrameType | None) -> CallSite:
    """Return the call site of the statement that runs in *frame*, which is a driver's or deeper."""
    inner = frame
    while inner is not None and not is_skipped(inner.f_globals.get("__name__")):
        inner = inner.f_back
    return first_outside(frame if inner is None else inner)


#: Frames from `current` to the caller of relet's cursor, and to the caller of Django's cursor.
_CURSOR_CALLER, _DJANGO_CURSOR_CALLER = 4, 7


def current() -> CallSite:
    """Return the call site of the statement that has just run in this thread."""
    return first_outside(sys._getframe(_CURSOR_CALLER))


# sys._getframemodulename() takes a third of the time of making frame objects.
if sys.version_info >= (3, 12):

    def current() -> CallSite:
        name, skipped = sys._getframemodulename, _skipped
        try:
            depth = _DJANGO_CURSOR_CALLER if name(_CURSOR_CALLER) == _UTILS else _CURSOR_CALLER
            while name(depth) in skipped or is_skipped(name(depth)):
                depth += 1
            # Continue with frames: a function that Django has decorated reports the project's
            # module here.
            return first_outside(sys._getframe(depth))
        except ValueError:
            return ()


#: The module of Django's cursors.
_UTILS = CursorWrapper.__module__


def format_site(site: CallSite | None) -> str:
    """Return *site* as ``file:line``."""
    if not site:
        return "an unknown line"
    code, instruction = site
    lines = (line for start, end, line in code.co_lines() if start <= instruction < end)
    return f"{code.co_filename}:{next(lines, code.co_firstlineno)}"
