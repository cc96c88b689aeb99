"""Foreign exceptions: was an error raised by the code that was called, or by an interruption?

A signal handler, such as the one behind Celery's soft time limit, can raise any exception between
any two instructions. So can another thread. relet may rephrase the error of a driver or a socket,
but must let a foreign exception pass unchanged.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


def from_outside(error: BaseException, *packages: str) -> bool:
    """Return whether *error* was raised by code outside relet, Python and *packages*.

    This checks the class of *error*, and each function between the one that caught it and the one
    that raised it, because Python runs a signal handler on top of the code that it interrupts.

    :param packages: names of top-level packages.
    """
    known = {*packages, "relet", "builtins", *sys.stdlib_module_names}
    modules = [type(error).__module__]
    modules += [str(frame.f_globals.get("__name__")) for frame in _called(error)]
    return any(name.partition(".")[0] not in known for name in modules) or from_handler(error)


def from_handler(error: BaseException) -> bool:
    """Return whether *error* was raised by a signal handler, as far as its traceback shows.

    Use it for calls of third-party code that may raise any exception itself.
    """
    called = {frame.f_code for frame in _called(error)}
    # Without frames, as when a socket raised the error, skip the loop over all signals.
    return bool(called) and any(
        _code(signal.getsignal(number)) in called for number in signal.valid_signals()
    )


def _called(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames between the function that caught *error* and the one that raised it."""
    link = error.__traceback__
    while link is not None and (link := link.tb_next) is not None:
        yield link.tb_frame


def _code(handler: Any) -> CodeType | None:
    while hasattr(handler, "func"):  # a `functools.partial`
        handler = handler.func
    for function in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004 - for its code
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def attempt(
    function: Callable[[], Result],
) -> tuple[Result | None, Exception | SystemExit | None]:
    """Return the result of *function*, which runs third-party code, or the error that it raises.

    Third-party code may raise any `Exception` and call ``sys.exit()``, and so may a signal handler
    that interrupts it. To tell them apart, *function* is called again after an error: a foreign
    exception does not recur.

    :raises BaseException: the foreign exception, if the second call succeeds.
    """
    try:
        return function(), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - third-party code may raise anything
        first = error
    try:
        function()
    except (Exception, SystemExit):  # noqa: BLE001 - as above
        return None, first
    raise first
