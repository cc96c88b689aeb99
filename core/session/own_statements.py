"""The names of what relet itself prepares, which is for all leases and no session state."""

from __future__ import annotations

#: What they begin with.
PREFIX = "relet_plan_"


def is_foreign(column: str) -> str:
    """Return SQL that is true if *column*, the name of a prepared statement, is not one of them."""
    # No LIKE, because the meaning of a backslash in it depends on the session.
    return f"pg_catalog.left({column}, {len(PREFIX)}) <> '{PREFIX}'"
