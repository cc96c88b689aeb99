"""Extensions bring types, and what knows a connection's types is told when it is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relet.core.sql import key_words, statements

from .bases import SchemaEditorBase

if TYPE_CHECKING:
    from collections.abc import Callable


class PooledSchemaEditor(SchemaEditorBase):
    """Mixed into the backend's ``DatabaseSchemaEditor``."""

    def execute(self, sql: Any, params: Any = ()) -> None:
        # Look at the SQL that reaches a cursor. What an editor is given can be anything that its
        # own `execute()` takes apart, and some of it has no text of its own.
        with self.connection.execute_wrapper(self._watch):
            super().execute(sql, params)

    def _watch(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        result = execute(sql, params, many, context)
        wrapper: Any = self.connection
        if _creates_extension(wrapper.adapter_class.text(sql)):
            # django.contrib.postgres registers hstore and citext in connection_created.
            # The pool's connections that have had theirs are outdated.
            wrapper.on_commit(wrapper.close_pool)
        return result


def _creates_extension(sql: str) -> bool:
    if "extension" not in sql.lower():
        return False
    found = (key_words(statement)[:2] for statement in statements(sql))
    return ["create", "extension"] in found
