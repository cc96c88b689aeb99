"""From outside: whether an error is of the code that was called, or of what interrupted it.

A signal handler, such as that of Celery's soft time limit, raises whatever it likes, in the middle
of anything. So may another thread. What a driver, or a socket, says of itself can be told in other
words; what interrupted it has to go on as it is.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


def from_outside(error: BaseException, *packages: str) -> bool:
    """Return whether *error* was raised by other code than relet's, Python's, and *packages*'.

    Its class is looked at, and each function on the way from whoever has caught it to where it was
    raised: the system calls a handler in the middle of what it interrupts.

    :param packages: names of top-level packages.
    """
    known = {*packages, "relet", "builtins", *sys.stdlib_module_names}
    modules = [type(error).__module__]
    modules += [str(frame.f_globals.get("__name__")) for frame in _called(error)]
    return any(name.partition(".")[0] not in known for name in modules) or from_handler(error)


def from_handler(error: BaseException) -> bool:
    """Return whether *error* was raised by a signal handler, as far as that is known.

    For calls of code that may be anybody's, and raise anything.
    """
    called = {frame.f_code for frame in _called(error)}
    # With none, which is so where a socket has raised, handlers need not be looked at.
    return bool(called) and any(
        _code(signal.getsignal(number)) in called for number in signal.valid_signals()
    )


def _called(error: BaseException) -> Iterator[FrameType]:
    """Yield the functions that were under way below whoever has caught *error*."""
    link = error.__traceback__
    while link is not None and (link := link.tb_next) is not None:
        yield link.tb_frame


def _code(handler: Any) -> CodeType | None:
    while hasattr(handler, "func"):  # of `functools.partial`
        handler = handler.func
    for function in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004 - its code
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def attempt(function: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    """Return what *function* returns, or what is wrong with it.

    It may run a stranger's code, so any `Exception` may be what is wrong. But an exception may
    also come from outside: a signal handler raises it, as that of Celery's soft time limit does.
    Such a one does not come again.

    :raises BaseException: what has come from outside.
    """
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises
        wrong = error
    try:
        function()
    except Exception:  # noqa: BLE001 - likewise
        return None, wrong
    raise wrong
