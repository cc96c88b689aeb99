"""The registry: which adapters and policies there are."""

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

_NOTHING = Found(specs={}, aliases={}, brought_by={}, policies={}, problems=())


class Registry:
    """Adapters and policies by name, from the plugins of the entry-point group ``relet``.

    What is wrong with one plugin does not keep the others from being used: it is logged, and
    told by `problems`, by a system check, by ``relet adapters``, and when what the plugin would
    have brought is asked for.
    """

    def __init__(self) -> None:
        self.forked()
        #: None until plugins were looked for, and an exception did not come in between.
        self._found: Found | None = None
        #: What was registered by hand.
        self._manual: tuple[Manual, ...] = ()

    def hold_lock(self) -> None:
        """Before a fork: wait for whoever looks for plugins, so that a child gets them whole."""
        self._lock.acquire()

    def release_lock(self) -> None:
        """After the fork, in the parent."""
        self._lock.release()

    def forked(self) -> None:
        """This process is a child, or new: no thread of it has the lock."""
        self._lock = threading.RLock()

    def register(self, plugin: object, name: str | None = None) -> None:
        """Register *plugin* by hand; for tests, and for plugins that are not installed.

        :raises RegistryError: the plugin is wrong; it stays unregistered.
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
        """Return what plugins bring; look for them, if nobody has."""
        if (found := self._found) is not None:
            return found
        return locked(self._lock, self._discover)

    def _discover(self) -> Found:
        if self._found is None:
            if depth(self._lock) > 1:
                # A plugin that is being loaded imports an engine. There is none yet.
                return _NOTHING
            self._found = discover(entry_points(group=ENTRY_POINT_GROUP), self._manual)
            for text in self._found.problems:
                logger.error("%s", text)
        return self._found

    def specs(self) -> Mapping[str, AdapterSpec]:
        """Return what is registered, by name, in alphabetical order."""
        return self._look().specs

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with plugins; each text names the plugin, and its distribution."""
        return self._look().problems

    def spec(self, name: str) -> AdapterSpec:
        """Return the spec of *name*, or alias; raise `UnknownAdapter` if there is none."""
        found = self._look()
        spec = found.specs.get(found.aliases.get(name, name))
        if spec is None:
            raise UnknownAdapter(name, [*found.specs, *found.aliases], found.problems)
        return spec

    def load(self, name: str) -> type[PoolAdapter[Any]]:
        """Import the adapter *name*.

        :raises UnknownAdapter: there is none.
        :raises MissingDependency: something it needs is not installed, or too old.
        :raises RegistryError: what the plugin points to is not an adapter.
        """
        spec = self.spec(name)
        if missing := self.missing(spec):
            raise MissingDependency(spec.name, missing, spec.install or spec.name)
        adapter = f"{self._look().brought_by[spec.name]}: adapter {spec.name!r}"
        module, _, attribute = spec.adapter.partition(":")
        imported, error = attempt(lambda: import_module(module))
        if error is not None:
            raise RegistryError(f"{adapter}: {module} cannot be imported: {error!r}.") from error
        found = getattr(imported, attribute, None)
        if found is None:
            raise RegistryError(f"{adapter}: there is no {spec.adapter!r}.")
        if not (isinstance(found, type) and issubclass(found, PoolAdapter)):
            raise RegistryError(f"{adapter}: {spec.adapter!r} is not a PoolAdapter class.")
        if lacks := sorted(found.__abstractmethods__):
            raise RegistryError(f"{adapter}: {spec.adapter!r} lacks {', '.join(lacks)}.")
        return found

    def policies(self) -> Mapping[str, ReleasePolicy]:
        """Return the policies that plugins bring, by name."""
        return self._look().policies

    @staticmethod
    def missing(spec: AdapterSpec) -> list[str]:
        """Return what *spec* requires and what is not there, each as ``"module>=version"``.

        Of one that is too old, the text says which version is installed. Where one of several
        would do: ``"one or another"``.
        """
        return requirements.missing(spec)


registry = Registry()
