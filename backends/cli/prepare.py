"""``relet prepare --check``: runs a command, and reports targets of no use to it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from relet.backends.plans.matches import REPORT_VARIABLE, Declaration, read_declarations

from .running import CannotRun, run


def check(command: Sequence[str], *, json_file: Path | None = None) -> int:
    """Run *command* and print which targets match none of its statements; return the exit code.

    It is 1 if there are some, or no targets at all, and the command itself succeeds.

    :param json_file: also write the report there.
    """
    with tempfile.TemporaryDirectory(prefix="relet-prepare-") as folder:
        try:
            code = run(command, {REPORT_VARIABLE: folder})
        except CannotRun as error:
            print(f"relet prepare: {error}", file=sys.stderr)
            return error.code
        targets = read_declarations(folder)
    bad = [target for target in targets if not target.matched or target.problem]
    # Not on stdout, where the command's own output goes.
    print(f"relet prepare: {_report(targets, bad)}", file=sys.stderr)
    if json_file is not None:
        rows = [asdict(target) for target in targets]
        json_file.write_text(json.dumps({"targets": rows}, indent=2) + "\n", encoding="utf-8")
    return 1 if code == 0 and (bad or not targets) else code


def _report(targets: list[Declaration], bad: list[Declaration]) -> str:
    if not targets:
        return "no process of the command called relet.prepare()."
    if not bad:
        return f"all {len(targets)} targets match a statement that was run."
    lines = [f"{len(bad)} of {len(targets)} targets are of no use to what was run:"]
    for target in bad:
        why = target.problem if target.matched else "it matches no statement that was run"
        lines.append(f"  DATABASES[{target.alias!r}], target {target.name!r}: {why}.")
        lines.append(f"    {target.sql}")
    return "\n".join(lines)
