"""Quoting: names and strings as they are written in SQL."""

from __future__ import annotations


def quote_identifier(name: str) -> str:
    """Return *name* as a quoted identifier."""
    return '"' + str.replace(name, '"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return *text* as a string literal, read the same whatever the session's settings are."""
    # With E, a backslash is the same whatever standard_conforming_strings is set to.
    escaped = str.replace(text, "\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
