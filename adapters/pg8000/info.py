"""What others ask of a connection, or tell it, by psycopg's names."""

from __future__ import annotations

import re
from struct import Struct
from typing import Any

from relet.core import TransactionStatus

from .encodings import python_encoding
from .values import Values
from .wire import Wire

_number = Struct("!i").unpack_from


class Info:
    """What is known of a session: psycopg's ``ConnectionInfo``, as far as there is one."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def server_version(self) -> int:
        """The server's version, 150004 for 15.4."""
        match = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?", self._wire.parameters["server_version"])
        assert match is not None
        return int(match.group(1)) * 10000 + int(match.group(2) or 0)

    @property
    def transaction_status(self) -> TransactionStatus:
        """The transaction status."""
        return TransactionStatus(self._wire.transaction_status)

    @property
    def backend_pid(self) -> int:
        """The process ID of the server's backend."""
        data = self._wire.pg._backend_key_data
        return int(_number(data)[0]) if data else 0

    @property
    def encoding(self) -> str:
        """What Python calls the encoding of the session."""
        return python_encoding(self._wire.parameters.get("client_encoding", "UTF8"))

    @property
    def user(self) -> str:
        """The role that it was opened for."""
        return bytes(self._wire.pg.user).decode()

    def parameter_status(self, name: str) -> str | None:
        """Return a setting that the server reports, such as ``TimeZone``."""
        return self._wire.parameters.get(name)


class Adapters:
    """Takes what psycopg's types tell a connection, and leaves what is psycopg's own.

    ``TypeInfo.register()`` and ``register_hstore()``, by which django.contrib.postgres makes
    types known, call these.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Values) -> None:
        self._values = values

    @property
    def types(self) -> Adapters:
        """Itself: the registry of types."""
        return self

    def add(self, info: Any) -> None:
        """Make a type known."""
        self._values.register(info.name, info.oid, info.array_oid)

    def register_dumper(self, cls: object, dumper: object) -> None:
        """Nothing: literals are made in another way."""

    def register_loader(self, oid: object, loader: object) -> None:
        """Nothing: rows are loaded in another way."""
