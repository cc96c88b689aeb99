"""django.contrib.postgres without psycopg.

In ``INSTALLED_APPS``, replace ``"django.contrib.postgres"`` with::

    "relet.backends.compat.django_on_pg8000.contrib.PostgresConfig"

If psycopg is installed, both are the same.
"""

from __future__ import annotations

from typing import Any

from . import import_hook

import_hook.provide()

import django.contrib.postgres  # noqa: E402
from django.contrib.postgres.apps import PostgresConfig as DjangoConfig  # noqa: E402


class PostgresConfig(DjangoConfig):
    """Django's own app configuration, with the same name and label."""

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__("django.contrib.postgres", django.contrib.postgres)
