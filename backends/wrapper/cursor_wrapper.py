"""LeasedCursorWrapper: a faster ``CursorWrapper`` of Django's."""

from __future__ import annotations

from typing import Any

from django.apps import apps
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

    Django enters a context manager for each call, which only matters if an error is raised. Here
    it is entered after an error. Subclasses that override ``__getattr__``, to forbid or observe
    these calls, still see them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__getattr__ is not LeasedCursorWrapper.__getattr__:
            for name in _DYNAMIC:
                if getattr(cls, name) is getattr(LeasedCursorWrapper, name):
                    setattr(cls, name, _Dynamic(name))

    def _execute(self, sql: Any, params: Any, *context: Any) -> Any:
        if self.db.needs_rollback or not apps.ready:
            # It raises, or warns.
            return super()._execute(sql, params, *context)  # type: ignore[misc]
        try:
            if params is None:
                return self.cursor.execute(sql)
            return self.cursor.execute(sql, params)
        except self.db.Database.Error:
            with self.db.wrap_database_errors:
                raise

    def fetchone(self) -> Any:
        try:
            return self.cursor.fetchone()
        except self.db.Database.Error:
            with self.db.wrap_database_errors:
                raise

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.cursor.fetchmany(*args, **kwargs)
        except self.db.Database.Error:
            with self.db.wrap_database_errors:
                raise

    def fetchall(self) -> Any:
        try:
            return self.cursor.fetchall()
        except self.db.Database.Error:
            with self.db.wrap_database_errors:
                raise

    def close(self) -> None:
        # Closing a server-side cursor needs the server, which may be gone.
        try:
            self.cursor.close()
        except self.db.Database.Error:
            with self.db.wrap_database_errors:
                raise
