"""ReportFolder: a folder into which a process and its children report, for the one that asks them.

An environment variable names it, so that it reaches all of them. Each process writes lines of JSON
into a file of its own, at once: it may be killed at any time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


class ReportFolder:
    """The folder that the environment variable *variable* names."""

    def __init__(self, variable: str) -> None:
        self.variable = variable

    def write(self, entry: dict[str, Any]) -> None:
        """Append *entry* to the file of this process, if the variable is set."""
        if not (folder := os.environ.get(self.variable)):
            return
        line = json.dumps(entry) + "\n"
        # A folder that has gone must not break the project's statement.
        with (
            suppress(OSError),
            Path(folder, f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file,
        ):
            file.write(line)


def entries(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Yield what all processes have written into *folder*."""
    for path in sorted(Path(folder).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the process was killed while it wrote the line
                yield json.loads(line)
