"""Aliases for a test, each with a pool of its own."""

from __future__ import annotations

from typing import Any

from django.db import connections

from relet.backends.pools import pools


class Aliases:
    """Makes wrappers; closes them, and their pools, when the block ends."""

    def __init__(self) -> None:
        self._made: list[Any] = []
        self._added: list[str] = []

    def __enter__(self) -> Aliases:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for alias in self._added:
            connections[alias].close()
            pools.close_alias(alias)
            del connections[alias], connections.settings[alias]
        for wrapper in self._made:
            wrapper.close()
            pools.close_alias(wrapper.alias)

    def make(self, alias: str, settings: dict[str, Any], wrapper_class: type[Any]) -> Any:
        """Return a wrapper that ``django.db.connections`` does not know."""
        self._made.append(wrapper_class(settings, alias))
        return self._made[-1]

    def add(self, alias: str, settings: dict[str, Any]) -> Any:
        """Add *alias* to Django's settings; return this thread's wrapper."""
        complete = connections.configure_settings({"default": {}, alias: settings})
        connections.settings[alias] = complete[alias]
        self._added.append(alias)
        return connections[alias]
