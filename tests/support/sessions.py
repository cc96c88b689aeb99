"""Sessions of the server: found, waited for and ended through a connection beside theirs."""

from __future__ import annotations

from typing import Any

from .driver import execute
from .waiting import until


def pid_of(raw: Any) -> int:
    """The server process of *raw*, a connection of a driver."""
    return int(execute(raw, "SELECT pg_backend_pid()").fetchone()[0])


def kill(observer: Any, pid: int) -> None:
    """End a server process, and wait until it is gone."""
    execute(observer, "SELECT pg_terminate_backend(%s, 5000)", [pid])


def until_true(observer: Any, sql: str, *parameters: Any) -> None:
    """Wait until the server says that *sql* is true."""
    until(lambda: execute(observer, f"SELECT ({sql})", parameters or None).fetchone()[0])
