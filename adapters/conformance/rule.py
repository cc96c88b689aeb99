"""Rule: what an adapter is to keep, and what shows whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .bench import Bench


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what it says, and what raises `Broken` when it is not kept."""

    name: str
    text: str
    check: Callable[[Bench], None]


#: All of them, in the order in which they are tried.
RULES: list[Rule] = []


def rule(name: str, text: str) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Enter the decorated function as the check of a rule."""

    def register(check: Callable[[Bench], None]) -> Callable[[Bench], None]:
        RULES.append(Rule(name, text, check))
        return check

    return register
