"""The registry of adapters and policies."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from . import requirements
from .adapter import PoolAdapter
from .discovery import Found, Manual, discover
from .errors import MissingDependency, RegistryError, UnknownAdapter
from .hookspecs import AdapterSpec
from .locks import depth, locked
from .outside import attempt
from .policy import ReleasePolicy

ENTRY_POINT_GROUP = "relet"

logger = logging.getLogger("relet")

_NOTHING = Found(specs={}, aliases={}, plugins={}, policies={}, problems=())


class Registry:
    """Adapters and policies by name, from the plugins in the entry-point group ``relet``.

    A broken plugin does not affect the others. Its problem is logged, and reported by `problems`,
    by a system check, by ``relet adapters``, and in the error for an adapter that is not found.
    """

    def __init__(self) -> None:
        self.forked()
        #: None until a search for plugins has completed.
        self._found: Found | None = None
        #: The plugins that were registered by hand.
        self._manual: tuple[Manual, ...] = ()

    def hold_lock(self) -> None:
        """Before a fork: wait for a running search, so that the child inherits its result."""
        self._lock.acquire()

    def release_lock(self) -> None:
        """After a fork, in the parent: undo `hold_lock`."""
        self._lock.release()

    def forked(self) -> None:
        """After a fork, in the child: make a new lock, which no thread holds."""
        self._lock = threading.RLock()

    def register(self, plugin: object, name: str | None = None) -> None:
        """Register *plugin* by hand, for tests and for plugins that are not installed.

        :raises RegistryError: the plugin is broken, and stays unregistered; or it is registered
            already.
        """

        def work() -> None:
            before = set(self._discover().problems)
            manual = (*self._manual, (plugin, name))
            found = discover(entry_points(group=ENTRY_POINT_GROUP), manual)
            if wrong := [text for text in found.problems if text not in before]:
                raise RegistryError(wrong[0])
            self._manual, self._found = manual, found

        locked(self._lock, work)

    def unregister(self, plugin: object) -> None:
        """Undo `register`."""

        def work() -> None:
            manual = tuple(entry for entry in self._manual if entry[0] is not plugin)
            self._manual, self._found = manual, None

        locked(self._lock, work)

    def _look(self) -> Found:
        """Return what the plugins provide. The first call searches for them."""
        if (found := self._found) is not None:
            return found
        return locked(self._lock, self._discover)

    def _discover(self) -> Found:
        if self._found is None:
            if depth(self._lock) > 1:
                # A plugin that is being loaded imports an engine, before the search completes.
                return _NOTHING
            self._found = discover(entry_points(group=ENTRY_POINT_GROUP), self._manual)
            for text in self._found.problems:
                logger.error("%s", text)
        return self._found

    def specs(self) -> Mapping[str, AdapterSpec]:
        """Return the registered adapters by name, in alphabetical order."""
        return self._look().specs

    def problems(self) -> tuple[str, ...]:
        """Return the problems of broken plugins. Each names the plugin and its distribution."""
        return self._look().problems

    def spec(self, name: str) -> AdapterSpec:
        """Return the spec of the adapter with this name or alias.

        :raises UnknownAdapter: there is none.
        """
        found = self._look()
        spec = found.specs.get(found.aliases.get(name, name))
        if spec is None:
            raise UnknownAdapter(name, [*found.specs, *found.aliases], found.problems)
        return spec

    def load(self, name: str) -> type[PoolAdapter[Any]]:
        """Import the adapter *name*.

        :raises UnknownAdapter: there is none.
        :raises MissingDependency: a module it requires is missing or too old.
        :raises RegistryError: the spec does not lead to a complete adapter class.
        """
        spec = self.spec(name)
        if missing := self.missing(spec):
            raise MissingDependency(spec.name, missing, spec.install or spec.name)
        adapter = self.described(spec)
        module, _, attribute = spec.adapter.partition(":")
        imported, error = attempt(lambda: import_module(module))
        if error is not None:
            raise RegistryError(f"{adapter}: {module} cannot be imported: {error!r}.") from error
        found = getattr(imported, attribute, None)
        if found is None:
            raise RegistryError(f"{adapter}: {spec.adapter!r} does not exist.")
        if not (isinstance(found, type) and issubclass(found, PoolAdapter)):
            raise RegistryError(f"{adapter}: {spec.adapter!r} is not a PoolAdapter class.")
        if lacks := sorted(found.__abstractmethods__):
            raise RegistryError(f"{adapter}: {spec.adapter!r} must define {', '.join(lacks)}.")
        return found

    def described(self, spec: AdapterSpec) -> str:
        """Return the adapter of *spec* and its plugin, for messages."""
        return f"{self._look().plugins[spec.name]}: adapter {spec.name!r}"

    def policies(self) -> Mapping[str, ReleasePolicy]:
        """Return the policies that plugins provide, by name."""
        return self._look().policies

    @staticmethod
    def missing(spec: AdapterSpec) -> list[str]:
        """Return the requirements of *spec* that are not met, each as ``"module>=version"``.

        If the installed version is too old, the text names it, too. Alternatives are joined:
        ``"one or another"``.
        """
        return requirements.missing(spec)


registry = Registry()
