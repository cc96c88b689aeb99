"""``relet adapters``: lists registered adapters and whether they can be used."""

from __future__ import annotations

import logging
import sys

from relet.core import AdapterSpec, registry

_HEADER = ("NAME", "ENGINE", "STATUS")


def list_adapters() -> int:
    """Print the registered adapters and the problems of plugins; return the exit code."""
    # Problems are printed below, so keep them out of the log.
    logging.getLogger("relet").addHandler(logging.NullHandler())
    specs = registry.specs()
    rows = [_HEADER, *(_row(spec) for spec in specs.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    for problem in registry.problems():
        print(f"relet: {problem}", file=sys.stderr)
    return 1 if registry.problems() else 0


def _row(spec: AdapterSpec) -> tuple[str, str, str]:
    if missing := registry.missing(spec):
        status = f"needs {', '.join(missing)}: pip install '{spec.install or spec.name}'"
    else:
        status = "ready"
    return spec.name, f"relet.backends.{spec.name}", status
