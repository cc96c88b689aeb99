"""The policies of this process: by alias, changeable at run time, and for a block.

The policy of a lease is chosen when it begins: that of the innermost `override` block, else
what was assigned from code, else that of the settings.
"""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any

from .blocks import Block
from .errors import ConfigurationError
from .lease import TABLES
from .policy import ReleasePolicy
from .registry import registry

_NONE: Mapping[str, ReleasePolicy] = MappingProxyType({})


def load_policy(setting: object, **defaults: Any) -> ReleasePolicy:
    """Return the policy that *setting* means.

    :param setting: a policy, a mapping of its values, the name of one that a plugin
        registers, or the dotted path of one, or of its class.
    :param defaults: values for those that a mapping has not.
    :raises ConfigurationError: it means none.
    """
    if isinstance(setting, ReleasePolicy):
        return setting
    if isinstance(setting, str):
        return _registered(setting) if setting.isidentifier() else _import(setting)
    if isinstance(setting, Mapping):
        return ReleasePolicy.from_mapping(setting, **defaults)
    raise ConfigurationError(
        f"it is {setting!r}; it can be a dict, a ReleasePolicy, the name of a registered policy, "
        "or the dotted path of a policy."
    )


def _registered(name: str) -> ReleasePolicy:
    known = registry.policies()
    if name not in known:
        names = ", ".join(map(repr, known)) or "none"
        hint = f"Did you mean {{'release': {name!r}}}? " if name in TABLES else ""
        raise ConfigurationError(
            f"no policy {name!r} is registered; registered are: {names}. {hint}Policies come from "
            "plugins (the hook relet_policies); one of your project is given by its dotted path."
        )
    return known[name]


def _import(path: str) -> ReleasePolicy:
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{path!r} cannot be imported: {error}.") from error
    if isinstance(found, type) and issubclass(found, ReleasePolicy):
        found = found()
    if not isinstance(found, ReleasePolicy):
        raise ConfigurationError(f"{path!r} is {found!r}, and no ReleasePolicy.")
    return found


class Policies:
    """The policies of all aliases. There is one: ``relet.core.policies``.

    A change is seen by the next lease of each thread, never by one that has begun.
    """

    def __init__(self) -> None:
        self._assigning = threading.Lock()
        #: Assigned from code. Replaced, not changed: that it is another tells of a change.
        self.assigned: Mapping[str, ReleasePolicy] = _NONE
        #: Of the blocks that this thread, or task, is in.
        self.overrides: ContextVar[Mapping[str, ReleasePolicy]] = ContextVar(
            "relet.policies.overrides", default=_NONE
        )

    def __getitem__(self, alias: str) -> ReleasePolicy:
        """Return the policy of the next lease for *alias* here.

        :raises ConfigurationError: *alias* has no relet engine.
        """
        policy = self.overrides.get().get(alias) or self.assigned.get(alias)
        return policy or registry.owners().policy(alias)

    def __setitem__(self, alias: str, policy: ReleasePolicy | Mapping[str, Any] | str) -> None:
        """Assign a policy, for all threads, in place of that of the settings.

        :param policy: what ``OPTIONS["policy"]`` can be.
        :raises ConfigurationError: *alias* has no relet engine, or this is no policy.
        """
        registry.owners().check(alias)
        try:
            loaded = load_policy(policy)
        except ConfigurationError as error:
            raise ConfigurationError(f"policies[{alias!r}]: {error}") from error
        with self._assigning:
            self.assigned = MappingProxyType({**self.assigned, alias: loaded})

    def __delitem__(self, alias: str) -> None:
        """Go back to the policy of the settings."""
        with self._assigning:
            self.assigned = MappingProxyType(
                {name: policy for name, policy in self.assigned.items() if name != alias}
            )

    def override(
        self, alias: str, policy: ReleasePolicy | None = None, /, **changes: Any
    ) -> Override:
        """Have another policy for a block, or a function that it decorates.

        It is that of this thread, or asynchronous task, only. A lease that has begun
        inside the block has the block's policy to its end; when the block is left, and
        nothing else keeps it, it ends.

        :param alias: the key in ``DATABASES``.
        :param policy: the policy; by default, that which there is when the block is entered.
        :param changes: values in which it differs.
        :raises ConfigurationError: *alias* has no relet engine, or a value is wrong.

        ::

            with policies.override("default", release="request"):
                ...
        """
        if policy is not None and not isinstance(policy, ReleasePolicy):
            raise ConfigurationError(
                f"policies.override({alias!r}, ...): {policy!r} is no ReleasePolicy."
            )
        return Override(self, alias, policy, changes)


class Override(Block):
    """What `Policies.override` returns."""

    def __init__(
        self,
        policies: Policies,
        alias: str,
        policy: ReleasePolicy | None,
        changes: Mapping[str, Any],
    ) -> None:
        self._policies, self._alias = policies, alias
        self._policy, self._changes = policy, changes
        self._entered: list[tuple[Token[Mapping[str, ReleasePolicy]], ReleasePolicy]] = []

    def _again(self) -> Override:
        return Override(self._policies, self._alias, self._policy, self._changes)

    def __enter__(self) -> ReleasePolicy:
        alias, overrides = self._alias, self._policies.overrides
        registry.owners().check(alias)
        try:
            policy = (self._policy or self._policies[alias]).replaced(self._changes)
        except ConfigurationError as error:
            raise ConfigurationError(f"policies.override({alias!r}, ...): {error}") from error
        token = overrides.set(MappingProxyType({**overrides.get(), alias: policy}))
        self._entered.append((token, policy))
        return policy

    def _leave(self) -> ReleasePolicy:
        token, policy = self._entered.pop()
        self._policies.overrides.reset(token)
        return policy

    def __exit__(self, *exc_info: object) -> None:
        policy = self._leave()
        registry.owners().here(self._alias).overridden(policy)

    async def __aenter__(self) -> ReleasePolicy:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        policy, owners = self._leave(), registry.owners()
        await owners.run(lambda: owners.here(self._alias).overridden(policy))


policies = Policies()
