"""Matches: which targets match a statement that was run, for ``relet prepare --check``.

A target is only its text, so a change of a model or of a query leaves it behind, unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from relet.backends.report_folder import ReportFolder, entries
from relet.core.plans import Target

#: The folder to which a process and its children report.
REPORT_VARIABLE = "RELET_PREPARE_REPORT"

_FOLDER = ReportFolder(REPORT_VARIABLE)


@dataclass(frozen=True)
class Declaration:
    """What ``relet.prepare()`` was called for, and whether a statement was run that it matches.

    :param alias: the key in ``DATABASES``.
    :param name: its name, or a hash of its text.
    :param sql: its text without values; of a queryset, that of all its rows.
    :param matched: whether a statement was run that it matches; of a queryset, in any of the ways
        to run it.
    :param problem: why it is not prepared all the same; or "".
    """

    alias: str
    name: str
    sql: str
    matched: bool
    problem: str


def declared(targets: Sequence[Target]) -> None:
    """Report that *targets* were declared, by one call."""
    names = [(target.name, target.sql) for target in targets]
    _FOLDER.write({"alias": targets[0].alias, "declared": names})


def matched(target: Target) -> None:
    """Report that *target* matches a statement, and what became of it."""
    _FOLDER.write({"alias": target.alias, "matched": target.sql, "problem": target.problem})


def read_declarations(folder: str) -> list[Declaration]:
    """Return what processes have reported into *folder*, by alias and name."""
    return _together(list(entries(folder)))


def _together(found: Iterable[dict[str, Any]]) -> list[Declaration]:
    problems: dict[tuple[str, str], str] = {}
    for entry in found:
        if "matched" in entry:
            key = (entry["alias"], entry["matched"])
            problems[key] = problems.get(key) or entry["problem"]
    declarations = {}
    for entry in found:
        if "declared" in entry:
            alias, names = entry["alias"], entry["declared"]
            name, sql = names[0]
            known = [problems[alias, text] for _, text in names if (alias, text) in problems]
            problem = next(filter(None, known), "")
            declarations[alias, sql] = Declaration(alias, name, sql, bool(known), problem)
    return sorted(declarations.values(), key=lambda each: (each.alias, each.name))
