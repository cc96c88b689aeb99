"""System checks: what is wrong in ``DATABASES``, before the first connection is asked for.

https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.core import checks
from django.db import connections

from . import options
from .leasing import Leasing


def check_databases(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return an error for each wrong option of each alias that has a relet engine."""
    return [
        message
        for wrapper in connections.all()
        if isinstance(wrapper, Leasing)
        for message in _check(wrapper)
    ]


def _check(wrapper: Leasing) -> Iterator[checks.CheckMessage]:
    alias, settings = wrapper.alias, wrapper.settings_dict
    yield from _errors(options.check_max_age, alias, settings)
    yield from _errors(options.pool_options, alias, settings, wrapper.adapter_class)
    yield from _errors(options.release_policy, alias, settings)


def _errors(rule: Callable[..., object], *arguments: object) -> list[checks.CheckMessage]:
    try:
        rule(*arguments)
    except options.OptionError as error:
        return [checks.Error(str(error), id=error.code)]
    return []
