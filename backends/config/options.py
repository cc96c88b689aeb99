"""Options: checks and reads the settings of an alias for its pool and its policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from relet.core import ConfigurationError, PoolAdapter, ReleasePolicy
from relet.core.errors import reduced
from relet.core.policy import check_boolean

from .policy import load_policy

#: The keys of ``OPTIONS`` that are relet's. The others are the driver's.
OWN_OPTIONS = ("budget", "observe", "policy", "pool", "prepare", "tag")
#: Where the options of most pools are.
_DEFAULT_SETTING = PoolAdapter.options_setting


class OptionError(ImproperlyConfigured):
    """A setting is wrong. `code` is the id of the system check that reports the same error."""

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
            f"it is {age!r}; it must be 0. Pooling doesn't support persistent connections. "
            "The pool keeps connections open; its own options say for how long, such as "
            "OPTIONS['pool']['max_lifetime'].",
            "relet.E001",
        )


def pool_options(alias: str, settings: dict[str, Any], adapter: type[PoolAdapter[Any]]) -> Any:
    """Return the pool's keyword arguments, or ``False`` for no pooling.

    :raises OptionError: they are invalid, or in the wrong setting for this engine.
    """
    where = adapter.options_setting
    try:
        if where != _DEFAULT_SETTING and isinstance(settings["OPTIONS"].get("pool"), dict):
            raise OptionError(
                alias,
                _subscript(_DEFAULT_SETTING),
                "with this engine, put the pool's options in "
                f"DATABASES[{alias!r}][{_subscript(where)}].",
                "relet.E002",
            )
        options = _pool_setting(settings, adapter)
        if options is not False and not isinstance(options, dict):
            raise ConfigurationError(
                f"it is {options!r}; it must be a dict of the pool's keyword arguments, True for "
                "the pool's defaults, or False for no pooling."
            )
        adapter.check_options(options)
    except ConfigurationError as error:
        raise OptionError(alias, _subscript(where), error, "relet.E002") from error
    return options


def check_health_checks(alias: str, settings: dict[str, Any]) -> None:
    """Raise `OptionError` if ``CONN_HEALTH_CHECKS`` is a string: even ``"False"`` is true."""
    try:
        check_boolean("CONN_HEALTH_CHECKS", settings.get("CONN_HEALTH_CHECKS"))
    except ConfigurationError as error:
        raise OptionError(alias, "'CONN_HEALTH_CHECKS'", error, "relet.E008") from error


def check_tag(alias: str, settings: Mapping[str, Any]) -> None:
    """Raise `OptionError` unless ``OPTIONS["tag"]`` is a boolean."""
    if not isinstance(tag := settings["OPTIONS"].get("tag", False), bool):
        problem = f"it is {tag!r}; it must be True or False."
        raise OptionError(alias, "'OPTIONS']['tag'", problem, "relet.E010")


def check_name(alias: str, settings: Mapping[str, Any]) -> None:
    """Raise `OptionError` if ``NAME`` is no text, such as the path that is there for SQLite.

    Or if it, or ``HOST``, is a URL: it would be in the error of each connection that cannot be
    opened, with its password.
    """
    for setting in "NAME", "HOST":
        if "://" in str(settings.get(setting)):
            raise OptionError(
                alias,
                repr(setting),
                "it is a URL; put its parts into NAME, USER, PASSWORD, HOST and PORT.",
                "relet.E005",
            )
    name = settings.get("NAME")
    if name and not isinstance(name, str):
        raise OptionError(
            alias,
            "'NAME'",
            f"it is {name!r}; it must be the name of a database, such as 'shop'.",
            "relet.E005",
        )


def check_connect(
    alias: str,
    settings: Mapping[str, Any],
    adapter: type[PoolAdapter[Any]],
    parameters: Mapping[str, Any],
) -> None:
    """Raise `OptionError` if the adapter does not accept the connection *parameters*."""
    pool = settings["OPTIONS"].get("pool")
    if isinstance(pool, Mapping) and "connection_class" in pool:
        return  # that class may accept parameters which the driver does not
    try:
        adapter.check_connect(parameters)
    except ConfigurationError as error:
        raise OptionError(alias, "'OPTIONS'", error, "relet.E005") from error


def ignored_settings(
    alias: str, settings: Mapping[str, Any], adapter: type[PoolAdapter[Any]]
) -> list[str]:
    """Return a warning for each setting of *alias* that its engine ignores."""
    where = adapter.options_setting
    found = []
    if "POOL_OPTIONS" in settings and where != ("POOL_OPTIONS",):
        found.append(("POOL_OPTIONS", where))
    for key in settings:
        name = str(key).lower()
        if name == "pool":
            found.append((key, where))
        elif name in (*OWN_OPTIONS, "connection_parameters"):
            found.append((key, ("OPTIONS", name)))
    return [
        f"DATABASES[{alias!r}][{key!r}] is ignored by this engine. Move it to "
        f"DATABASES[{alias!r}][{_subscript(setting)}]."
        for key, setting in found
    ]


def pool_warnings(
    alias: str, settings: dict[str, Any], adapter: type[PoolAdapter[Any]]
) -> list[str]:
    """Return warnings about pool options that are valid but probably not meant."""
    options = _pool_setting(settings, adapter)
    where = _subscript(adapter.options_setting)
    warnings = adapter.option_warnings(options) if isinstance(options, dict) else []
    return [f"DATABASES[{alias!r}][{where}]: {warning}" for warning in warnings]


def _pool_setting(settings: dict[str, Any], adapter: type[PoolAdapter[Any]]) -> Any:
    # This turns pooling off for every engine, wherever the engine's pool options are.
    if settings["OPTIONS"].get("pool") is False:
        return False
    found: Any = settings
    for key in adapter.options_setting:
        found = found.get(key, True)
    return {} if found is True or found is None else found


def _subscript(keys: tuple[str, ...]) -> str:
    """Return *keys* as in ``DATABASES[alias][...]``, without the outer brackets."""
    return "][".join(map(repr, keys))


def release_policy(
    alias: str, settings: dict[str, Any], adapter: type[PoolAdapter[Any]]
) -> ReleasePolicy:
    """Return the policy in the settings of *alias*.

    :raises OptionError: ``OPTIONS["policy"]`` is invalid.
    """
    policy = settings["OPTIONS"].get("policy", {})
    # Without a pool, each release closes the connection, so keep it for the request as Django does.
    try:
        pooling = adapter.is_pooling(_pool_setting(settings, adapter))
    except (ConfigurationError, TypeError, ValueError):
        pooling = True  # the options are invalid, which is reported where the pool is made
    defaults = {} if pooling else {"release": "request"}
    try:
        return load_policy(policy, **defaults)
    except ConfigurationError as error:
        code = "relet.E004" if isinstance(policy, str) else "relet.E003"
        raise OptionError(alias, "'OPTIONS']['policy'", error, code) from error
