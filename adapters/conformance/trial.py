"""Trial: the rules, tried on one adapter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings

from relet.core import PoolAdapter

from . import rules, striking, waiting  # noqa: F401 - they register the rules, in this order
from .bench import Bench, Broken, Call
from .machine import run_machine
from .patience import patience
from .report import Report
from .rule import RULES, Rule

#: Seconds after which a rule counts as hanging. On a busy machine some that do not take ten.
RULE_SECONDS = 60.0
#: Seconds after which no more rules are tried on an adapter that has broken one.
BROKEN_SECONDS = 45.0
#: Seconds that the state machine may take.
MACHINE_SECONDS = 300.0
MACHINE = Broken.rule

#: Added to what was seen if a rule holds with the other three methods.
_BY_LEASES = (
    "\n    That was by checkout_into(), checkin_from() and discard_from(), which leases call; by "
    "checkout(), checkin() and discard(), the rule holds."
)


class Trial:
    """Tries the rules on one adapter, one after another."""

    def __init__(
        self,
        adapter: type[PoolAdapter[Any]],
        parameters: Mapping[str, Any],
        tell: Callable[[str], object],
    ) -> None:
        self._adapter = adapter
        self._parameters = parameters
        self._tell = tell
        self._began = time.monotonic()
        self.report = Report(adapter.__qualname__)

    def run(
        self,
        names: Collection[str] | None,
        settings: hypothesis_settings | None,
        *,
        shrink: bool,
    ) -> Report:
        """Try the rules with these *names*, or all; return the report."""
        patience.renew()
        known = [*(rule.name for rule in RULES), MACHINE]
        if unknown := set(names or ()).difference(known):
            raise ValueError(f"no such rule: {', '.join(sorted(unknown))}")
        wanted = known if names is None else [name for name in known if name in names]
        checks = {rule.name: rule for rule in RULES}
        for number, name in enumerate(wanted, 1):
            if why := self._why_not(checks.get(name)):
                self.report.left_out[name] = why
                continue
            self._tell(f"{self._adapter.__qualname__}, {number} of {len(wanted)}: {name}")
            if name == MACHINE:
                seen = self._try_machine(settings, shrink=shrink)
            else:
                seen = self._try(checks[name])
            if seen is None:
                self.report.held.append(name)
            else:
                self.report.broken[name] = seen
        return self.report

    def _why_not(self, rule: Rule | None) -> str | None:
        """Return why *rule*, or the machine, is not tried; None if it is."""
        if self.report.broken:
            if rule is None:
                return "others are broken"
            if self._left() <= 0:
                return f"{BROKEN_SECONDS:g} s were over"
        if rule is not None and (why := rule.left_out(self._adapter)):
            return why
        return None

    def _left(self) -> float:
        return self._began + BROKEN_SECONDS - time.monotonic()

    def _try(self, rule: Rule) -> str | None:
        """Return how *rule* is broken; None if it holds."""
        seconds = RULE_SECONDS
        if self.report.broken:
            seconds = min(seconds, max(1.0, self._left()))
        for leases in (False, True) if rule.both_ways else (True,):
            try:
                with Bench(self._adapter, self._parameters, leases=leases) as bench:
                    if rule.in_main_thread:
                        rule.check(bench)
                    else:
                        Call(partial(rule.check, bench)).result(seconds)
            except Exception as error:  # noqa: BLE001 - whatever an adapter raises
                how = _BY_LEASES if leases and rule.both_ways else ""
                return f"{rule.text}\n    {_seen(error)}{how}"
        return None

    def _try_machine(self, settings: hypothesis_settings | None, *, shrink: bool) -> str | None:
        """Return how the machine fails, with the steps; None if it does not."""
        if settings is None:
            settings = hypothesis_settings(max_examples=50, stateful_step_count=30)
        phases = settings.phases
        if not shrink:
            phases = tuple(set(phases) - {Phase.shrink, Phase.explain})
        settings = hypothesis_settings(
            settings,
            deadline=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        call = Call(lambda: run_machine(self._adapter, self._parameters, settings))
        try:
            call.result(threading.TIMEOUT_MAX if shrink else MACHINE_SECONDS)
        except Exception as error:  # noqa: BLE001 - an adapter's, or Hypothesis' "flaky"
            return "\n    ".join([_seen(error), *getattr(error, "__notes__", ())])
        return None


def _seen(error: Exception) -> str:
    return str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
