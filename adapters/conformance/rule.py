"""Rule: what an adapter is to keep, and what shows whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relet.core import PoolAdapter

from .bench import Bench


def _never(adapter: type[PoolAdapter[Any]]) -> None:
    """No reason: it is always tried."""


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what it says, and what raises `Broken` when it is not kept.

    :param left_out: returns why it cannot be tried on an adapter; None if it can.
    :param in_main_thread: where it is to run; else in a thread of its own, for it may never return.
    """

    name: str
    text: str
    check: Callable[[Bench], None]
    left_out: Callable[[type[PoolAdapter[Any]]], str | None] = _never
    in_main_thread: bool = False


#: All of them, in the order in which they are tried.
RULES: list[Rule] = []


def rule(
    name: str, text: str, **more: Any
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Enter the decorated function as the check of a rule; *more* is the `Rule`'s."""

    def register(check: Callable[[Bench], None]) -> Callable[[Bench], None]:
        RULES.append(Rule(name, text, check, **more))
        return check

    return register
