"""A database by its URI, as Django's settings have it: for commands without a project."""

from __future__ import annotations

import getpass
import os
from importlib.util import find_spec
from typing import Any

from relet.core.dsn import parameters_of

from .credentials import SETTINGS


def database_of(dsn: str) -> dict[str, Any]:
    """Return ``DATABASES[alias]`` for *dsn*, a libpq URI; without a name, that of libpq's default.

    The engine is Django's own; where there is no driver for it, that of pg8000 without a pool.

    :raises ValueError: *dsn* is no such URI.
    """
    parameters = parameters_of(dsn)
    database: dict[str, Any] = {
        setting: parameters.pop(name, "") for name, setting in SETTINGS.items()
    }
    # Django lets no other than a service say which database it is.
    if service := parameters.get("service") or os.environ.get("PGSERVICE"):
        parameters["service"] = service
    elif not database["NAME"]:
        found = os.environ.get("PGDATABASE") or database["USER"] or os.environ.get("PGUSER")
        database["NAME"] = found or _user()
    database["OPTIONS"] = parameters
    database["ENGINE"] = "django.db.backends.postgresql"
    if not (find_spec("psycopg") or find_spec("psycopg2")):
        database["ENGINE"] = "relet.backends.compat.django_on_pg8000"
    return database


def _user() -> str:
    """Return the name of the system's user, after whom libpq names the role and the database."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # it has none, as in many containers
        return "postgres"
