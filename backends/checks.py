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
        if not isinstance(wrapper, Leasing):
            continue
        alias, settings, adapter = wrapper.alias, wrapper.settings_dict, wrapper.adapter_class
        rules: tuple[Callable[[], object], ...] = (
            lambda: options.check_max_age(alias, settings),
            lambda: options.pool_options(alias, settings, adapter),
            lambda: options.release_policy(alias, settings),
        )
        for rule in rules:
            try:
                rule()
            except options.OptionError as error:
                messages.append(checks.Error(str(error), id=error.code))
    return messages
