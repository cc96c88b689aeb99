"""DatabaseWrapper: Django's for PostgreSQL, on pg8000."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.functional import Promise

from . import import_hook
from .django_backend import base
from .psycopg_shim import driver

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as DjangosWrapper
else:
    DjangosWrapper = base.DatabaseWrapper

#: What Django takes as text: it has decoders of its own for JSON, and fields for addresses.
_TEXTS = frozenset({"cidr", "inet", "jsonb"})
#: What Django adds to the parameters of psycopg's connections.
_PSYCOPGS = {"context": None, "cursor_factory": base.Cursor, "prepare_threshold": None}

driver.register(Promise, str)
import_hook.provide()


class DatabaseWrapper(DjangosWrapper):
    """Django's own, with the driver's connections and cursors."""

    Database = driver
    #: Cursors need no more than the connection's, if its time zone is the wrapper's.
    plain_cursors = True

    def get_connection_params(self) -> dict[str, Any]:
        parameters = super().get_connection_params()
        for name, value in _PSYCOPGS.items():
            if parameters.get(name) is value:
                parameters.pop(name, None)
        if binding := self.settings_dict["OPTIONS"].get("server_side_binding"):
            parameters["server_side_binding"] = binding  # to be refused
        return {**parameters, "texts": _TEXTS}

    def _configure_connection(self, connection: Any) -> bool:
        connection.zone = self.timezone
        return super()._configure_connection(connection)  # type: ignore[misc, no-any-return]

    def create_cursor(self, name: str | None = None) -> Any:
        connection = self.connection
        if name is None:
            cursor = connection.cursor()
        else:
            # Out of a transaction, it is to outlive its statement's.
            cursor = connection.cursor(name, scrollable=False, withhold=connection.autocommit)
        if cursor.zone is not self.timezone:
            cursor.zone = self.timezone
        return cursor
