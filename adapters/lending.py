"""Lending: connections that other code takes from the pool itself, and what it leaves on them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from relet.core import PoolAdapter, PooledConnection
from relet.core.restoring import read_baseline, restore
from relet.core.sql.effects import Kind


def lend(adapter: PoolAdapter[Any], raw: Any, connection: PooledConnection) -> None:
    """Prepare a connection for other code. If no lease has had it yet, read its baseline."""
    if connection.baseline is None:
        # If it is broken, the borrower finds out.
        with suppress(adapter.dbapi.Error):  # type: ignore[attr-defined]
            connection.baseline = read_baseline(adapter, raw)


def restored(adapter: PoolAdapter[Any], raw: Any, connection: PooledConnection) -> bool:
    """Restore a session that other code has used; return whether that succeeded.

    :param raw: a connection without an open transaction.
    """
    connection.tracked_settings = None
    try:
        return restore(adapter, raw, connection.baseline, frozenset({Kind.UNKNOWN}))
    # UnicodeError: the client_encoding lacks a character of the statement.
    except (adapter.dbapi.Error, UnicodeError):  # type: ignore[attr-defined]
        return False
