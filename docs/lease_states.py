"""Write docs/lease-states.md from the tables of relet.core.lease.

python docs/lease_states.py            write it
python docs/lease_states.py --check    exit 1 if it is not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from relet.core.lease import CONDITIONS, STATEMENT_MODE, TABLES, Action, Event, Hold, State, Table
from relet.core.status import TransactionStatus

PAGE = Path(__file__).with_name("lease-states.md")

INTRODUCTION = """\
<!-- Written by docs/lease_states.py from relet.core.lease. Do not edit. -->

# Lease states

A lease is one connection, checked out for one Django `DatabaseWrapper`. These are all of
its states, and all that can happen to it. The tables are the code: relet runs on them,
and this page is generated from them. An event that has no cell raises
{class}`~relet.core.IllegalEvent` and changes nothing. [](how-it-works.md) says what the
words mean.
"""

DIAGRAM = """\
## The statement mode, drawn

Each arrow is labelled *event / action*. What happens in almost every state is left out
here, and is in the table: *close*, *abandon* (the owner's thread is dead), *fork* (this
process is a child), and events that change nothing.
"""

#: They would draw an arrow from everywhere to `resting`.
NOT_DRAWN = {Event.CLOSE, Event.ABANDON, Event.FORK}

CONDITION = """\
## What a statement left behind

When a statement has run, the event is read off the driver's transaction status, and off
who, beside the server, still needs the connection.
"""

MODE = {
    "statement": "The lease ends when the statement does.",
    "cursor": "The lease ends when the last cursor that ran a statement on it is closed.",
    "request": "The lease ends with `close()`, as in Django.",
}


def page() -> str:
    parts = [INTRODUCTION, DIAGRAM, *diagram(STATEMENT_MODE), "", CONDITION, *conditions()]
    for mode, table in TABLES.items():
        parts += ["", f"## Mode `{mode}`\n", MODE[mode] + differences(table), "", *moves(table)]
    return "\n".join(parts) + "\n"


def diagram(table: Table) -> Iterator[str]:
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), (target, action) in table.items():
        if event in NOT_DRAWN or (target is state and action is Action.NOTHING):
            continue
        label = event.value if action is Action.NOTHING else f"{event.value} / {action.value}"
        arrows.setdefault((state, target), []).append(label)
    yield "```{mermaid}"
    yield "stateDiagram-v2"
    for state in State:
        yield f'    state "{state.value}" as {state.name}'
    yield f"    [*] --> {State.RELEASED.name}"
    for (state, target), labels in arrows.items():
        yield f"    {state.name} --> {target.name}: {'<br/>'.join(labels)}"
    yield "```"


def conditions() -> Iterator[str]:
    names = {
        Hold.NOBODY: "nobody",
        Hold.DJANGO: "an `atomic()` block",
        Hold.PIN: "a pin",
        Hold.STATE: "session state, `hold()`",
        Hold.UNDO: "nobody; session state is to be undone",
    }
    yield from grid(
        "transaction status",
        [names[hold] for hold in Hold],
        {
            f"`{status.name}`": [CONDITIONS[status, hold].value for hold in Hold]
            for status in TransactionStatus
        },
    )


def differences(table: Table) -> str:
    changed = any(table[key] != STATEMENT_MODE[key] for key in STATEMENT_MODE)
    return " What differs from the statement mode is bold." if changed else ""


def moves(table: Table) -> Iterator[str]:
    def cell(state: State, event: Event) -> str:
        if (state, event) not in table:
            return ""
        target, action = table[state, event]
        text = target.value if action is Action.NOTHING else f"{target.value}; *{action.value}*"
        return text if table[state, event] == STATEMENT_MODE[state, event] else f"**{text}**"

    yield from grid(
        "event",
        [state.value for state in State],
        {event.value: [cell(state, event) for state in State] for event in Event},
    )


def grid(corner: str, columns: list[str], rows: dict[str, list[str]]) -> Iterator[str]:
    yield f"| {corner} | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    if not arguments:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE.name} is not current: run python docs/lease_states.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
