"""The kit finds the fault of each faulty adapter, and names the rule that it breaks."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from faults import (
    FAULTS,
    DoesNotCountWhoWaits,
    DoesNotSayWhenItWorked,
    HandsOutWhatIsCheckedOut,
    LosesAPlaceNowAndThen,
    TextIsBytes,
)
from hypothesis import Phase, settings

from relet.adapters.conformance import ConformanceError, run_conformance_test, trial
from relet.adapters.conformance.patience import Patience
from relet.adapters.conformance.rule import RULES
from relet.adapters.sqlalchemy import SQLAlchemyAdapter
from relet.core import PoolAdapter

#: What it takes to find the one that no single rule shows.
MANY = settings(max_examples=200, database=None)

pytestmark = [
    pytest.mark.slow,
    # What a faulty adapter has lost is closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("garbage", "conformance_server"),
]


#: Of these rules none is left out.
all_rules = pytest.mark.skipif(
    sys.version_info[:2] == (3, 11), reason="on CPython 3.11 the rule about handovers is left out"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "LONG", 0.5)


@pytest.mark.parametrize(
    "adapter",
    [
        pytest.param(adapter, marks=[all_rules] if rule == "handover" else [])
        for adapter, rule in FAULTS.items()
    ],
    ids=lambda adapter: adapter.__name__,
)
def test_a_fault_is_found_and_named(adapter):
    rule = FAULTS[adapter]
    with pytest.raises(ConformanceError) as caught:
        run_conformance_test(adapter, settings=MANY, rules=[rule])
    assert list(caught.value.broken) == [rule]
    assert str(caught.value).startswith(f"{adapter.__qualname__} breaks a rule of ")
    assert f"\n  {rule}: " in str(caught.value)


def test_there_are_enough_of_them():
    assert len(FAULTS) >= 12
    assert len(set(FAULTS.values())) >= 12


@all_rules
@pytest.mark.parametrize("adapter", [HandsOutWhatIsCheckedOut, DoesNotCountWhoWaits])
def test_all_are_tried_whatever_is_broken(adapter):
    with pytest.raises(ConformanceError) as caught:
        run_conformance_test(adapter)
    error = caught.value
    assert {*error.held, *error.broken} == {rule.name for rule in RULES}


@all_rules
def test_what_held_is_told_and_the_machine_waits_for_that(monkeypatch):
    monkeypatch.setattr(Patience, "LONG", 10.0)  # nothing is waited for in vain
    told: list[str] = []
    with pytest.raises(ConformanceError) as caught:
        run_conformance_test(TextIsBytes, tell=told.append)
    error = caught.value
    assert list(error.broken) == ["facts"]
    assert error.held == [rule.name for rule in RULES if rule.name != "facts"]
    assert error.left_out == {"machine": "others are broken"}
    assert f"{len(error.held)} held: options, " in str(error)
    assert "1 broken: facts." in str(error)
    assert "1 not tried, because others are broken: machine." in str(error)
    assert len(told) == len(RULES)
    assert told[1] == f"TextIsBytes, 2 of {len(RULES) + 1}: options"


def test_what_holds_is_told_too():
    told: list[str] = []
    run_conformance_test(DoesNotSayWhenItWorked, rules=["order", "counts"], tell=told.append)
    assert told[-1].startswith("DoesNotSayWhenItWorked keeps 2 rules of PoolAdapter.")
    assert told[-1].endswith("2 held: counts, order.")


class NeverReturns(SQLAlchemyAdapter):
    """Nobody who asks for its numbers gets an answer."""

    def stats(self) -> Any:
        threading.Event().wait()


def test_it_ends_though_the_adapter_hangs(monkeypatch):
    """And what there was no time for is named."""
    monkeypatch.setattr(trial, "RULE_SECONDS", 1.0)
    monkeypatch.setattr(trial, "BROKEN_SECONDS", 3.0)
    with pytest.raises(ConformanceError) as caught:
        run_conformance_test(NeverReturns)
    error = caught.value
    assert "It did not return within 1 s." in error.broken["no pool"]
    assert {"facts", "options"} <= set(error.held)
    assert error.left_out["thread safety"] == "3 s were over"


@pytest.mark.parametrize("shrink", [False, True])
def test_the_shortest_steps_are_looked_for_if_asked(shrink, monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(trial, "run_machine", lambda *arguments: asked.append(arguments[-1]))
    run_conformance_test(LosesAPlaceNowAndThen, rules=["machine"], shrink=shrink)
    (found,) = asked
    assert (Phase.shrink in found.phases) is shrink
    assert Phase.generate in found.phases


def test_in_another_thread_the_rule_about_signals_is_left_out():
    told: list[str] = []

    def run() -> None:
        run_conformance_test(
            SQLAlchemyAdapter, rules=["facts", "interrupted waiter"], tell=told.append
        )

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    why = "1 not tried, because this is not the main thread: interrupted waiter."
    assert told[-1].endswith(why)


def test_what_is_no_adapter():
    with pytest.raises(TypeError, match="takes a subclass of PoolAdapter, not 7"):
        run_conformance_test(7)

    class Unfinished(PoolAdapter):
        pass

    with pytest.raises(TypeError, match=r"Unfinished lacks methods of PoolAdapter: .*checkin, "):
        run_conformance_test(Unfinished)


def test_a_rule_that_does_not_exist():
    with pytest.raises(ValueError, match="no such rule: ordre"):
        run_conformance_test(SQLAlchemyAdapter, rules=["ordre"])
