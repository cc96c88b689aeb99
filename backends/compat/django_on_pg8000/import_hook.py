"""Modules of Django's that cannot be imported without psycopg, where there is none.

Other code imports them, too: the fields of django.contrib.postgres, for one. They are Django's
own, run with `psycopg_shim` in the place of psycopg; and Django's module of what differs between
drivers is `psycopg_shim.psycopg_any`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .django_backend import PARTS, imports
from .psycopg_shim import psycopg_any

_ANY = "django.db.backends.postgresql.psycopg_any"
#: Modules of django.contrib.postgres that import psycopg.
_CONTRIB = ("django.contrib.postgres.search", "django.contrib.postgres.signals")


class _Finder(MetaPathFinder, Loader):
    """Finds modules that cannot be imported without psycopg, with `psycopg_shim` in its place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in (_ANY, *PARTS, *_CONTRIB) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return imports.load(spec.name) if spec.name in PARTS else None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == _ANY:
            vars(module).update(vars(psycopg_any))
        else:
            imports.load(module.__name__, module)


def _can_import(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False  # it is not installed, or libpq is not
    return True


def provide() -> None:
    """Have those modules found, if neither psycopg nor psycopg2 can be imported."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if not _can_import("psycopg") and not _can_import("psycopg2"):
        sys.meta_path.insert(0, _Finder())
