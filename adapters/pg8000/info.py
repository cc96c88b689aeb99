"""Info and Adapters: the parts of psycopg's connections that Django uses."""

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
    """Information about a session: a part of psycopg's ``ConnectionInfo``."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def server_version(self) -> int:
        """The server's version: 150004 for 15.4."""
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
        """Python's name of the session's encoding."""
        return python_encoding(self._wire.parameters.get("client_encoding", "UTF8"))

    @property
    def user(self) -> str:
        """The role that has logged in."""
        return bytes(self._wire.pg.user).decode()

    def parameter_status(self, name: str) -> str | None:
        """Return a setting that the server reports, such as ``TimeZone``."""
        return self._wire.parameters.get(name)


class Adapters:
    """Registers types; loaders and dumpers of psycopg's are ignored.

    ``TypeInfo.register()`` and ``register_hstore()``, which django.contrib.postgres calls, call
    these methods.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Values) -> None:
        self._values = values

    @property
    def types(self) -> Adapters:
        """The registry of types, which is this object."""
        return self

    def add(self, info: Any) -> None:
        """Register a type."""
        self._values.register(info.name, info.oid, info.array_oid)

    def register_dumper(self, cls: object, dumper: object) -> None:
        """Do nothing: `.literals` writes parameters."""

    def register_loader(self, oid: object, loader: object) -> None:
        """Do nothing: `.loaders` loads rows."""
