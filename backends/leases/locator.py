"""Locator: finds this thread's wrapper for an alias.

``settings.py`` may import `hold` and `policies` before Django knows its connections. So they are
looked up only when needed.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from relet.backends.config.options import release_policy
from relet.core import ConfigurationError, ReleasePolicy


def current(alias: object) -> Any:
    """Return the wrapper for *alias* in this thread.

    :raises ConfigurationError: *alias* is not in ``DATABASES``, or has no relet engine.
    """
    try:
        wrapper = connections[alias] if isinstance(alias, str) else None
    except ConnectionDoesNotExist:
        wrapper = None
    if wrapper is None:
        names = ", ".join(map(repr, connections))
        raise ConfigurationError(f"DATABASES has no alias {alias!r}; it has {names}.")
    if not hasattr(wrapper, "adapter_class"):
        engine = wrapper.settings_dict["ENGINE"]
        raise ConfigurationError(
            f"DATABASES[{alias!r}]['ENGINE'] is {engine!r}, which is not a relet engine; use "
            "'relet.backends.<adapter>'."
        )
    return wrapper


def check(alias: object) -> None:
    """Raise `ConfigurationError` if *alias* has no relet engine.

    Do nothing while ``settings.py`` is being imported, because engines are not known yet.
    """
    if settings.configured:
        current(alias)


def settings_policy(alias: str) -> ReleasePolicy:
    """Return the policy in the settings of *alias*."""
    wrapper = current(alias)
    return release_policy(alias, wrapper.settings_dict, wrapper.adapter_class)
