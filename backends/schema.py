"""Extensions bring types, and what knows a connection's types is told when it is new."""

from __future__ import annotations

from typing import Any

from .bases import SchemaEditorBase


class PooledSchemaEditor(SchemaEditorBase):
    """Mixed into the backend's ``DatabaseSchemaEditor``."""

    def execute(self, sql: Any, params: Any = ()) -> None:
        super().execute(sql, params)
        if "create extension" in str(sql).lower():
            # django.contrib.postgres registers hstore and citext in connection_created.
            # The pool's connections that have had theirs are outdated.
            self.connection.on_commit(self.connection.close_pool)
