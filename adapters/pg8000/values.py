"""Values: the loaders of a connection, by its time zone, encoding and registered types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .composites import load_hstore
from .loaders import Loaders, Zone


class Values:
    """How a connection loads the values that the server sends.

    :param texts: names of types that are loaded as text, as the server sends them.
    """

    #: The loaders for `zone` and the session's encoding.
    loaders: Loaders

    def __init__(self, texts: frozenset[str] = frozenset()) -> None:
        self._texts = texts
        self._registered: list[tuple[Any, ...]] = []
        self._loaders: dict[tuple[Zone, Any], Loaders] = {}
        self._zone: Zone = "server"
        self._decode: Callable[[bytes], str] = bytes.decode
        #: Whether hstore is registered. Then a dict is sent as hstore.
        self.has_hstore = False

    @property
    def zone(self) -> Zone:
        """The time zone that a ``timestamptz`` is loaded in."""
        return self._zone

    @zone.setter
    def zone(self, zone: Zone) -> None:
        self._zone, self.loaders = zone, self.loaders_for(zone)

    def follow(self, decode: Callable[[bytes], str]) -> None:
        """Decode text by *decode* from now on, because the session's encoding has changed."""
        self._decode = decode
        self.zone = self._zone

    def loaders_for(self, zone: Zone) -> Loaders:
        """Return the loaders for another time zone."""
        key = zone, self._decode
        if (loaders := self._loaders.get(key)) is None:
            loaders = self._loaders[key] = Loaders(zone, self._texts, self._decode)
            for registered in self._registered:
                loaders.register(*registered)
        return loaders

    def register(self, name: str, oid: int, array_oid: int = 0) -> None:
        """Register a type of an extension: hstore, or one that is loaded as text."""
        registered: tuple[Any, ...] = (name, oid, array_oid)
        if name == "hstore":
            registered, self.has_hstore = (*registered, load_hstore), True
        self._registered.append(registered)
        for loaders in self._loaders.values():
            loaders.register(*registered)
