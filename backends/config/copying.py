"""Copying: copies settings that `copy.deepcopy` cannot copy."""

from __future__ import annotations

from typing import Any


def copy_settings(settings: Any) -> Any:
    """Return a copy of *settings*: dicts, lists and tuples are copied, other values are shared.

    Some values cannot be copied, such as a connector or an `ssl.SSLContext`.
    """
    if type(settings) is dict:
        return {key: copy_settings(value) for key, value in settings.items()}
    if type(settings) in (list, tuple):
        return type(settings)(map(copy_settings, settings))
    return settings
