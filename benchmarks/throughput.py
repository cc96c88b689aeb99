"""Requests per second when many threads share few connections.

A request runs a query, spends some time elsewhere, and runs another query. It begins and ends with
Django's signals ``request_started`` and ``request_finished``. Each run of an engine has a new
interpreter. The engines take turns, several times.

    python benchmarks/throughput.py --threads 32 128 --json FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import common

BASELINE = "native"
ENGINES = ("native", "django-pg-real-pool", "relet", "relet/sqlalchemy")
PGBOUNCER = "PgBouncer"

#: A time-out in seconds that only a bug can reach.
PATIENCE = 60


# The worker: one engine in a new interpreter.


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Run requests in threads; return the figures and the errors."""
    if task["one_cpu"]:
        common.stay_on_one_cpu()
    common.configure({"default": task["database"]})
    from django.core import signals
    from django.db import connections

    warmup, seconds, elsewhere = task["warmup"], task["seconds"], task["elsewhere"]
    finished: list[list[tuple[float, float]]] = []
    errors: list[str] = []
    ready = threading.Barrier(task["threads"] + 1)
    stopped = threading.Event()

    def query() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()

    def requests() -> None:
        mine: list[tuple[float, float]] = []
        finished.append(mine)
        ready.wait()
        try:
            while not stopped.is_set():
                started = time.perf_counter()
                signals.request_started.send(sender=None)
                query()
                time.sleep(elsewhere)
                query()
                signals.request_finished.send(sender=None)
                now = time.perf_counter()
                mine.append((now, now - started))
        except Exception as error:  # noqa: BLE001  reported by the parent
            errors.append(f"{type(error).__name__}: {error}")
        finally:
            connections["default"].close()

    threads = [threading.Thread(target=requests) for _ in range(task["threads"])]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(warmup)
    begin, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    end, cpu = time.perf_counter(), time.process_time() - cpu
    stopped.set()
    for thread in threads:
        thread.join()
    connections["default"].close_pool()  # type: ignore[attr-defined]

    took_ms = [[1000 * took for when, took in mine if begin <= when <= end] for mine in finished]
    counts = [len(mine) for mine in took_ms]
    every_ms = sorted(took for mine in took_ms for took in mine)
    if len(every_ms) < 2:
        errors.append(f"{len(every_ms)} requests in {seconds} s")
        return {"errors": errors}
    percentiles = statistics.quantiles(every_ms, n=100)
    return {
        "errors": errors,
        "requests_per_s": len(every_ms) / (end - begin),
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "busiest_thread_requests": max(counts),
        "idlest_thread_requests": min(counts),
        "client_cpu_us": 1e6 * cpu / len(every_ms),
    }


def run_worker(task: dict[str, Any]) -> dict[str, Any]:
    """Run `work` in a new interpreter."""
    process = subprocess.run(
        [sys.executable, __file__, "--worker"],
        input=json.dumps(task),
        stdout=subprocess.PIPE,
        text=True,
        timeout=task["warmup"] + task["seconds"] + 3 * PATIENCE,
    )
    if process.returncode:
        raise SystemExit(f"{task['name']}: the worker failed; see above")
    result: dict[str, Any] = json.loads(process.stdout)
    if result["errors"]:
        lines = "\n".join(f"{count}x {text}" for text, count in Counter(result["errors"]).items())
        raise SystemExit(f"{task['name']}, {task['threads']} threads: errors\n{lines}")
    return result


# PgBouncer.


@contextlib.contextmanager
def pgbouncer(database: common.Settings, size: int) -> Iterator[common.Settings]:
    """Start PgBouncer in front of *database*; yield the entries of ``DATABASES[alias]`` for it."""
    program = shutil.which("pgbouncer")
    assert program is not None
    owner = _pgbouncer_user(database)
    port = "6432"
    with tempfile.TemporaryDirectory(prefix="relet-pgbouncer-") as name:
        directory = Path(name)
        target = {
            "host": database["HOST"],
            "port": database["PORT"],
            "user": database["USER"],
            "password": database["PASSWORD"],
            "dbname": database["NAME"],
        }
        pairs = (
            f"{key}='{str(value).replace(chr(39), 2 * chr(39))}'"
            for key, value in target.items()
            if value
        )
        (directory / "pgbouncer.ini").write_text(
            f"""\
[databases]
relet = {" ".join(pairs)}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {directory}
auth_type = any
pool_mode = transaction
default_pool_size = {size}
min_pool_size = {size}
max_client_conn = 1000
query_wait_timeout = {PATIENCE}
logfile = {directory / "log"}
log_connections = 0
log_disconnections = 0
"""
        )
        if owner is not None:
            shutil.chown(directory, owner)
        bouncer = subprocess.Popen(
            [program, "--quiet", str(directory / "pgbouncer.ini")],
            user=owner,
            stdin=subprocess.DEVNULL,
        )
        try:
            socket = directory / f".s.PGSQL.{port}"
            deadline = time.monotonic() + 10
            while not socket.exists():
                if bouncer.poll() is not None or time.monotonic() > deadline:
                    log = directory / "log"
                    raise SystemExit(
                        "PgBouncer did not start\n" + (log.read_text() if log.exists() else "")
                    )
                time.sleep(0.05)
            yield {
                "NAME": "relet",
                "USER": database["USER"],
                "PASSWORD": "",
                "HOST": str(directory),
                "PORT": port,
            }
        finally:
            bouncer.terminate()
            bouncer.wait(10)


def _pgbouncer_user(database: common.Settings) -> str | int | None:
    """Return the user to run PgBouncer as, because it refuses root; None for the current user."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    if database["HOST"].startswith("/") and (uid := Path(database["HOST"]).stat().st_uid):
        return uid  # may read the directory of the server's socket
    return "nobody"


# The report.


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of the *runs* of one engine with one number of threads."""
    fairness = [
        run["busiest_thread_requests"] / run["idlest_thread_requests"]
        if run["idlest_thread_requests"]
        else float("inf")
        for run in runs
    ]
    names = ("requests_per_s", "p50_ms", "p99_ms", "client_cpu_us")
    medians = {name: statistics.median(run[name] for run in runs) for name in names}
    # JSON has no infinity.
    fair = statistics.median(fairness)
    return {**medians, "fairness": fair if fair != float("inf") else None, "runs": runs}


def report(threads: int, size: int, engines: dict[str, dict[str, Any]]) -> None:
    base = engines[BASELINE]["requests_per_s"] if BASELINE in engines else None
    rows = []
    for name, figures in engines.items():
        rates = [run["requests_per_s"] for run in figures["runs"]]
        rows.append(
            [
                name,
                f"{figures['requests_per_s']:.0f}",
                f"{min(rates):.0f} to {max(rates):.0f}",
                f"{figures['requests_per_s'] / base:.2f}" if base else "",
                f"{figures['p50_ms']:.1f}",
                f"{figures['p99_ms']:.1f}",
                "inf" if figures["fairness"] is None else f"{figures['fairness']:.2f}",
                f"{figures['client_cpu_us']:.0f}",
            ]
        )
    common.print_table(
        f"{threads} threads on {size} connections",
        [
            "engine",
            "requests/s",
            "runs",
            f"x {BASELINE}",
            "p50 ms",
            "p99 ms",
            "busiest/idlest thread",
            "client CPU us/request",
        ],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--elsewhere", type=float, default=10, metavar="MS", help="default: 10")
    parser.add_argument("--seconds", type=float, default=5, help="seconds to measure in each run")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before each run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=[*ENGINES, PGBOUNCER])
    parser.add_argument("--one-cpu", action="store_true", help="keep the threads on one CPU")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.load(sys.stdin))))
        return

    environment = common.environment()
    common.note_environment(environment)
    size = options.connections
    chosen = options.engines or [*ENGINES, PGBOUNCER]
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(common.server())
        databases = {
            name: common.settings_for(name, database, size) for name in chosen if name != PGBOUNCER
        }
        if PGBOUNCER in chosen and shutil.which("pgbouncer") is None:
            print("\nPgBouncer is skipped: it is not installed (apt-get install pgbouncer)")
        elif PGBOUNCER in chosen:
            databases[PGBOUNCER] = {
                **common.settings_for("held", stack.enter_context(pgbouncer(database, size)), 0),
                "DISABLE_SERVER_SIDE_CURSORS": True,
            }
        results: dict[int, dict[str, Any]] = {}
        for threads in options.threads:
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in databases}
            order = list(databases)
            for _, name in product(range(options.repeats), order):
                task = {
                    "name": name,
                    "database": databases[name],
                    "threads": threads,
                    "seconds": options.seconds,
                    "warmup": options.warmup,
                    "elsewhere": options.elsewhere / 1000,
                    "one_cpu": options.one_cpu,
                }
                common.wait_until_quiet()
                runs[name].append(run_worker(task))
            results[threads] = {name: summary(its_runs) for name, its_runs in runs.items()}
            report(threads, size, results[threads])
    common.write_json(
        options.json,
        {
            "benchmark": "throughput",
            "environment": environment,
            "connections": size,
            "elsewhere_ms": options.elsewhere,
            "seconds": options.seconds,
            "repeats": options.repeats,
            "one_cpu": options.one_cpu,
            "threads": results,
        },
    )


if __name__ == "__main__":
    main()
