"""django.contrib.postgres where there is no psycopg.

In `INSTALLED_APPS`, in the place of ``"django.contrib.postgres"``::

    "relet.backends.compat.django_on_pg8000.contrib.PostgresConfig"

Where psycopg is installed, it is the same as that.
"""

from __future__ import annotations

from typing import Any

from . import import_hook

import_hook.provide()

import django.contrib.postgres  # noqa: E402
from django.contrib.postgres.apps import PostgresConfig as DjangosConfig  # noqa: E402


class PostgresConfig(DjangosConfig):
    """Django's own, of the same name and label."""

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__("django.contrib.postgres", django.contrib.postgres)
