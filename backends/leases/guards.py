"""Guards: detects tools that replace Django's ``ensure_connection()``.

In Django, all code that needs a connection calls this method of `BaseDatabaseWrapper`. So
pytest-django replaces it, to block database access in tests that did not ask for it. relet skips
the call unless the method has been replaced.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.asyncio import async_unsafe


def _nothing() -> None:
    """A function to find the code of the wrapper that ``async_unsafe`` makes."""


_ASYNC_UNSAFE_CODE = async_unsafe(_nothing).__code__


def default_ensure_connection(function: Any) -> Any:
    """Return *function* if it is Django's own ``ensure_connection()``, else None.

    The name alone proves nothing, because wrappers often copy the name of the wrapped function.
    """
    if getattr(function, "__code__", None) is not _ASYNC_UNSAFE_CODE:
        return None
    inner = function.__wrapped__
    own = inner.__globals__["__name__"] == BaseDatabaseWrapper.__module__
    return function if own and inner.__code__.co_name == "ensure_connection" else None
