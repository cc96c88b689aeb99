"""The kit finds the fault of each faulty adapter, and names the rule that it breaks."""

from __future__ import annotations

import pytest
from faults import FAULTS
from hypothesis import Phase, settings

from relet.adapters.conformance import ConformanceError, bench, run_conformance_test

#: Without looking for the shortest example, each step of which waits for what never comes.
QUICK = settings(
    max_examples=200, database=None, phases=[Phase.generate], report_multiple_bugs=False
)


@pytest.mark.parametrize("adapter", FAULTS, ids=lambda adapter: adapter.__name__)
# What a faulty adapter has lost is closed by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("garbage")
def test_a_fault_is_found_and_named(adapter, conformance_server, monkeypatch):
    monkeypatch.setattr(bench, "PATIENCE", 0.5)
    with pytest.raises(ConformanceError) as caught:
        run_conformance_test(adapter, settings=QUICK)
    rule = FAULTS[adapter]
    assert rule in caught.value.broken
    assert str(caught.value).startswith(f"{adapter.__qualname__} breaks ")
    assert f"\n  {rule}: " in str(caught.value)


def test_there_are_enough_of_them():
    assert len(FAULTS) >= 12
    assert len(set(FAULTS.values())) >= 12
