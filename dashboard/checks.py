"""System checks of the app."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from . import home


def install() -> None:
    """Register the checks with Django."""
    checks.register(check_home, "relet")


def check_home(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return what is wrong with the setting, and with the alias that is to have the tables."""
    try:
        alias = home.alias()
        vendor = connections[alias].vendor
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="relet.E020")]
    if vendor != "postgresql":
        return [
            checks.Error(
                f"The tables of relet.dashboard are on the alias {alias!r}, which is {vendor}. "
                f"Set {home.SETTING} = {{'alias': ...}} to an alias on PostgreSQL.",
                id="relet.E020",
            )
        ]
    return []
