"""What the first query of a process costs: imports, the pool, and the first connection.

Each sample is a process of its own that sets Django up and then runs ``SELECT 1``. Only the query
is timed. The engines take turns, so that a slow phase of the machine slows all of them. Python's
bytecode is cached, as it is wherever packages are installed.

    python benchmarks/start.py --rounds 30
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import common

BASELINE = "native"
ENGINES = ["held", BASELINE, "django-pg-real-pool", "relet", "relet/sqlalchemy", "relet/pg8000"]

#: What a process runs. Its arguments: the settings of an alias.
QUERY = """
import json, resource, sys, time
import django
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])}, USE_TZ=True)
django.setup()
wall, cpu, modules = time.perf_counter(), time.process_time(), len(sys.modules)
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
    cursor.fetchone()
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
unit = 1 if sys.platform == "darwin" else 1024
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps([wall * 1e3, cpu * 1e3, memory / 2**20, len(sys.modules) - modules]))
"""


class Sample(NamedTuple):
    """One process.

    :param memory_mib: the most that the process has had.
    :param modules: how many modules the query imported.
    """

    wall_ms: float
    cpu_ms: float
    memory_mib: float
    modules: int


def sample(settings: common.Settings) -> Sample:
    """Run a process that queries the database once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", QUERY, json.dumps(settings)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Sample(*json.loads(done.stdout))


def measure(settings: dict[str, common.Settings], rounds: int) -> dict[str, list[Sample]]:
    """Return the samples of each engine, one per round."""
    for one in settings.values():
        sample(one)  # writes bytecode
    samples: dict[str, list[Sample]] = {engine: [] for engine in settings}
    for _ in range(rounds):
        for engine, one in settings.items():
            samples[engine].append(sample(one))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--patience", type=float, default=30, help="seconds to wait for idle CPUs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    engines = []
    for engine in ENGINES:
        if (command := common.missing(engine)) is None:
            engines.append(engine)
        else:
            print(f"{engine} is skipped: {command}")
    with common.server() as database:
        common.wait_until_quiet(patience=options.patience)
        settings = {engine: common.settings_for(engine, database, 4) for engine in engines}
        samples = measure(settings, options.rounds)
    medians = {
        engine: Sample(*(statistics.median(column) for column in zip(*rows, strict=True)))
        for engine, rows in samples.items()
    }
    base = medians[BASELINE]
    common.print_table(
        "the first query of a process, medians",
        ["engine", "ms", "added", "ms of CPU", "added", "MiB", "added", "modules"],
        [
            [
                engine,
                f"{found.wall_ms:.0f}",
                f"{found.wall_ms - base.wall_ms:+.0f}",
                f"{found.cpu_ms:.0f}",
                f"{found.cpu_ms - base.cpu_ms:+.0f}",
                f"{found.memory_mib:.1f}",
                f"{found.memory_mib - base.memory_mib:+.1f}",
                str(int(found.modules)),
            ]
            for engine, found in medians.items()
        ],
    )
    common.write_json(
        options.json,
        {
            "benchmark": "start",
            "environment": common.environment(),
            "rounds": options.rounds,
            "engines": {
                engine: [row._asdict() for row in rows] for engine, rows in samples.items()
            },
        },
    )


if __name__ == "__main__":
    main()
