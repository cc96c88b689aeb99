"""The server of all tests, for the kit."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest


@pytest.fixture
def conformance_server(server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    names["PORT"] = "port"
    libpq = {theirs: str(server[ours]) for ours, theirs in names.items() if server.get(ours)}
    monkeypatch.setenv("RELET_TEST_DSN", f"postgresql://?{urlencode(libpq)}")
