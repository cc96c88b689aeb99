"""PlanCounts: how often the plans of a target were run, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

#: Executions for whose values the server makes a plan, before it considers a generic one.
#: https://www.postgresql.org/docs/current/sql-prepare.html#SQL-PREPARE-NOTES
CUSTOM_RUNS = 5


@dataclass(slots=True)
class PlanCounts:
    """What executions of prepared statements took. Times are in seconds, as the client sees them.

    :ivar runs: executions.
    :ivar custom: executions with a plan made for their values, but for the first of each session,
        which includes the preparing.
    :ivar generic: executions with a plan made for any values, or chosen by the server to be so.
    """

    runs: int = 0
    custom: int = 0
    custom_total: float = 0.0
    generic: int = 0
    generic_total: float = 0.0

    def add_run(self, mode: str, seconds: float) -> None:
        """Count an execution.

        :param mode: "auto", "generic" or "custom". With "auto", the server makes custom plans for
            the first executions of a session.
        """
        self.runs = runs = self.runs + 1
        if mode != "custom" and (runs > CUSTOM_RUNS or mode != "auto"):
            self.generic += 1
            self.generic_total += seconds
        elif runs > 1:
            self.custom += 1
            self.custom_total += seconds

    def add(self, other: PlanCounts) -> None:
        """Add the counts of *other*."""
        self.runs += other.runs
        self.custom += other.custom
        self.custom_total += other.custom_total
        self.generic += other.generic
        self.generic_total += other.generic_total

    @property
    def custom_mean(self) -> float | None:
        return self.custom_total / self.custom if self.custom else None

    @property
    def generic_mean(self) -> float | None:
        return self.generic_total / self.generic if self.generic else None
