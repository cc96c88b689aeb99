"""What the settings of an alias say about its pool and its policy."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from relet.core import ConfigurationError, PoolAdapter, ReleasePolicy
from relet.core.policies import load_policy


class OptionError(ImproperlyConfigured):
    """One setting is wrong; `code` is the number of the system check that says so too."""

    def __init__(self, alias: str, setting: str, problem: object, code: str) -> None:
        super().__init__(f"DATABASES[{alias!r}][{setting}]: {problem}")
        self.code = code


def check_max_age(alias: str, settings: dict[str, Any]) -> None:
    """Raise `OptionError` unless ``CONN_MAX_AGE`` is 0."""
    if (age := settings.get("CONN_MAX_AGE", 0)) != 0:
        raise OptionError(
            alias,
            "'CONN_MAX_AGE'",
            f"it is {age!r} and must be 0. Pooling doesn't support persistent connections. "
            "(The pool keeps connections open; a wrapper that kept one too would never give "
            "it back. How long the pool keeps them is its own option, such as "
            "OPTIONS['pool']['max_lifetime'].)",
            "relet.E001",
        )


def pool_options(alias: str, settings: dict[str, Any], adapter: type[PoolAdapter[Any]]) -> Any:
    """Return the pool's keyword arguments, or ``False`` for no pooling."""
    options = settings["OPTIONS"].get("pool", True)
    try:
        if options is True or options is None:
            options = {}
        if options is not False and not isinstance(options, dict):
            raise ConfigurationError(
                f"it is {options!r}; it can be a dict of the pool's keyword arguments, True for "
                "the pool's defaults, or False for no pooling."
            )
        adapter.check_options(options)
    except ConfigurationError as error:
        raise OptionError(alias, "'OPTIONS']['pool'", error, "relet.E002") from error
    return options


def release_policy(alias: str, settings: dict[str, Any]) -> ReleasePolicy:
    """Return the policy of the alias, as its settings have it."""
    options = settings["OPTIONS"]
    policy = options.get("policy", {})
    # Without a pool, a release closes the connection: do it as Django does.
    defaults = {"release": "request"} if options.get("pool", True) is False else {}
    try:
        return load_policy(policy, **defaults)
    except ConfigurationError as error:
        code = "relet.E004" if isinstance(policy, str) else "relet.E003"
        raise OptionError(alias, "'OPTIONS']['policy'", error, code) from error
