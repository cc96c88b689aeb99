"""DatabaseWrapper: Django's PostgreSQL wrapper on pg8000."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.functional import Promise

from . import import_hook
from .django_backend import base
from .psycopg_shim import driver

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as DjangoWrapper
else:
    DjangoWrapper = base.DatabaseWrapper

#: Types that Django decodes itself, so the driver must return them as text.
_TEXTS = frozenset({"cidr", "inet", "jsonb"})
#: Parameters that Django adds for psycopg, with the values to remove.
_PSYCOPG_PARAMETERS = {"context": None, "cursor_factory": base.Cursor, "prepare_threshold": None}

driver.register(Promise, str)
import_hook.provide()


class DatabaseWrapper(DjangoWrapper):
    """Django's wrapper, with connections and cursors of pg8000."""

    Database = driver
    #: If the connection has the wrapper's time zone, its ``cursor()`` does all of `create_cursor`.
    plain_cursors = True

    def get_connection_params(self) -> dict[str, Any]:
        parameters = super().get_connection_params()
        for name, value in _PSYCOPG_PARAMETERS.items():
            if parameters.get(name) is value:
                parameters.pop(name, None)
        if binding := self.settings_dict["OPTIONS"].get("server_side_binding"):
            parameters["server_side_binding"] = binding  # the driver refuses it
        return {**parameters, "texts": _TEXTS}

    def _configure_connection(self, connection: Any) -> bool:
        connection.zone = self.timezone
        return super()._configure_connection(connection)  # type: ignore[misc, no-any-return]

    def create_cursor(self, name: str | None = None) -> Any:
        connection = self.connection
        if name is None:
            cursor = connection.cursor()
        else:
            # Outside a transaction, the cursor must outlive the statement that declares it.
            cursor = connection.cursor(name, scrollable=False, withhold=connection.autocommit)
        if cursor.zone is not self.timezone:
            cursor.zone = self.timezone
        return cursor
