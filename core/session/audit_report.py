"""AuditReport: what audits of session state have found, as rows, as a dict, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: After how many a report has no more.
MAX_FINDINGS = 1000


@dataclass(frozen=True)
class AuditFinding:
    """A statement that leaves session state which its text does not show.

    No field has a value of a statement, of a parameter or of a setting in it.

    :param sql: the statement's text, without its values.
    :param alias: the key in ``DATABASES``.
    :param engine: its ``ENGINE``.
    :param kind: the kind of state, the value of a `relet.core.Kind`.
    :param name: what the state is called, such as the name of the setting. It is empty where the
        name may be a value.
    :param place: the first line of the project's code that ran it, as ``file:line``.
    :param sure: whether the state outlives its transaction. It is false for what was seen inside a
        test's transaction and may be local to it.
    """

    sql: str
    alias: str
    engine: str
    kind: str
    name: str
    place: str
    sure: bool = True

    @property
    def key(self) -> tuple[str, str, str]:
        """What is reported once."""
        return self.alias, self.sql, self.kind

    def __str__(self) -> str:
        named = f" ({self.name})" if self.name else ""
        doubt = "" if self.sure else ", if it is not local to the transaction"
        return f"{self.kind}{named}{doubt}: {self.sql}\n    {self.place} on {self.alias!r}"


@dataclass(frozen=True)
class AuditReport:
    """What audits of session state have found.

    :param rows: what was found, in the order in which it was.
    :param audited: alias -> ``ENGINE``, of those that were audited.
    """

    rows: tuple[AuditFinding, ...] = ()
    audited: Mapping[str, str] = field(default_factory=dict)

    @property
    def sure(self) -> tuple[AuditFinding, ...]:
        """The rows that are beyond doubt."""
        return tuple(row for row in self.rows if row.sure)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {"audited": dict(self.audited), "rows": [asdict(row) for row in self.rows]}

    def as_table(self) -> str:
        """Return the rows as a table."""
        lines = [("ALIAS", "ENGINE", "KIND", "NAME", "PLACE", "SQL")]
        lines += [
            (
                *(row.alias, row.engine, row.kind if row.sure else f"{row.kind}?"),
                *(row.name, row.place, row.sql),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def __str__(self) -> str:
        if not self.audited:
            return (
                "No lease was audited: no database with a relet engine was used, or each was in "
                "use before the audit began."
            )
        where = ", ".join(f"{alias!r} ({engine})" for alias, engine in self.audited.items())
        if not self.rows:
            return f"relet saw all session state on {where}."
        count = "1 statement" if len(self.rows) == 1 else f"{len(self.rows)} statements"
        found = "\n".join(f"- {row}" for row in self.rows)
        return f"{count} on {where} left session state that relet did not see:\n{found}"


def merged(rows: Iterable[AuditFinding]) -> tuple[AuditFinding, ...]:
    """Return *rows*, each statement and kind once. What is sure comes before what is not."""
    found: dict[tuple[str, str, str], AuditFinding] = {}
    for row in rows:
        if row.key not in found or (row.sure and not found[row.key].sure):
            found[row.key] = row
    return tuple(found.values())
