"""PooledSchemaEditor: closes the pool after ``CREATE EXTENSION``.

An extension brings types, and Django registers types with a connection only when it is new.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from relet.backends.typing import SchemaEditorBase
from relet.core.sql.statements import key_words, statements


class PooledSchemaEditor(SchemaEditorBase):
    """A mixin for the backend's ``DatabaseSchemaEditor``."""

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        # Watch the SQL that reaches a cursor, not the editor's `execute()`: that may get any
        # object, and other packages replace it.
        wrappers, watch = connection.execute_wrappers, partial(_watch, connection)
        wrappers.insert(0, watch)  # Django pops its own from the other end
        self._stop_watching = weakref.finalize(self, _remove, wrappers, watch)
        self._stop_watching.atexit = False

    def __exit__(self, *exc_info: Any) -> None:
        try:
            super().__exit__(*exc_info)
        finally:
            self._stop_watching()


def _remove(wrappers: list[Any], watch: object) -> None:
    with suppress(ValueError):
        wrappers.remove(watch)


def _watch(
    wrapper: Any, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
) -> Any:
    result = execute(sql, params, many, context)
    if _creates_extension(wrapper.adapter_class.sql_text(sql)):
        # django.contrib.postgres registers hstore and citext in connection_created. Connections
        # that were opened before do not know the new types.
        wrapper.on_commit(wrapper.close_pool)
    return result


def _creates_extension(sql: str) -> bool:
    if "extension" not in sql.lower():
        return False
    found = (key_words(statement)[:2] for statement in statements(sql))
    return ["create", "extension"] in found
