"""The registry: which adapters and policies there are."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

import pluggy

from . import hookspecs
from .adapter import PoolAdapter
from .errors import MissingDependency, RegistryError, UnknownAdapter
from .hookspecs import AdapterSpec
from .owners import Owners
from .policy import ReleasePolicy

ENTRY_POINT_GROUP = "relet"


class Registry:
    """Adapters and policies by name, from the plugins of the entry-point group ``relet``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._specs: Mapping[str, AdapterSpec] | None = None
        self._owners: Owners | None = None
        self._plugins = pluggy.PluginManager(ENTRY_POINT_GROUP)
        self._plugins.add_hookspecs(hookspecs)

    def register(self, plugin: object, name: str | None = None) -> None:
        """Register *plugin* by hand; for tests, and for plugins that are not installed.

        :raises RegistryError: the plugin is wrong; it stays unregistered.
        """
        with self._lock:
            registered = self._plugins.register(plugin, name)
            try:
                self._specs = self._collect()
            except RegistryError:
                self._plugins.unregister(name=registered)
                raise

    def unregister(self, plugin: object) -> None:
        """Undo `register`."""
        with self._lock:
            self._plugins.unregister(plugin)
            self._specs = None

    def specs(self) -> Mapping[str, AdapterSpec]:
        """Return what is registered, by name, in alphabetical order."""
        with self._lock:
            if self._specs is None:
                self._specs = self._collect()
            return self._specs

    def spec(self, name: str) -> AdapterSpec:
        """Return the spec of *name*; raise `UnknownAdapter` if there is none."""
        try:
            return self.specs()[name]
        except KeyError:
            raise UnknownAdapter(name, list(self.specs())) from None

    def load(self, name: str) -> type[PoolAdapter[Any]]:
        """Import the adapter *name*.

        :raises UnknownAdapter: there is none.
        :raises MissingDependency: something it needs is not installed.
        :raises RegistryError: what the plugin points to is not an adapter.
        """
        spec = self.spec(name)
        if missing := self.missing(spec):
            raise MissingDependency(name, missing, spec.install or name)
        module, _, attribute = spec.adapter.partition(":")
        try:
            adapter = getattr(import_module(module), attribute)
        except AttributeError:
            raise RegistryError(f"adapter {name!r}: there is no {spec.adapter!r}.") from None
        if not (isinstance(adapter, type) and issubclass(adapter, PoolAdapter)):
            raise RegistryError(f"adapter {name!r}: {spec.adapter!r} is not a PoolAdapter class.")
        return adapter

    def policies(self) -> Mapping[str, ReleasePolicy]:
        """Return the policies that plugins bring, by name.

        :raises RegistryError: a plugin brings something else, or a name twice.
        """
        self.specs()  # loads the plugins
        found: dict[str, tuple[str, ReleasePolicy]] = {}
        for implementation in self._plugins.hook.relet_policies.get_hookimpls():
            plugin = implementation.plugin_name
            brought: Mapping[str, ReleasePolicy] = implementation.function()  # type: ignore[assignment]
            for name, policy in _validated(brought, plugin):
                if name in found:
                    raise RegistryError(
                        f"plugins {found[name][0]!r} and {plugin!r} both register a "
                        f"policy {name!r}; uninstall one of them."
                    )
                found[name] = plugin, policy
        return {name: found[name][1] for name in sorted(found)}

    def owners(self) -> Owners:
        """Return what finds the owners of leases.

        :raises RegistryError: nothing does; relet is not installed as a distribution.
        """
        if self._owners is None:
            self.specs()  # loads the plugins
            self._owners = self._plugins.hook.relet_owners()
            if self._owners is None:
                raise RegistryError(
                    "no plugin implements relet_owners(). relet's own does: its entry point is "
                    "missing, so install relet with pip rather than put it on the path."
                )
        return self._owners

    @staticmethod
    def missing(spec: AdapterSpec) -> list[str]:
        """Return the modules that *spec* requires and that cannot be imported.

        Where one of several would do: ``"one or another"``.
        """
        required = [(entry,) if isinstance(entry, str) else entry for entry in spec.requires]
        return [" or ".join(modules) for modules in required if not any(map(_installed, modules))]

    def _collect(self) -> Mapping[str, AdapterSpec]:
        for entry_point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                # Idempotent: pluggy skips what it has registered.
                self._plugins.load_setuptools_entrypoints(ENTRY_POINT_GROUP, entry_point.name)
            except Exception as error:
                raise RegistryError(
                    f"plugin {entry_point.name!r} ({entry_point.value}) cannot be loaded: "
                    f"{error!r}. Mend or uninstall it."
                ) from error
        try:
            # A misspelt hook would otherwise be silent.
            self._plugins.check_pending()
        except pluggy.PluginValidationError as error:
            raise RegistryError(str(error)) from error
        found: dict[str, tuple[str, AdapterSpec]] = {}
        for implementation in self._plugins.hook.relet_adapters.get_hookimpls():
            plugin = implementation.plugin_name
            specs: Iterable[AdapterSpec] = implementation.function()  # type: ignore[assignment]
            for spec in specs:
                _validate(spec, plugin)
                if spec.name in found:
                    raise RegistryError(
                        f"plugins {found[spec.name][0]!r} and {plugin!r} both register an "
                        f"adapter {spec.name!r}; uninstall one of them."
                    )
                found[spec.name] = plugin, spec
        return {name: found[name][1] for name in sorted(found)}


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of it
        return False


def _validate(spec: object, plugin: str) -> None:
    if not isinstance(spec, AdapterSpec):
        raise RegistryError(
            f"plugin {plugin!r}: relet_adapters() must return AdapterSpec objects, not {spec!r}."
        )
    if not spec.name.isidentifier():
        raise RegistryError(
            f"plugin {plugin!r}: the adapter name {spec.name!r} must be an identifier, "
            "for it becomes the module relet.backends.<name>."
        )
    if spec.adapter.count(":") != 1:
        raise RegistryError(
            f"plugin {plugin!r}: adapter {spec.name!r} must be given as 'package.module:Class', "
            f"not {spec.adapter!r}."
        )


def _validated(brought: object, plugin: str) -> Iterator[tuple[str, ReleasePolicy]]:
    if not isinstance(brought, Mapping):
        raise RegistryError(
            f"plugin {plugin!r}: relet_policies() must return a mapping of names to policies, "
            f"not {brought!r}."
        )
    for name, policy in brought.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise RegistryError(
                f"plugin {plugin!r}: the policy name {name!r} must be an identifier; "
                "one with a dot would be taken for a path."
            )
        if not isinstance(policy, ReleasePolicy):
            raise RegistryError(
                f"plugin {plugin!r}: policy {name!r} must be a ReleasePolicy, not {policy!r}."
            )
        yield name, policy


registry = Registry()
