"""Report: which rules an adapter keeps, and which it breaks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """The result of each rule, by its name.

    :param adapter: the name of the adapter class.
    """

    adapter: str
    held: list[str] = field(default_factory=list)
    #: What was observed, for each broken rule.
    broken: dict[str, str] = field(default_factory=dict)
    #: Why each rule was not tried.
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        if not self.broken:
            return f"{self.adapter} keeps {_rules(len(self.held))} of PoolAdapter."
        return f"{self.adapter} breaks {_rules(len(self.broken))} of PoolAdapter."

    def __str__(self) -> str:
        parts = [self.headline]
        parts += [f"  {name}: {text}" for name, text in self.broken.items()]
        lines = [f"  {len(self.held)} held: {', '.join(self.held) or 'none'}."]
        if self.broken:
            lines.append(f"  {len(self.broken)} broken: {', '.join(self.broken)}.")
        for why in dict.fromkeys(self.left_out.values()):
            names = [name for name, other in self.left_out.items() if other == why]
            lines.append(f"  {len(names)} not tried, because {why}: {', '.join(names)}.")
        return "\n\n".join([*parts, "\n".join(lines)])


def _rules(count: int) -> str:
    return "a rule" if count == 1 else f"{count} rules"
