"""The server of all tests, for the kit."""

from __future__ import annotations

import pytest


@pytest.fixture
def conformance_server(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELET_TEST_DSN", server_uri)
