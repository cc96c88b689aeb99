"""Django's PostgreSQL backend, run with `psycopg_shim` in place of psycopg."""

from __future__ import annotations

from typing import Any

from .imports import PatchedImports
from .psycopg_shim import REPLACED

_BACKEND = "django.db.backends.postgresql"

#: Its modules that other code imports too.
PARTS = tuple(
    f"{_BACKEND}.{name}"
    for name in ("creation", "features", "introspection", "operations", "schema")
)
imports = PatchedImports(REPLACED, run=[f"{_BACKEND}.base", *PARTS])

base: Any = imports.load(f"{_BACKEND}.base")
