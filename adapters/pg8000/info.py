"""What others ask of a connection, or tell it, by psycopg's names."""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, Any

from relet.core import TransactionStatus

from .encodings import python_encoding

if TYPE_CHECKING:
    from .connection import Connection

_number = Struct("!i").unpack_from


class Info:
    """What is known of a session: psycopg's ``ConnectionInfo``, as far as there is one."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def server_version(self) -> int:
        """The server's version, 150004 for 15.4."""
        match = re.match(
            r"(\d{1,9})(?:\.(\d{1,9}))?", self._connection.parameters["server_version"]
        )
        assert match is not None
        return int(match.group(1)) * 10000 + int(match.group(2) or 0)

    @property
    def transaction_status(self) -> TransactionStatus:
        """The transaction status."""
        return TransactionStatus(self._connection.transaction_status)

    @property
    def backend_pid(self) -> int:
        """The process ID of the server's backend."""
        data = self._connection.pg._backend_key_data
        return int(_number(data)[0]) if data else 0

    @property
    def encoding(self) -> str:
        """What Python calls the encoding of the session."""
        return python_encoding(self._connection.parameters.get("client_encoding", "UTF8"))

    @property
    def user(self) -> str:
        """The role that it was opened for."""
        return bytes(self._connection.pg.user).decode()

    def parameter_status(self, name: str) -> str | None:
        """Return a setting that the server reports, such as ``TimeZone``."""
        return self._connection.parameters.get(name)


class Adapters:
    """Takes what psycopg's types tell a connection, and leaves what is psycopg's own.

    ``TypeInfo.register()`` and ``register_hstore()``, by which django.contrib.postgres makes
    types known, call these.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def types(self) -> Adapters:
        """Itself: the registry of types."""
        return self

    def add(self, info: Any) -> None:
        """Make a type known."""
        self._connection.register(info.name, info.oid, info.array_oid)

    def register_dumper(self, cls: object, dumper: object) -> None:
        """Nothing: literals are made in another way."""

    def register_loader(self, oid: object, loader: object) -> None:
        """Nothing: rows are loaded in another way."""
