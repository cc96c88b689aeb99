"""System checks: what is wrong in ``DATABASES``, before the first connection is asked for.

https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core import checks
from django.db import connections

from . import options
from .leasing import Leasing


def check_databases(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return an error for each wrong option of each alias that has a relet engine."""
    messages: list[checks.CheckMessage] = []
    for wrapper in connections.all():
        if isinstance(wrapper, Leasing):
            alias, settings = wrapper.alias, wrapper.settings_dict
            messages += _errors(options.check_max_age, alias, settings)
            messages += _errors(options.pool_options, alias, settings, wrapper.adapter_class)
            messages += _errors(options.release_policy, alias, settings)
    return messages


def _errors(rule: Callable[..., object], *arguments: object) -> list[checks.CheckMessage]:
    try:
        rule(*arguments)
    except options.OptionError as error:
        return [checks.Error(str(error), id=error.code)]
    return []
