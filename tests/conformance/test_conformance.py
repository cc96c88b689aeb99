"""The conformance kit: relet's own adapters pass, faulty ones are told what is wrong."""

from __future__ import annotations

import pytest
from faults import FAULTS
from hypothesis import Phase, settings

from relet.adapters.conformance import ConformanceError, bench, run_conformance_test
from relet.core import registry

#: Without finding the shortest example, each step of which waits for what never comes.
QUICK = settings(max_examples=200, database=None, phases=[Phase.generate])


def ready() -> list[str]:
    return [name for name, spec in registry.specs().items() if not registry.missing(spec)]


@pytest.mark.parametrize("name", ready())
def test_conformance(name: str, conformance_server: None) -> None:
    run_conformance_test(registry.load(name))


@pytest.mark.parametrize("adapter", FAULTS, ids=lambda adapter: adapter.__name__)
# What a faulty adapter has lost is closed by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_fault_is_found_and_named(adapter, conformance_server, monkeypatch):
    monkeypatch.setattr(bench, "PATIENCE", 1.0)
    with pytest.raises(ConformanceError) as caught:
        run_conformance_test(adapter, settings=QUICK)
    rule = FAULTS[adapter]
    assert rule in caught.value.broken
    assert str(caught.value).startswith(f"{adapter.__qualname__} breaks ")
    assert f"\n  {rule}: " in str(caught.value)
