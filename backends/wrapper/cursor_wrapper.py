"""LeasedCursorWrapper: Django's wrapper of a cursor, with less to look up."""

from __future__ import annotations

from typing import Any

from django.db.backends.utils import CursorWrapper

#: Methods of `LeasedCursorWrapper` that Django's wrapper has no name for.
_LOOKED_UP = "fetchone", "fetchmany", "fetchall", "close"


class _LookedUp:
    """A method that a class is to look up by name, as it does in Django."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        return self if wrapper is None else wrapper.__getattr__(self._name)


class LeasedCursorWrapper(CursorWrapper):
    """Django's, with methods for what it looks up by name on every call.

    A class laid around it that has a ``__getattr__``, to forbid or to observe them, is asked.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__getattr__ is not LeasedCursorWrapper.__getattr__:
            for name in _LOOKED_UP:
                if getattr(cls, name) is getattr(LeasedCursorWrapper, name):
                    setattr(cls, name, _LookedUp(name))

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
            # A server-side cursor is closed by the server, which may be gone.
            with self.db.wrap_database_errors:
                raise
