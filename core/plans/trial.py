"""Trial: generic and custom plans in turn, to find out which of them is faster.

The first executions of a session, which have custom plans, come at another time than the later ones
and may have been faster for other reasons. So they only raise a suspicion. In the trial, both kinds
take turns, and their medians decide.
"""

from __future__ import annotations

#: How many executions of each kind a trial has.
_EACH = 15
#: By how much the generic plan must be slower, in times and in seconds. Below that, the difference
#: may be what forcing a plan costs.
TIMES, SECONDS = 1.5, 100e-6


class Trial:
    """Executions of one target, in turn with a custom plan and as the server chooses.

    Threads may run it at the same time; then they take turns less strictly.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._spent: dict[str, list[float]] = {"custom": [], "auto": []}

    def next_mode(self) -> str:
        """Return how to run the next execution: "custom" or "auto"."""
        self._turn += 1
        return "custom" if self._turn % 2 else "auto"

    def add(self, mode: str, seconds: float) -> None:
        """Add an execution as *mode*, which took so long."""
        self._spent[mode].append(seconds)

    @property
    def ended(self) -> bool:
        return all(len(each) >= _EACH for each in self._spent.values())

    @property
    def medians(self) -> tuple[float, float]:
        """What an execution took, in seconds: with a custom plan, and as the server chooses."""
        # Not at the top: it imports a good deal, and few targets are ever tried.
        from statistics import median

        return median(self._spent["custom"]), median(self._spent["auto"])


def is_slower(generic: float, custom: float) -> bool:
    """Return whether *generic* is slower than *custom* by more than a trial can be wrong."""
    return generic > TIMES * custom and generic - custom > SECONDS
