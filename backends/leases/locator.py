"""Locator: the wrapper that Django has for an alias, in this thread.

`hold` and `policies` may be imported by ``settings.py``, where Django's connections are not known
yet. So they are looked up when they are needed.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from relet.backends.config.options import release_policy
from relet.core import ConfigurationError, ReleasePolicy


def current(alias: str) -> Any:
    """Return the wrapper for *alias* in this thread.

    :raises ConfigurationError: *alias* is not in ``DATABASES``, or has no relet engine.
    """
    try:
        wrapper = connections[alias]
    except ConnectionDoesNotExist as error:
        names = ", ".join(map(repr, connections))
        raise ConfigurationError(f"There is no DATABASES[{alias!r}]; there are {names}.") from error
    if not hasattr(wrapper, "adapter_class"):
        engine = connections.settings[alias]["ENGINE"]
        raise ConfigurationError(
            f"DATABASES[{alias!r}]['ENGINE'] is {engine!r}, which leases no connections; "
            "relet's engines are 'relet.backends.<adapter>'."
        )
    return wrapper


def check(alias: str) -> None:
    """Raise `ConfigurationError` if *alias* has no relet engine.

    While ``settings.py`` is imported this is not known, and nothing is checked.
    """
    if settings.configured:
        current(alias)


def settings_policy(alias: str) -> ReleasePolicy:
    """Return the policy that the settings of *alias* have."""
    wrapper = current(alias)
    return release_policy(alias, wrapper.settings_dict, wrapper.adapter_class)
