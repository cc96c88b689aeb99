"""django.contrib.postgres where there is no psycopg.

In `INSTALLED_APPS`, in the place of ``"django.contrib.postgres"``::

    "relet.backends.postgresql_pg8000.contrib.PostgresConfig"

Where psycopg is installed, it is the same as that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .djangos import imports
from .stand_in import psycopg_any

_ANY = "django.db.backends.postgresql.psycopg_any"
#: Modules of django.contrib.postgres that import psycopg.
_CONTRIB = ("django.contrib.postgres.search", "django.contrib.postgres.signals")


class _Finder(MetaPathFinder, Loader):
    """Finds modules that cannot be imported without psycopg, with `stand_in` in its place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in (_ANY, *_CONTRIB) else None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == _ANY:
            vars(module).update(vars(psycopg_any))
        else:
            imports.load(module.__name__, module)


def _has_psycopg() -> bool:
    for name in "psycopg", "psycopg2":
        try:
            if find_spec(name) is not None:
                __import__(name)
                return True
        except (ImportError, ValueError):
            continue  # without libpq, say
    return False


def provide() -> None:
    """Have Django's modules imported that need psycopg, where there is none."""
    if not _has_psycopg() and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


provide()

from django.contrib.postgres.apps import PostgresConfig as DjangosConfig  # noqa: E402


class PostgresConfig(DjangosConfig):
    """Django's own, of the same name and label."""

    def __init__(self, app_name: str, app_module: Any) -> None:
        import django.contrib.postgres

        super().__init__("django.contrib.postgres", django.contrib.postgres)
