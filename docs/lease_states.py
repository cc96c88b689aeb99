"""Write docs/lease-states.md, and its picture, from the tables of relet.core.lease.

python docs/lease_states.py            write both
python docs/lease_states.py --check    exit 1 if they are not what would be written

The picture is drawn by Graphviz (`dot`), and is written only if what it shows has changed. So only
those who change the tables need Graphviz.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from relet.core.lease import CONDITIONS, STATEMENT_MODE, TABLES, Action, Event, Hold, State, Table
from relet.core.status import TransactionStatus

PAGE = Path(__file__).with_name("lease-states.md")
PICTURE = Path(__file__).parent / "_static" / "lease-states.svg"

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

When a statement has run, the event depends on the driver's transaction status, and on
what still needs the connection.
"""

MODE = {
    "statement": "The lease ends when the statement does.",
    "cursor": "The lease ends when the last cursor that ran a statement on it is closed.",
    "request": "The lease ends with `close()`, as in Django.",
}


def page() -> str:
    picture = f"```{{raw}} html\n:file: {PICTURE.relative_to(PAGE.parent).as_posix()}\n```"
    parts = [INTRODUCTION, DIAGRAM, picture, "", CONDITION, *conditions()]
    for mode, table in TABLES.items():
        parts += ["", f"## Mode `{mode}`\n", MODE[mode] + differences(table), "", *moves(table)]
    return "\n".join(parts) + "\n"


def drawing(table: Table) -> str:
    """Return *table* in the language of Graphviz."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), (target, action) in table.items():
        if event in NOT_DRAWN or (target is state and action is Action.NOTHING):
            continue
        label = event.value if action is Action.NOTHING else f"{event.value} / {action.value}"
        arrows.setdefault((state, target), []).append(label)
    lines = [
        "digraph {",
        "bgcolor=transparent; nodesep=0.25; ranksep=0.55;",
        'node [shape=box style=rounded fontname="sans-serif" fontsize=13 margin="0.2,0.1"];',
        'edge [fontname="sans-serif" fontsize=11 arrowsize=0.7];',
        "start [shape=point width=0.12];",
        f"start -> {State.RELEASED.name};",
    ]
    lines += [f'{state.name} [label="{state.value}"];' for state in State]
    for (state, target), labels in arrows.items():
        # "\l" ends a line that is set flush left.
        text = "".join(rf" {label} \l" for label in labels)
        lines.append(f'{state.name} -> {target.name} [label="{text}"];')
    return "\n".join([*lines, "}"])


def digest() -> str:
    """Return what the picture is known by: it changes with what is drawn."""
    return hashlib.sha256(drawing(STATEMENT_MODE).encode()).hexdigest()[:16]


def draw() -> None:
    """Write the picture, unless it shows these tables."""
    if is_drawn():
        return
    if shutil.which("dot") is None:
        sys.exit("The tables have changed. To draw them, install Graphviz: apt install graphviz")
    command = ["dot", "-Tsvg"]
    done = subprocess.run(
        command, input=drawing(STATEMENT_MODE), capture_output=True, text=True, check=True
    )
    svg = done.stdout[done.stdout.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\n?|<title>.*?</title>\n?", "", svg, flags=re.DOTALL)
    # It is put into the page, whose colour of text it has, by day and by night.
    svg = svg.replace('"black"', '"currentColor"').replace("<text ", '<text fill="currentColor" ')
    name = 'role="img" aria-label="The states of a lease, and what leads from one to another"'
    svg = re.sub(r'<svg width="(\d+)pt" height="\d+pt"', rf'<svg {name} width="\1pt"', svg, count=1)
    PICTURE.write_text(f'<!-- {digest()} -->\n<div class="diagram">\n{svg}</div>\n')


def is_drawn() -> bool:
    return PICTURE.exists() and PICTURE.read_text().startswith(f"<!-- {digest()} -->")


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
        draw()
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE.name} is not current: run python docs/lease_states.py", file=sys.stderr)
        return 1
    elif not is_drawn():
        print(f"{PICTURE.name} is not current: run python docs/lease_states.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
