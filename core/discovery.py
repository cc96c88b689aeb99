"""Discovery: find what all plugins provide, in one search that completes or has no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from keyword import iskeyword
from typing import Any, NamedTuple

import pluggy

from . import hookspecs
from .errors import RegistryError
from .hookspecs import AdapterSpec
from .outside import attempt
from .policy import ReleasePolicy
from .requirements import choices

#: A plugin that was registered by hand, and its name, if it was given one.
Manual = tuple[object, "str | None"]

#: The modules of `relet.backends` that are not engines. A file comes before a plugin's engine.
_MODULES = (
    *("checks", "cli", "compat", "config", "contrib", "demo", "embedded", "engines", "fork"),
    *("install", "leases", "metrics", "observe", "plans", "pools", "postgresql_pg8000", "prepare"),
    *("report_folder", "reports", "temporarily", "testing", "typing", "wrapper"),
)


#: The hooks of `hookspecs`.
_HOOKS = ("relet_adapters", "relet_policies")


class Found(NamedTuple):
    """What the plugins provide.

    :param specs: adapters by name, in alphabetical order.
    :param aliases: alias -> name of the adapter.
    :param plugins: name of the adapter -> description of its plugin, for messages.
    :param policies: policies by name, in alphabetical order.
    :param problems: what is wrong with plugins. Each text names the plugin and its distribution.
    """

    specs: Mapping[str, AdapterSpec]
    aliases: Mapping[str, str]
    plugins: Mapping[str, str]
    policies: Mapping[str, ReleasePolicy]
    problems: tuple[str, ...]


def discover(entry_points: Iterable[EntryPoint], manual: Sequence[Manual]) -> Found:
    """Return what the plugins at *entry_points* and those registered by hand provide.

    A broken plugin does not affect the others.

    :raises RegistryError: a plugin in *manual* has wrong hooks, or is registered already.
    """
    search = _Search()
    # relet's own plugins come first, so that no other plugin can take their names.
    for entry_point in sorted(entry_points, key=_precedence):
        search.load(entry_point)
    for plugin, name in manual:
        search.register(plugin, name)
    return search.collect()


class _Search:
    """One search for plugins. Its result is used only if it completes."""

    def __init__(self) -> None:
        self._plugins = pluggy.PluginManager("relet")
        self._plugins.add_hookspecs(hookspecs)
        #: Name of a registered plugin -> its description, for messages.
        self.described: dict[str, str] = {}
        self._problems: list[str] = []

    def load(self, entry_point: EntryPoint) -> None:
        """Load a plugin and register it, or report why that fails."""
        distribution = _distribution(entry_point)
        described = f"plugin {entry_point.name!r} of {distribution!r}"
        plugin, error = attempt(entry_point.load)
        if error is None:
            name = f"{distribution}:{entry_point.name}"
            _, error = attempt(lambda: self.register(plugin, name, described))
        if error is not None:
            reason = str(error) if isinstance(error, RegistryError) else repr(error)
            self._report(
                f"{described} ({entry_point.value}) cannot be loaded: {reason}. "
                "Fix or uninstall it."
            )

    def register(self, plugin: object, name: str | None, described: str | None = None) -> None:
        """Register *plugin* with pluggy.

        :param described: its description, for messages; by default its name.
        :raises RegistryError: its hooks are wrong, or it or its name is registered already.
        """
        name = name or self._plugins.get_canonical_name(plugin)
        for taken, other in self._plugins.list_name_plugin():
            if name == taken or plugin == other:
                what = f"the plugin name {name!r}" if plugin != other else f"{plugin!r}"
                raise RegistryError(f"{what} is registered already by {self.described[taken]}")
        try:
            self._plugins.register(plugin, name)
            # pluggy would otherwise ignore a misspelt hook.
            self._plugins.check_pending()
            self._check_hooks(plugin)
        except BaseException as error:
            # Also after an exception from outside, because `attempt` calls this again.
            self._plugins.unregister(name=name)
            if isinstance(error, pluggy.PluginValidationError):
                raise RegistryError(str(error)) from error
            if isinstance(error, RegistryError) and described is None:
                raise RegistryError(f"plugin {name!r}: {error}.") from error
            raise
        self.described[name] = described or f"plugin {name!r}"

    def _check_hooks(self, plugin: object) -> None:
        """Raise `RegistryError` if *plugin* has no hook, or one that is not marked."""
        callers = self._plugins.get_hookcallers(plugin) or ()
        marked = {caller.name for caller in callers}
        for name in _HOOKS:
            if name not in marked and callable(getattr(plugin, name, None)):
                raise RegistryError(
                    f"{name}() is not marked. Import hookimpl from relet.core, and write "
                    f"@hookimpl above it"
                )
        if not marked:
            raise RegistryError(
                f"{plugin!r} has no hook. A plugin is a module, or another object, with "
                f"{' or '.join(f'{name}()' for name in _HOOKS)}, marked with @hookimpl"
            )

    def collect(self) -> Found:
        """Call the hooks of all plugins."""
        hook = self._plugins.hook
        adapters = self._call("an adapter", hook.relet_adapters, _specs)
        policies = self._call("a policy", hook.relet_policies, _policies)
        return Found(
            aliases=self._aliases({name: spec for name, (spec, _) in adapters.items()}),
            specs={name: adapters[name][0] for name in sorted(adapters)},
            plugins={name: self.described[plugin] for name, (_, plugin) in adapters.items()},
            policies={name: policies[name][0] for name in sorted(policies)},
            problems=tuple(self._problems),
        )

    def _call(
        self, kind: str, hook: pluggy.HookCaller, read: Callable[[Any], Mapping[str, Any]]
    ) -> dict[str, tuple[Any, str]]:
        """Call *hook* of each plugin; return what each provides, by name, and report problems.

        :param kind: what the hook provides, for messages.
        :param read: checks the hook's result and returns it by name. It raises `RegistryError` if
            the result is wrong.
        :return: name -> what it names, and the name of the plugin that provides it.
        """
        found: dict[str, tuple[Any, str]] = {}
        # pluggy calls the plugin that was registered last first. Names go to the first.
        order = list(self.described)
        implementations = sorted(
            hook.get_hookimpls(), key=lambda implementation: order.index(implementation.plugin_name)
        )
        for implementation in implementations:
            plugin = implementation.plugin_name
            described = self.described[plugin]
            provided, error = attempt(lambda: read(implementation.function()))  # noqa: B023
            if provided is None:
                if not isinstance(error, RegistryError):
                    error = RegistryError(f"{hook.name}() raised {error!r}.")
                self._report(f"{described}: {error}")
                continue
            for name, value in provided.items():
                if name in found:
                    self._report(
                        f"{described} and {self.described[found[name][1]]} both register {kind} "
                        f"{name!r}. The latter is used. Uninstall one of them."
                    )
                else:
                    found[name] = value, plugin
        return found

    def _aliases(self, specs: Mapping[str, AdapterSpec]) -> dict[str, str]:
        """Return alias -> name of the adapter; report aliases that are taken."""
        found: dict[str, str] = {}
        for name, spec in specs.items():
            for alias in spec.aliases:
                if (taken := alias if alias in specs else found.get(alias)) is not None:
                    self._report(
                        f"adapter {name!r} has the alias {alias!r}, which already belongs to "
                        f"adapter {taken!r}. Uninstall one of their plugins."
                    )
                else:
                    found[alias] = name
        return found

    def _report(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)


def _distribution(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "an unknown distribution"


def _precedence(entry_point: EntryPoint) -> tuple[bool, str, str]:
    distribution = _distribution(entry_point)
    return distribution != "relet", distribution, entry_point.name


def _specs(provided: object) -> Mapping[str, AdapterSpec]:
    if not isinstance(provided, Iterable) or isinstance(provided, str):
        raise _wrong_result(provided)
    found: dict[str, AdapterSpec] = {}
    for spec in provided:
        if not isinstance(spec, AdapterSpec):
            raise _wrong_result(spec)
        _check(spec)
        if spec.name in found:
            raise RegistryError(f"relet_adapters() returns two adapters named {spec.name!r}.")
        found[spec.name] = spec
    return found


def _wrong_result(provided: object) -> RegistryError:
    return RegistryError(
        f"relet_adapters() must return a list of AdapterSpec objects, not {provided!r}."
    )


def _check(spec: AdapterSpec) -> None:
    """Raise `RegistryError` if a field of *spec* is wrong."""

    def wrong(field: str, must: str) -> RegistryError:
        value = getattr(spec, field)
        return RegistryError(f"adapter {spec.name!r}: {field!r} is {value!r}; it must be {must}.")

    if must := _wrong_name(spec.name):
        raise wrong("name", must)
    if not isinstance(spec.aliases, tuple):
        raise wrong("aliases", "a tuple of names")
    for alias in spec.aliases:
        if must := _wrong_name(alias):
            raise wrong("aliases", f"a tuple of names, and each must be {must}")
    if len({spec.name, *spec.aliases}) <= len(spec.aliases):
        raise wrong("aliases", "names other than the adapter's own, each given once")
    if not isinstance(spec.adapter, str) or spec.adapter.count(":") != 1:
        raise wrong("adapter", f"the text {_path_of(spec.adapter)!r}")
    if not _are_requirements(spec):
        raise wrong(
            "requires",
            "a tuple of 'module', 'module>=version' or 'module>=version,<version', or of tuples of "
            "these, which are alternatives",
        )
    if not isinstance(spec.install, str):
        raise wrong("install", "one text, such as 'relet-stack[redis]'")
    if not isinstance(spec.backend, str) or not all(
        part.isidentifier() for part in spec.backend.split(".")
    ):
        raise wrong("backend", f"the dotted path of a Django backend, such as {_BACKEND!r}")


_BACKEND = AdapterSpec.backend


def _are_requirements(spec: AdapterSpec) -> bool:
    if not isinstance(spec.requires, tuple):
        return False
    for entry in spec.requires:
        alternatives = entry if isinstance(entry, tuple) else (entry,)
        if not alternatives or not all(isinstance(each, str) for each in alternatives):
            return False
    try:
        choices(spec)
    except RegistryError:
        return False
    return True


def _wrong_name(name: object) -> str:
    """Return what *name* must be if it cannot be the name of an engine; else ""."""
    if not isinstance(name, str) or not name.isidentifier() or iskeyword(name):
        return "an identifier, because it names the module relet.backends.<name>"
    if name in _MODULES:
        return (
            f"another name, because relet.backends.{name} is a module of relet's own, so no engine "
            "can have that name"
        )
    return ""


def _path_of(adapter: object) -> str:
    """Return what to write for *adapter*."""
    if isinstance(adapter, type):
        return f"{adapter.__module__}:{adapter.__qualname__}"
    return "package.module:Class"


def _policies(provided: object) -> Mapping[str, ReleasePolicy]:
    if not isinstance(provided, Mapping):
        raise RegistryError(
            f"relet_policies() must return a mapping of names to policies, not {provided!r}."
        )
    for name, policy in provided.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise RegistryError(
                f"the policy name {name!r} must be an identifier. A name with a dot would be "
                "imported as a dotted path."
            )
        if not isinstance(policy, ReleasePolicy):
            raise RegistryError(f"policy {name!r} must be a ReleasePolicy, not {policy!r}.")
    return provided
