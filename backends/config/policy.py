"""The policy that a setting means."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

from relet.core import ConfigurationError, ReleasePolicy, registry
from relet.core.lease import TABLES


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
