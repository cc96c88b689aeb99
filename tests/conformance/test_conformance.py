"""relet's own adapters, and those of plugins that are installed, keep the rules."""

from __future__ import annotations

import pytest

from relet.adapters.conformance import run_conformance_test
from relet.core import registry


def ready() -> list[str]:
    return [name for name, spec in registry.specs().items() if not registry.missing(spec)]


@pytest.mark.parametrize("name", ready())
def test_conformance(name: str, conformance_server: None) -> None:
    run_conformance_test(registry.load(name))
