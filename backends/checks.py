"""System checks: errors in ``DATABASES``, found before the first connection is opened.

https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from relet.backends.config.credentials import Credentials
from relet.core import (
    MissingDependency,
    RegistryError,
    UnknownAdapter,
    UnknownEngine,
    registry,
)

from .config import options
from .config.budget import pool_budget
from .config.observe import observe_options
from .config.policy import audit_mode_from_environment
from .config.prepare import prepare_options

if TYPE_CHECKING:
    from .wrapper.wrapper import LeasingWrapper


def check_databases(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return errors and warnings about plugins and about each alias with a relet engine."""
    messages: list[checks.CheckMessage] = [
        checks.Warning(problem, id="relet.W002") for problem in registry.problems()
    ]
    messages += _check_environment()
    leasing: list[LeasingWrapper] = []
    for alias in connections:
        try:
            wrapper: Any = connections[alias]
        except ImproperlyConfigured as error:
            messages += _check_engine(alias, error)
        else:
            if hasattr(wrapper, "adapter_class"):
                messages += _check(wrapper)
                leasing.append(wrapper)
    messages += _check_budgets(leasing)
    return messages


def _check_environment() -> Iterator[checks.CheckMessage]:
    try:
        audit_mode_from_environment()
    except ImproperlyConfigured as error:
        yield checks.Error(str(error), id="relet.E009")


def _check_engine(alias: str, error: BaseException) -> Iterator[checks.CheckMessage]:
    """Yield why the engine of *alias* cannot be imported, if relet raised that error."""
    cause: BaseException | None = error
    expected = (MissingDependency, RegistryError, UnknownAdapter, UnknownEngine)
    while cause is not None and not isinstance(cause, expected):
        cause = cause.__cause__
    if cause is not None:
        yield checks.Error(f"DATABASES[{alias!r}]['ENGINE']: {cause}", id="relet.E007")


def _check(wrapper: LeasingWrapper) -> Iterator[checks.CheckMessage]:
    alias, settings = wrapper.alias, wrapper.settings_dict
    yield from _errors(options.check_max_age, alias, settings)
    yield from _errors(options.check_health_checks, alias, settings)
    yield from _errors(options.check_tag, alias, settings)
    yield from _errors(observe_options, alias, settings)
    adapter = wrapper.adapter_class
    yield from _errors(prepare_options, alias, settings, adapter)
    for problem in options.ignored_settings(alias, settings, adapter):
        yield checks.Warning(problem, id="relet.W003")
    if wrong := _errors(options.pool_options, alias, settings, adapter):
        yield from wrong
        return
    for warning in options.pool_warnings(alias, settings, adapter):
        yield checks.Warning(warning, id="relet.W001")
    yield from _errors(pool_budget, alias, settings, adapter)
    yield from _errors(options.release_policy, alias, settings, adapter)
    yield from _errors(wrapper.get_connection_params)
    yield from _errors(Credentials, alias, settings)


def _check_budgets(wrappers: Iterable[LeasingWrapper]) -> Iterator[checks.CheckMessage]:
    """Yield each alias that gives another number to a budget which an alias before it has."""
    first: dict[tuple[object, ...], tuple[str, int]] = {}
    for wrapper in wrappers:
        alias, settings = wrapper.alias, wrapper.settings_dict
        try:
            budget = pool_budget(alias, settings, wrapper.adapter_class)
        except ImproperlyConfigured:
            continue  # told above
        if budget is None:
            continue
        database = [settings.get(key) or None for key in ("HOST", "PORT", "NAME")]
        found = (alias, budget.connections)
        other, connections = first.setdefault((budget.group, *map(str, database)), found)
        if connections != budget.connections:
            yield checks.Warning(
                f"DATABASES[{alias!r}]['OPTIONS']['budget'] and DATABASES[{other!r}]['OPTIONS']"
                f"['budget'] are one budget, the group {budget.group!r} in one database, but "
                f"'connections' is {budget.connections} in one and {connections} in the other. "
                "Give both the same number, or another group.",
                id="relet.W004",
            )


def _errors(rule: Callable[..., object], *arguments: object) -> list[checks.CheckMessage]:
    try:
        rule(*arguments)
    except options.OptionError as error:
        return [checks.Error(str(error), id=error.code)]
    except ImproperlyConfigured:
        pass  # Django reports it
    return []
