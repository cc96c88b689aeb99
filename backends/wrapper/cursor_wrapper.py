"""LeasedCursorWrapper: Django's ``CursorWrapper`` with faster fetch methods."""

from __future__ import annotations

from typing import Any

from django.db.backends.utils import CursorWrapper

#: Methods that Django's wrapper does not define, but looks up with ``__getattr__``.
_DYNAMIC = "fetchone", "fetchmany", "fetchall", "close"


class _Dynamic:
    """A descriptor that looks a method up with ``__getattr__``, as Django does."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        return self if wrapper is None else wrapper.__getattr__(self._name)


class LeasedCursorWrapper(CursorWrapper):
    """Django's wrapper, with methods for what Django looks up by name on every call.

    Subclasses that override ``__getattr__``, to forbid or observe these calls, still see them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__getattr__ is not LeasedCursorWrapper.__getattr__:
            for name in _DYNAMIC:
                if getattr(cls, name) is getattr(LeasedCursorWrapper, name):
                    setattr(cls, name, _Dynamic(name))

    def fetchone(self) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        with self.db.wrap_database_errors:
            return self.cursor.fetchall()

    def close(self) -> None:
        try:
            self.cursor.close()
        except self.db.Database.Error:
            # Closing a server-side cursor needs the server, which may be gone.
            with self.db.wrap_database_errors:
                raise
