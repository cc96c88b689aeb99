"""Guards: what tools put in the place of Django's ``ensure_connection()``, to forbid or observe.

In Django, whatever needs a connection calls that method of `BaseDatabaseWrapper`. So pytest-django
replaces it, to forbid the database to tests that do not ask for it. A lease begins without that
call, unless the method has been replaced.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.asyncio import async_unsafe


def _nothing() -> None:
    """Wrapped to see what ``async_unsafe`` makes of a function."""


_WRAPPERS_CODE = async_unsafe(_nothing).__code__


def djangos(function: Any) -> Any:
    """Return *function* if it is Django's own ``ensure_connection()``, else None.

    Its name would not do: what is laid around a function often has that of the function.
    """
    if getattr(function, "__code__", None) is not _WRAPPERS_CODE:
        return None
    inner = function.__wrapped__
    own = inner.__globals__["__name__"] == BaseDatabaseWrapper.__module__
    return function if own and inner.__code__.co_name == "ensure_connection" else None
