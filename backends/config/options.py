"""What the settings of an alias say about its pool and its policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from relet.core import ConfigurationError, PoolAdapter, ReleasePolicy
from relet.core.errors import reduced
from relet.core.policy import check_boolean

from .policy import load_policy

#: Where most pools have their options.
_USUAL = PoolAdapter.options_setting


class OptionError(ImproperlyConfigured):
    """One setting is wrong; `code` is the number of the system check that says so too."""

    def __init__(self, alias: str, setting: str, problem: object, code: str) -> None:
        super().__init__(f"DATABASES[{alias!r}][{setting}]: {problem}")
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return reduced(self)


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
    where = adapter.options_setting
    try:
        if where != _USUAL and isinstance(settings["OPTIONS"].get("pool"), dict):
            raise OptionError(
                alias,
                _written(_USUAL),
                f"this engine's pool has its options in DATABASES[{alias!r}][{_written(where)}].",
                "relet.E002",
            )
        options = _pool_setting(settings, adapter)
        if options is not False and not isinstance(options, dict):
            raise ConfigurationError(
                f"it is {options!r}; it can be a dict of the pool's keyword arguments, True for "
                "the pool's defaults, or False for no pooling."
            )
        adapter.check_options(options)
    except ConfigurationError as error:
        raise OptionError(alias, _written(where), error, "relet.E002") from error
    return options


def check_health_checks(alias: str, settings: dict[str, Any]) -> None:
    """Raise `OptionError` if ``CONN_HEALTH_CHECKS`` is text, which is true whatever it says."""
    try:
        check_boolean("CONN_HEALTH_CHECKS", settings.get("CONN_HEALTH_CHECKS"))
    except ConfigurationError as error:
        raise OptionError(alias, "'CONN_HEALTH_CHECKS'", error, "relet.E008") from error


def check_connect(
    alias: str,
    settings: Mapping[str, Any],
    adapter: type[PoolAdapter[Any]],
    parameters: Mapping[str, Any],
) -> None:
    """Raise `OptionError` for parameters of connections that the adapter would not take."""
    pool = settings["OPTIONS"].get("pool")
    if isinstance(pool, Mapping) and "connection_class" in pool:
        return  # its connect() may take others than the driver's
    try:
        adapter.check_connect(parameters)
    except ConfigurationError as error:
        raise OptionError(alias, "'OPTIONS'", error, "relet.E005") from error


def ignored(alias: str, settings: Mapping[str, Any], adapter: type[PoolAdapter[Any]]) -> list[str]:
    """Return what is in the settings of *alias* and that nobody looks at."""
    where = adapter.options_setting
    found = []
    if "POOL_OPTIONS" in settings and where != ("POOL_OPTIONS",):
        found.append(("POOL_OPTIONS", where))
    if "pool" in settings:
        found.append(("pool", where))
    if "policy" in settings:
        found.append(("policy", ("OPTIONS", "policy")))
    return [
        f"DATABASES[{alias!r}][{key!r}] is ignored: with this engine it belongs in "
        f"DATABASES[{alias!r}][{_written(place)}]."
        for key, place in found
    ]


def pool_doubts(alias: str, settings: dict[str, Any], adapter: type[PoolAdapter[Any]]) -> list[str]:
    """Return what is odd about the pool's keyword arguments, which are right."""
    options = _pool_setting(settings, adapter)
    written = _written(adapter.options_setting)
    doubts = adapter.option_warnings(options) if isinstance(options, dict) else []
    return [f"DATABASES[{alias!r}][{written}]: {doubt}" for doubt in doubts]


def _pool_setting(settings: dict[str, Any], adapter: type[PoolAdapter[Any]]) -> Any:
    # So that is said for all engines, wherever the pool has its options.
    if settings["OPTIONS"].get("pool") is False:
        return False
    found: Any = settings
    for key in adapter.options_setting:
        found = found.get(key, True)
    return {} if found is True or found is None else found


def _written(keys: tuple[str, ...]) -> str:
    return "][".join(map(repr, keys))


def release_policy(
    alias: str, settings: dict[str, Any], adapter: type[PoolAdapter[Any]]
) -> ReleasePolicy:
    """Return the policy of the alias, as its settings have it."""
    policy = settings["OPTIONS"].get("policy", {})
    # Without a pool, a release closes the connection: do it as Django does.
    try:
        reuses = adapter.is_pooling(_pool_setting(settings, adapter))
    except (ConfigurationError, TypeError, ValueError):
        reuses = True  # they are wrong, which is told where the pool is made
    defaults = {} if reuses else {"release": "request"}
    try:
        return load_policy(policy, **defaults)
    except ConfigurationError as error:
        code = "relet.E004" if isinstance(policy, str) else "relet.E003"
        raise OptionError(alias, "'OPTIONS']['policy'", error, code) from error
