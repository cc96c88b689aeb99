"""Requests per second when many threads share few connections.

A request runs a query, spends some time elsewhere, and runs another query. It begins and ends with
Django's signals ``request_started`` and ``request_finished``. Each run of an engine has new
interpreters. The engines take turns, several times under each load.

    python benchmarks/throughput.py --threads 32 128 --elsewhere 0 10 --json FILE
    python benchmarks/throughput.py --targets
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import bouncer
import common
import throughput_picture as picture
import throughput_report as reports
from throughput_report import BASELINE, PGBOUNCER, TARGETS, Figures, Load
from throughput_worker import PATIENCE

ENGINES = (
    "held",
    "native",
    "django-pg-real-pool",
    PGBOUNCER,
    "relet",
    "relet/sqlalchemy",
    "relet/dj_db_conn_pool",
    "relet/pg8000",
)
WORKER = Path(__file__).with_name("throughput_worker.py")


def available(engines: Sequence[str]) -> list[str]:
    """Return which of the *engines* can be measured here; print a line for each other one."""
    found = []
    for name in engines:
        if name == PGBOUNCER:
            missing = None if bouncer.program() else "apt-get install pgbouncer"
        else:
            missing = common.missing(name)
        if missing is None:
            found.append(name)
        else:
            print(f"{name} is skipped: it is not installed ({missing})")
    return found


@contextlib.contextmanager
def databases_for(
    load: Load, engines: Sequence[str], server: common.Settings, size: int
) -> Iterator[dict[str, common.Settings]]:
    """Yield ``DATABASES[alias]`` of each of the *engines*; start PgBouncer if it is one of them.

    :param size: connections of a process' pool. PgBouncer has as many as all processes together.
    """
    with contextlib.ExitStack() as stack:
        databases = {}
        for name in engines:
            if name == PGBOUNCER:
                behind = stack.enter_context(
                    bouncer.pgbouncer(
                        server,
                        size=size * load.processes,
                        clients=load.clients,
                        patience=PATIENCE,
                    )
                )
                databases[name] = common.settings_for("held", behind, 0)
                databases[name]["DISABLE_SERVER_SIDE_CURSORS"] = True
            else:
                databases[name] = common.settings_for(name, server, size)
        yield databases


def run(load: Load, task: dict[str, Any]) -> Figures:
    """Run the *task* in new processes at the same time; return the figures of all of them."""
    told = {**task, "threads": load.threads, "elsewhere_ms": load.elsewhere_ms}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(load.processes)
    ]
    try:
        for worker in workers:
            say(worker, json.dumps(told))
        if all(hear(worker) == "ready\n" for worker in workers):
            for worker in workers:
                say(worker, "begin")
            results = [hear(worker) for worker in workers]
            if all(worker.wait() == 0 for worker in workers):
                return reports.combined([json.loads(result) for result in results])
        raise ValueError("a worker failed; see above")
    except ValueError as error:
        raise SystemExit(f"{task['engine']}, {load}: {error}") from None
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def say(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has failed, and says nothing more
        worker.stdin.write(line + "\n")
        worker.stdin.flush()


def hear(worker: subprocess.Popen[str]) -> str:
    """Return the next line of *worker*; an empty string if it has failed."""
    assert worker.stdout is not None
    return worker.stdout.readline()


def measure(
    load: Load, databases: dict[str, common.Settings], options: argparse.Namespace
) -> dict[str, Figures]:
    """Run each engine in turns; return the medians of its figures."""
    runs: dict[str, list[Figures]] = {name: [] for name in databases}
    order = list(databases)
    for _ in range(options.repeats):
        common.wait_until_quiet(patience=options.patience)
        for name in order:
            task = {
                "engine": name,
                "database": databases[name],
                "seconds": options.seconds,
                "warmup": options.warmup,
                "one_cpu": options.one_cpu,
            }
            runs[name].append(run(load, task))
        order.append(order.pop(0))
    return reports.medians(runs)


def measure_all(
    loads: Sequence[Load], engines: Sequence[str], options: argparse.Namespace
) -> Iterator[tuple[Load, dict[str, Figures]]]:
    """Yield the loads, each with the medians of the engines' figures."""
    size = options.connections
    pools = size * max(load.processes for load in loads)
    held = max(load.clients for load in loads) if BASELINE in engines else 0
    # The server takes a moment to end the connections of the engine before.
    with common.server(max_connections=max(100, 2 * (pools + held) + pools)) as server:
        room = common.free_connections(server)
        for load in loads:
            chosen = list(engines)
            if BASELINE in chosen and load.clients + size * load.processes > room:
                print(f"\n{load}: {BASELINE} is skipped: the server has only {room} connections")
                chosen.remove(BASELINE)
            with databases_for(load, chosen, server, size) as databases:
                yield load, measure(load, databases, options)


def main() -> None:
    options = parse()
    loads = options.loads
    environment = common.environment() | {"pgbouncer": bouncer.version()}
    common.note_environment(environment)
    engines = available(options.engines)
    if not engines:
        raise SystemExit("no engine can be measured")
    runs = len(loads) * options.repeats * len(engines)
    minutes = runs * (options.seconds + options.warmup + 1.5) / 60
    if minutes >= 1:
        print(f"This takes about {minutes:.0f} min.", flush=True)
    results: dict[Load, dict[str, Figures]] = {}
    try:
        for load, figures in measure_all(loads, engines, options):
            results[load] = figures
            reports.report(load, options.connections, figures)
    finally:
        # An error after half an hour does not lose what was measured before.
        document = {
            "benchmark": "throughput",
            "environment": environment,
            "connections": options.connections,
            "seconds": options.seconds,
            "warmup": options.warmup,
            "repeats": options.repeats,
            "one_cpu": options.one_cpu,
            "loads": [
                {**dataclasses.asdict(load), "engines": figures}
                for load, figures in results.items()
            ],
            "targets": reports.reached(results),
        }
        if results:
            common.write_json(options.json, document)
    reports.report_targets(document["targets"])
    if options.svg is not None:
        picture.draw(document, options.svg)


def parse() -> argparse.Namespace:
    """Return the options, with ``loads`` made of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", help="in each process; default: 32 128")
    parser.add_argument(
        "--elsewhere",
        type=float,
        nargs="+",
        metavar="MS",
        help="what a request spends outside the database; default: 10",
    )
    parser.add_argument(
        "--processes", type=int, nargs="+", help="each has a pool of its own; default: 1"
    )
    parser.add_argument(
        "--targets", action="store_true", help="measure the loads that the project has targets for"
    )
    parser.add_argument("--engines", nargs="+", choices=[*common.ENGINES, PGBOUNCER])
    parser.add_argument("--connections", type=int, default=4, help="of each pool; default: 4")
    parser.add_argument("--seconds", type=float, default=5, help="seconds to measure in each run")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before each run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each engine; default: 3")
    parser.add_argument(
        "--patience",
        type=float,
        default=30,
        metavar="SECONDS",
        help="how long to wait for an idle machine before each round; default: 30",
    )
    parser.add_argument("--one-cpu", action="store_true", help="keep the threads on one CPU")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="needs matplotlib")
    options = parser.parse_args()
    if options.targets and (options.threads or options.elsewhere or options.processes):
        parser.error("--targets has loads of its own")
    if options.svg is not None and (missing := picture.missing()):
        parser.error(f"--svg needs matplotlib: {missing}")
    if options.targets:
        options.loads = list(dict.fromkeys(target.load for target in TARGETS))
        compared = [target.beside for target in TARGETS]
        wanted = [*dict.fromkeys(compared), *reports.TARGET_ENGINES]
    else:
        each = product(
            options.processes or [1], options.elsewhere or [10], options.threads or [32, 128]
        )
        options.loads = [
            Load(processes, threads, elsewhere) for processes, elsewhere, threads in each
        ]
        wanted = list(ENGINES)
    options.engines = options.engines or wanted
    return options


if __name__ == "__main__":
    main()
