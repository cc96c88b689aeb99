"""Copies of settings."""

from __future__ import annotations

from typing import Any


def copy_settings(settings: Any) -> Any:
    """Return *settings* with dicts, lists and tuples copied, and what is in them as it is.

    There may be what cannot be copied: a connector, an `ssl.SSLContext`.
    """
    if type(settings) is dict:
        return {key: copy_settings(value) for key, value in settings.items()}
    if type(settings) in (list, tuple):
        return type(settings)(map(copy_settings, settings))
    return settings
