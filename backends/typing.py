"""Base classes of relet's mixins, for type checkers only; at run time the base is ``object``.

django-stubs omits Django's private methods. The ones declared here are those that relet calls or
overrides. All of them exist in Django 5.1 to 6.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.db.backends.postgresql.creation import DatabaseCreation
    from django.db.backends.postgresql.schema import DatabaseSchemaEditor
    from django.db.backends.utils import CursorWrapper

    class WrapperBase(DatabaseWrapper):
        _thread_ident: int

        def _configure_connection(self, connection: Any) -> bool: ...
        def _prepare_cursor(self, cursor: Any) -> CursorWrapper: ...
        def _savepoint(self, sid: str) -> None: ...
        def _savepoint_rollback(self, sid: str) -> None: ...
        def _savepoint_commit(self, sid: str) -> None: ...

    class CreationBase(DatabaseCreation):
        def _clone_test_db(self, *args: Any, **kwargs: Any) -> None: ...
        def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None: ...

    SchemaEditorBase = DatabaseSchemaEditor
else:
    WrapperBase = CreationBase = SchemaEditorBase = object
