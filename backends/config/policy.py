"""Policy: turns the value of ``OPTIONS["policy"]`` into a `ReleasePolicy`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from relet.core import ConfigurationError, ReleasePolicy, registry
from relet.core.dotted_path import import_dotted_path
from relet.core.lease import TABLES
from relet.core.outside import attempt
from relet.core.policy import AUDIT_MODES

#: The variable by which a process and its children have their session state audited.
AUDIT_VARIABLE = "RELET_SESSION_STATE_AUDIT"


def load_policy(setting: object, **defaults: Any) -> ReleasePolicy:
    """Return the policy that *setting* describes.

    :param setting: a policy, a mapping of its values, the name of a policy that a plugin
        registers, or the dotted path of a policy or policy class.
    :param defaults: values for keys missing from a mapping.
    :raises ConfigurationError: *setting* describes no policy.
    """
    if isinstance(setting, ReleasePolicy):
        return setting
    if isinstance(setting, str):
        return _registered(setting) if setting.isidentifier() else _import(setting)
    if isinstance(setting, Mapping):
        return ReleasePolicy.from_mapping(setting, **defaults)
    raise ConfigurationError(
        f"it is {setting!r}; it must be a dict, a ReleasePolicy, the name of a registered policy, "
        "or the dotted path of a policy."
    )


def _registered(name: str) -> ReleasePolicy:
    known = registry.policies()
    if name not in known:
        names = ", ".join(map(repr, known)) or "none"
        hint = f"Did you mean {{'release': {name!r}}}? " if name in TABLES else ""
        raise ConfigurationError(
            f"no policy {name!r} is registered (registered: {names}). {hint}Install the plugin "
            "that registers it, or give the dotted path of a policy in your project."
            + "".join(f" A broken plugin may be the cause: {each}" for each in registry.problems())
        )
    return known[name]


def _import(path: str) -> ReleasePolicy:
    found = import_dotted_path(path)
    if isinstance(found, type) and issubclass(found, ReleasePolicy):
        found = _made(path, found)
    if not isinstance(found, ReleasePolicy):
        raise ConfigurationError(f"{path!r} is {found!r}; it must be a ReleasePolicy.")
    return found


def _made(path: str, cls: type[ReleasePolicy]) -> ReleasePolicy:
    policy, error = attempt(cls)
    if isinstance(error, ConfigurationError):
        raise ConfigurationError(f"{path!r}: {error}") from error
    if error is not None:
        raise ConfigurationError(
            f"{path!r}: {cls.__name__}() raised {error!r}. A policy class is called without "
            "arguments. If it needs some, give the dotted path of an instance instead."
        ) from error
    return policy  # type: ignore[return-value]


def audit_mode_from_environment() -> str | None:
    """Return the mode in which the environment has each alias audited, or None.

    :raises ImproperlyConfigured: the variable has another value.
    """
    mode = os.environ.get(AUDIT_VARIABLE, "")
    if mode and mode not in AUDIT_MODES:
        known = " or ".join(map(repr, AUDIT_MODES))
        raise ImproperlyConfigured(
            f"The environment variable {AUDIT_VARIABLE} is {mode!r}; it must be {known}, or not "
            "set."
        )
    return mode or None
