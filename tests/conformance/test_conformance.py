"""relet's own adapters, and those of plugins that are installed, keep the rules."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from relet.adapters.conformance import run_conformance_test
from relet.core import registry

#: No more than the kit has by default: it gives the machine an end.
EXAMPLES = min(50, int(os.environ.get("RELET_EXAMPLES", "10")))


def ready() -> list[str]:
    return [name for name, spec in registry.specs().items() if not registry.missing(spec)]


@pytest.mark.parametrize("name", ready())
def test_conformance(name: str, conformance_server: None) -> None:
    machine = settings(max_examples=EXAMPLES, stateful_step_count=30)
    run_conformance_test(registry.load(name), settings=machine)
