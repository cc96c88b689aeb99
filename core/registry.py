"""The registry: which adapters and policies there are."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from keyword import iskeyword
from typing import Any

import pluggy

from . import hookspecs
from .adapter import PoolAdapter
from .errors import MissingDependency, RegistryError, UnknownAdapter
from .hookspecs import AdapterSpec
from .owners import Owners
from .policy import ReleasePolicy

ENTRY_POINT_GROUP = "relet"

logger = logging.getLogger("relet")


class Registry:
    """Adapters and policies by name, from the plugins of the entry-point group ``relet``.

    What is wrong with one plugin does not keep the others from being used: it is logged, and
    told by `problems`, by a system check, by ``relet adapters``, and when what the plugin would
    have brought is asked for.
    """

    def __init__(self) -> None:
        self.forked()
        self._specs: Mapping[str, AdapterSpec] | None = None
        self._owners: Owners | None = None
        self._plugins = pluggy.PluginManager(ENTRY_POINT_GROUP)
        self._plugins.add_hookspecs(hookspecs)
        self._loaded = False
        #: What a message calls a plugin, by the name that it is registered under.
        self._called: dict[str, str] = {}
        #: Entry points that could not be loaded.
        self._unloaded: list[str] = []
        #: What is wrong with what plugins bring.
        self._problems: list[str] = []
        #: The plugin of each adapter.
        self._brought_by: dict[str, str] = {}
        self._policies: Mapping[str, ReleasePolicy] = {}

    def forked(self) -> None:
        """This process is a child, or new: no thread of it has the lock."""
        self._lock = threading.RLock()

    def register(self, plugin: object, name: str | None = None) -> None:
        """Register *plugin* by hand; for tests, and for plugins that are not installed.

        :raises RegistryError: the plugin is wrong; it stays unregistered.
        """
        with self._lock:
            self._load_entry_points()
            registered = self._register(plugin, name)
            self._called[registered] = f"plugin {registered!r}"
            before = set(self._problems)
            self._collect()
            if wrong := [text for text in self._problems if text not in before]:
                self.unregister(plugin)
                raise RegistryError(wrong[0])

    def _register(self, plugin: object, name: str | None) -> str:
        """Register *plugin* with pluggy, or raise `RegistryError` if its hooks are wrong."""
        registered = name or self._plugins.get_canonical_name(plugin)
        try:
            self._plugins.register(plugin, registered)
            # A misspelt hook would otherwise be silent.
            self._plugins.check_pending()
        except pluggy.PluginValidationError as error:
            self._plugins.unregister(name=registered)
            raise RegistryError(str(error)) from error
        return registered

    def unregister(self, plugin: object) -> None:
        """Undo `register`."""
        with self._lock:
            self._plugins.unregister(plugin)
            self._collect()

    def specs(self) -> Mapping[str, AdapterSpec]:
        """Return what is registered, by name, in alphabetical order."""
        with self._lock:
            if self._specs is None:
                self._load_entry_points()
                self._collect()
                for text in self.problems():
                    logger.error("%s", text)
            return self._specs  # type: ignore[return-value]

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with plugins; each text names the plugin, and its distribution."""
        if self._specs is None:
            self.specs()
        return (*self._unloaded, *self._problems)

    def spec(self, name: str) -> AdapterSpec:
        """Return the spec of *name*; raise `UnknownAdapter` if there is none."""
        try:
            return self.specs()[name]
        except KeyError:
            raise UnknownAdapter(name, list(self.specs()), self.problems()) from None

    def load(self, name: str) -> type[PoolAdapter[Any]]:
        """Import the adapter *name*.

        :raises UnknownAdapter: there is none.
        :raises MissingDependency: something it needs is not installed.
        :raises RegistryError: what the plugin points to is not an adapter.
        """
        spec = self.spec(name)
        if missing := self.missing(spec):
            raise MissingDependency(name, missing, spec.install or name)
        adapter = f"{self._called[self._brought_by[name]]}: adapter {name!r}"
        module, _, attribute = spec.adapter.partition(":")
        try:
            imported = import_module(module)
        except Exception as error:
            raise RegistryError(f"{adapter}: {module} cannot be imported: {error!r}.") from error
        found = getattr(imported, attribute, None)
        if found is None:
            raise RegistryError(f"{adapter}: there is no {spec.adapter!r}.")
        if not (isinstance(found, type) and issubclass(found, PoolAdapter)):
            raise RegistryError(f"{adapter}: {spec.adapter!r} is not a PoolAdapter class.")
        lacks = sorted(found.__abstractmethods__)
        lacks += [fact for fact in ("lifetime_enforced", "has_threads") if not hasattr(found, fact)]
        if lacks:
            raise RegistryError(f"{adapter}: {spec.adapter!r} lacks {', '.join(lacks)}.")
        return found

    def policies(self) -> Mapping[str, ReleasePolicy]:
        """Return the policies that plugins bring, by name."""
        self.specs()  # loads the plugins
        return self._policies

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

    def _load_entry_points(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        # relet's own come first, so that nobody takes their names.
        for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=_precedence):
            called = f"plugin {entry_point.name!r} of {_distribution(entry_point)!r}"
            try:
                name = f"{_distribution(entry_point)}:{entry_point.name}"
                registered = self._register(entry_point.load(), name)
            except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises
                what = str(error) if isinstance(error, RegistryError) else repr(error)
                self._unloaded.append(
                    f"{called} ({entry_point.value}) cannot be loaded: {what}. "
                    "Mend or uninstall it."
                )
            else:
                self._called[registered] = called

    def _collect(self) -> None:
        """Ask all plugins what they bring."""
        self._problems = []
        hook = self._plugins.hook
        adapters = self._brought("an adapter", hook.relet_adapters, _specs)
        policies = self._brought("a policy", hook.relet_policies, _policies)
        self._specs = {name: adapters[name][0] for name in sorted(adapters)}
        self._brought_by = {name: plugin for name, (_, plugin) in adapters.items()}
        self._policies = {name: policies[name][0] for name in sorted(policies)}

    def _brought(
        self, kind: str, hook: pluggy.HookCaller, read: Callable[[Any], Mapping[str, Any]]
    ) -> dict[str, tuple[Any, str]]:
        """Return what plugins bring by *hook*, and who does, by name; enter what is wrong.

        :param kind: of the things that they bring, for messages.
        :param read: takes what a plugin returns; raises `RegistryError` if it is wrong.
        """
        found: dict[str, tuple[Any, str]] = {}
        # The first to be registered is asked first.
        order = list(self._called)
        implementations = sorted(
            hook.get_hookimpls(), key=lambda implementation: order.index(implementation.plugin_name)
        )
        for implementation in implementations:
            plugin = implementation.plugin_name
            called = self._called[plugin]
            try:
                brought = read(implementation.function())
            except Exception as error:  # noqa: BLE001 - whatever a stranger's hook raises
                told = isinstance(error, RegistryError)
                what = str(error) if told else f"{hook.name}() raises {error!r}."
                self._enter(f"{called}: {what}")
                continue
            for name, thing in brought.items():
                if name in found:
                    self._enter(
                        f"{called} and {self._called[found[name][1]]} both register {kind} "
                        f"{name!r}; that of the latter is used. Uninstall one of them."
                    )
                else:
                    found[name] = thing, plugin
        return found

    def _enter(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)


def _distribution(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "an unknown distribution"


def _precedence(entry_point: EntryPoint) -> tuple[bool, str, str]:
    distribution = _distribution(entry_point)
    return distribution != "relet", distribution, entry_point.name


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except Exception:  # noqa: BLE001 - find_spec() imports the parents
        return False


def _specs(brought: object) -> Mapping[str, AdapterSpec]:
    if not isinstance(brought, Iterable):
        raise RegistryError(f"relet_adapters() must return AdapterSpec objects, not {brought!r}.")
    found = {}
    for spec in brought:
        if not isinstance(spec, AdapterSpec):
            raise RegistryError(f"relet_adapters() must return AdapterSpec objects, not {spec!r}.")
        if not spec.name.isidentifier() or iskeyword(spec.name):
            raise RegistryError(
                f"the adapter name {spec.name!r} must be an identifier, for it becomes the module "
                "relet.backends.<name>."
            )
        if spec.adapter.count(":") != 1:
            raise RegistryError(
                f"adapter {spec.name!r} must be given as 'package.module:Class', "
                f"not {spec.adapter!r}."
            )
        if not isinstance(spec.requires, tuple):
            raise RegistryError(
                f"adapter {spec.name!r} must give what it requires as a tuple of modules, "
                f"not {spec.requires!r}."
            )
        found[spec.name] = spec
    return found


def _policies(brought: object) -> Mapping[str, ReleasePolicy]:
    if not isinstance(brought, Mapping):
        raise RegistryError(
            f"relet_policies() must return a mapping of names to policies, not {brought!r}."
        )
    for name, policy in brought.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise RegistryError(
                f"the policy name {name!r} must be an identifier; one with a dot would be taken "
                "for a path."
            )
        if not isinstance(policy, ReleasePolicy):
            raise RegistryError(f"policy {name!r} must be a ReleasePolicy, not {policy!r}.")
    return brought


registry = Registry()


if hasattr(os, "register_at_fork"):
    # A child gets plugins whole, and no lock of a thread that is not there.
    os.register_at_fork(
        before=lambda: registry._lock.acquire(),
        after_in_parent=lambda: registry._lock.release(),
        after_in_child=registry.forked,
    )
