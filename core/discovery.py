"""Discovery: what the plugins bring, found all at once or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from keyword import iskeyword
from typing import Any

import pluggy

from . import hookspecs
from .errors import RegistryError
from .hookspecs import AdapterSpec
from .outside import attempt
from .policy import ReleasePolicy
from .requirements import choices

#: What a plugin registered by hand is: itself, and the name that it is to have.
Manual = tuple[object, "str | None"]


@dataclass(frozen=True)
class Found:
    """What the plugins bring.

    :param specs: adapters by name, in alphabetical order.
    :param aliases: the adapters' names by their other names.
    :param brought_by: for each of them, what a message calls its plugin.
    :param policies: policies by name, in alphabetical order.
    :param problems: what is wrong; each text names the plugin, and its distribution.
    """

    specs: Mapping[str, AdapterSpec]
    aliases: Mapping[str, str]
    brought_by: Mapping[str, str]
    policies: Mapping[str, ReleasePolicy]
    problems: tuple[str, ...]


def discover(entry_points: Iterable[EntryPoint], manual: Sequence[Manual]) -> Found:
    """Return what is found by *entry_points*, and in the plugins that were registered by hand.

    What is wrong with one plugin does not keep the others from being found.

    :raises RegistryError: a plugin of *manual* has wrong hooks.
    """
    search = _Search()
    # relet's own come first, so that nobody takes their names.
    for entry_point in sorted(entry_points, key=_precedence):
        search.load(entry_point)
    for plugin, name in manual:
        registered = search.register(plugin, name)
        search.called[registered] = f"plugin {registered!r}"
    return search.collect()


class _Search:
    """One search; what it finds is seen when it has come to its end."""

    def __init__(self) -> None:
        self._plugins = pluggy.PluginManager("relet")
        self._plugins.add_hookspecs(hookspecs)
        #: What a message calls a plugin, by the name that it is registered under.
        self.called: dict[str, str] = {}
        self._problems: list[str] = []

    def load(self, entry_point: EntryPoint) -> None:
        """Load a plugin and register it, or enter why that cannot be."""
        distribution = _distribution(entry_point)
        called = f"plugin {entry_point.name!r} of {distribution!r}"
        plugin, error = attempt(entry_point.load)
        if error is None:
            try:
                registered = self.register(plugin, f"{distribution}:{entry_point.name}")
            except RegistryError as wrong:
                error = wrong
            else:
                self.called[registered] = called
        if error is not None:
            what = str(error) if isinstance(error, RegistryError) else repr(error)
            self._enter(
                f"{called} ({entry_point.value}) cannot be loaded: {what}. Mend or uninstall it."
            )

    def register(self, plugin: object, name: str | None) -> str:
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

    def collect(self) -> Found:
        """Ask all plugins what they bring."""
        hook = self._plugins.hook
        adapters = self._brought("an adapter", hook.relet_adapters, _specs)
        policies = self._brought("a policy", hook.relet_policies, _policies)
        return Found(
            aliases=self._aliases({name: spec for name, (spec, _) in adapters.items()}),
            specs={name: adapters[name][0] for name in sorted(adapters)},
            brought_by={name: self.called[plugin] for name, (_, plugin) in adapters.items()},
            policies={name: policies[name][0] for name in sorted(policies)},
            problems=tuple(self._problems),
        )

    def _brought(
        self, kind: str, hook: pluggy.HookCaller, read: Callable[[Any], Mapping[str, Any]]
    ) -> dict[str, tuple[Any, str]]:
        """Return what plugins bring by *hook*, and who does, by name; enter what is wrong.

        :param kind: of the things that they bring, for messages.
        :param read: takes what a plugin returns; raises `RegistryError` if it is wrong.
        """
        found: dict[str, tuple[Any, str]] = {}
        # The first to be registered is asked first.
        order = list(self.called)
        implementations = sorted(
            hook.get_hookimpls(), key=lambda implementation: order.index(implementation.plugin_name)
        )
        for implementation in implementations:
            plugin = implementation.plugin_name
            called = self.called[plugin]
            brought, error = attempt(lambda: read(implementation.function()))  # noqa: B023
            if brought is None:
                told = isinstance(error, RegistryError)
                self._enter(f"{called}: {error if told else f'{hook.name}() raises {error!r}.'}")
                continue
            for name, thing in brought.items():
                if name in found:
                    self._enter(
                        f"{called} and {self.called[found[name][1]]} both register {kind} "
                        f"{name!r}; that of the latter is used. Uninstall one of them."
                    )
                else:
                    found[name] = thing, plugin
        return found

    def _aliases(self, specs: Mapping[str, AdapterSpec]) -> dict[str, str]:
        """Return the adapters' names by their other names; enter those that are taken."""
        found: dict[str, str] = {}
        for name, spec in specs.items():
            for alias in spec.aliases:
                if (taken := alias if alias in specs else found.get(alias)) is not None:
                    self._enter(
                        f"adapter {name!r} has the alias {alias!r}, which means the adapter "
                        f"{taken!r}. Uninstall the plugin of one of them."
                    )
                else:
                    found[alias] = name
        return found

    def _enter(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)


def _distribution(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "an unknown distribution"


def _precedence(entry_point: EntryPoint) -> tuple[bool, str, str]:
    distribution = _distribution(entry_point)
    return distribution != "relet", distribution, entry_point.name


def _specs(brought: object) -> Mapping[str, AdapterSpec]:
    if not isinstance(brought, Iterable):
        raise RegistryError(f"relet_adapters() must return AdapterSpec objects, not {brought!r}.")
    found = {}
    for spec in brought:
        if not isinstance(spec, AdapterSpec):
            raise RegistryError(f"relet_adapters() must return AdapterSpec objects, not {spec!r}.")
        for name in spec.name, *spec.aliases:
            if not name.isidentifier() or iskeyword(name):
                raise RegistryError(
                    f"the adapter name {name!r} must be an identifier, for it becomes the module "
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
        try:
            choices(spec)
        except RegistryError as error:
            raise RegistryError(f"adapter {spec.name!r}: what it requires: {error}") from error
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
