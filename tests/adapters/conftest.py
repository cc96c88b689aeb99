"""Where the adapters' own tests connect to."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def parameters(server: dict[str, Any]) -> dict[str, str]:
    """Keyword arguments of a driver's ``connect()``, in libpq's words."""
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    names["PORT"] = "port"
    return {theirs: server[ours] for ours, theirs in names.items() if server[ours]}
