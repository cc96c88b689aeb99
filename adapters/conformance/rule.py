"""Rule: what an adapter must do, and the check that shows whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relet.core import PoolAdapter

from .bench import Bench


def _never(adapter: type[PoolAdapter[Any]]) -> None:
    """Return no reason: the rule is always tried."""


@dataclass(frozen=True)
class Rule:
    """A rule: its name, its text, and a check that raises `Broken` if it is not kept.

    :param left_out: returns why the rule cannot be tried on an adapter; None if it can.
    :param in_main_thread: whether to run it there; by default it has a thread, as it may hang.
    :param both_ways: whether to run it twice: first with the adapter's `checkout`, `checkin` and
        `discard`, then with the methods that leases call. If not, leases' methods are used.
    """

    name: str
    text: str
    check: Callable[[Bench], None]
    left_out: Callable[[type[PoolAdapter[Any]]], str | None] = _never
    in_main_thread: bool = False
    both_ways: bool = True


#: All rules, in the order in which they are tried.
RULES: list[Rule] = []


def rule(
    name: str, text: str, **more: Any
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Add the decorated function as the check of a rule; *more* are fields of `Rule`."""

    def register(check: Callable[[Bench], None]) -> Callable[[Bench], None]:
        RULES.append(Rule(name, text, check, **more))
        return check

    return register
