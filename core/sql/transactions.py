"""Transactions: the SQL that begins them."""

from __future__ import annotations

from .quoting import quote_literal


def begin(isolation_level: str | None, read_only: bool | None, deferrable: bool | None) -> str:
    """Return the statement that begins a transaction; None leaves a mode to the session.

    https://www.postgresql.org/docs/current/sql-begin.html

    :param isolation_level: its SQL, or with underscores for the spaces.
    """
    words = ["BEGIN"]
    if isolation_level is not None:
        words.append(f"ISOLATION LEVEL {isolation_level.replace('_', ' ')}")
    if read_only is not None:
        words.append("READ ONLY" if read_only else "READ WRITE")
    if deferrable is not None:
        words.append("DEFERRABLE" if deferrable else "NOT DEFERRABLE")
    return " ".join(words)


def name_session(name: str) -> str:
    """Return the statement that names the session until the transaction's end.

    It takes no snapshot, so that ``SET TRANSACTION`` may follow.
    """
    return f"SET LOCAL application_name = {quote_literal(name)}"
