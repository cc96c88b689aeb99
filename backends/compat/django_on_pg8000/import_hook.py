"""An import hook for modules of Django that import psycopg, for use without psycopg.

Other code imports these modules too, such as the fields of django.contrib.postgres. They are
Django's modules, run with `psycopg_shim` in place of psycopg. Django's ``psycopg_any``, which hides
the differences between drivers, is replaced by `psycopg_shim.psycopg_any`.
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
    """A finder and loader of these modules."""

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
        return False  # the driver or libpq is not installed
    return True


def provide() -> None:
    """Install the import hook if neither psycopg nor psycopg2 can be imported."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if not _can_import("psycopg") and not _can_import("psycopg2"):
        sys.meta_path.insert(0, _Finder())
