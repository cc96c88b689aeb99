"""Django's PostgreSQL backend, run with `psycopg_shim` in the place of psycopg."""

from __future__ import annotations

from typing import Any

from .imports import Imports
from .psycopg_shim import REPLACED

_BACKEND = "django.db.backends.postgresql"

#: What of it others import, too.
PARTS = tuple(
    f"{_BACKEND}.{name}"
    for name in ("creation", "features", "introspection", "operations", "schema")
)
imports = Imports(REPLACED, run=[f"{_BACKEND}.base", *PARTS])

base: Any = imports.load(f"{_BACKEND}.base")
