"""Run relet's conformance kit."""

from relet_stack.adapter import StackAdapter

from relet.adapters.conformance import run_conformance_test


def test_conformance():
    run_conformance_test(StackAdapter)
