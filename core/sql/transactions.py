"""Transactions: the SQL that begins them, and what may come before their first query."""

from __future__ import annotations

import re

from .quoting import quote_literal

_PREPARES = re.compile(
    r"\s*(?:set|show|begin|start|lock|savepoint|release)\b[^;]*;?\s*\Z", re.IGNORECASE
)


def only_prepares(sql: str) -> bool:
    """Return whether *sql* only prepares the queries that follow.

    It calls nothing that is defined in the database, and may have to come before the transaction's
    first query, such as ``SET TRANSACTION`` and ``LOCK``.
    https://www.postgresql.org/docs/current/sql-set-transaction.html
    """
    return _PREPARES.match(sql) is not None


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
