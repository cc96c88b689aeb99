"""Targets: the statements of an alias that are to be prepared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from relet.core.sql.fingerprint import normalized

from .counts import PlanCounts
from .trial import Trial

#: How the plan of a target is chosen. "auto" leaves it to the server, which plans the first five
#: executions in each session for their values, and then compares estimates; relet compares times.
PLANS = ("auto", "generic", "custom")

#: How many targets of an alias are found by themselves.
_MOST_FOUND = 1_000


@dataclass(eq=False)
class Target:
    """A statement that is to be prepared, whatever its values and the lengths of its lists.

    :param sql: its text without values; see `normalized`.
    :param plan: one of `PLANS`, as declared.
    :ivar mode: the plan in effect: "custom" once the generic plan was found to be slower.
    :ivar healed: how often an execution was run again, because its session's plan was no good.
    :ivar problem: the last error of preparing it, or why it is not prepared.
    :ivar trial: the trial of its plans that is under way.
    :ivar next_trial: after how many executions there may be another one.
    :ivar ended: the counts of sessions that have ended, and of plans that were dropped.
    """

    alias: str
    name: str
    sql: str
    plan: str = "auto"
    mode: str = "auto"
    healed: int = 0
    problem: str = ""
    ended: PlanCounts = field(default_factory=PlanCounts)
    trial: Trial | None = None
    next_trial: int = 0

    def __post_init__(self) -> None:
        self.mode = self.plan

    def forked(self) -> None:
        """Count from 0, in a forked child. Which plan is slower stays known."""
        self.ended, self.healed, self.trial, self.next_trial = PlanCounts(), 0, None, 0

    def next_mode(self) -> str:
        """Return the plan for the next execution that has parameters."""
        trial = self.trial
        return self.mode if trial is None else trial.next_mode()


class Targets:
    """The targets of an alias, by the shape of their text."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._by_shape: dict[str, Target] = {}
        self._found = 0

    def __iter__(self) -> Iterator[Target]:
        return iter(list(self._by_shape.values()))

    def __len__(self) -> int:
        return len(self._by_shape)

    def add(self, sql: str, name: str | None, plan: str) -> Target:
        """Add a target for *sql*, or change the one of its shape."""
        shape = normalized(sql)
        target = self._by_shape.get(shape)
        if target is None:
            target = Target(self.alias, name or default_name(shape), shape, plan)
            return self._by_shape.setdefault(shape, target)
        target.name = name or target.name
        target.plan = target.mode = plan
        return target

    def find(self, sql: str) -> Target | None:
        """Return the target of the text *sql*, if it is one."""
        return self._by_shape.get(normalized(sql)) if self._by_shape else None

    def found(self, sql: str) -> Target | None:
        """Return the target of *sql*, which is run often; None if there are too many."""
        target = self.find(sql)
        if target is None and self._found < _MOST_FOUND:
            self._found += 1
            target = self.add(sql, None, "auto")
        return target


def default_name(shape: str) -> str:
    """Return the name of a target that was given none: the same in each process."""
    return blake2b(shape.encode(), digest_size=4).hexdigest()
