"""What a fleet costs its server, and how long its page takes.

Simulated processes, all in this one, report themselves as real ones do: the same statement, every
ten seconds or, while somebody looks, each second, with as much in it as a busy process has.

    python benchmarks/fleet.py --processes 200 --seconds 300 --json FILE
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import threading
import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common

#: Threads that send the beats, each on a connection of the pool.
_SENDERS = 4
#: From one beat to the next, in seconds, and how it varies; see `relet.dashboard.reporter`.
_LOADS = {"nobody looks": (10.0, 0.1), "somebody looks": (1.0, 0.0)}
_TABLES = ("relet_dashboard_process", "relet_dashboard_minute", "relet_dashboard_ask")


@cache
def report_of(process: int, *, stacks: bool) -> dict[str, Any]:
    """Return what a busy process reports: 50 statements, 50 routes, 10 connections."""
    from relet.dashboard.payload import QUERY_TABLE, ROUTE_TABLE, number_lines

    chance = random.Random(process)

    def some() -> float:
        return round(chance.expovariate(1.0), 6)

    def sql(number: int) -> str:
        columns = ", ".join(f'"shop_table{number}"."column_{n}"' for n in range(8))
        return f'SELECT {columns} FROM "shop_table{number}" WHERE "shop_table{number}"."id" = %s'

    routes = [f"/shop/section-{number}/<int:pk>/detail/" for number in range(50)]
    stack = [[f"/srv/shop/views/module_{n}.py", 10 * n, f"function_{n}"] for n in range(15)]
    report: dict[str, Any] = {
        "pools": [
            {
                "alias": "default",
                "min_size": 2,
                "max_size": 10,
                "size": 10,
                "idle": 4,
                "in_use": 6,
                "waiting": 1,
                "checkouts": chance.randrange(10**7),
                "waits": 999,
                "waited": some(),
                "longest_wait": some(),
                "waits_histogram": [[2.0**n, 60 * (n + 12)] for n in range(-12, 4)] + [[None, 960]],
                "timeouts": 1,
                "created": 20,
                "discarded": 1,
                "reset": 3,
                "abandoned": 0,
            }
        ],
        "routes": ROUTE_TABLE.columns(
            SimpleNamespace(
                route=route,
                leases=chance.randrange(10**6),
                waited=some(),
                held=some(),
                ran=some(),
                idle=some(),
                longest=some(),
                blocked=0.0,
            )
            for route in routes
        ),
        "queries": QUERY_TABLE.columns(
            SimpleNamespace(
                sql=sql(number),
                calls=chance.randrange(10**6),
                rows=10**5,
                total=some(),
                mean=some(),
                p95=some(),
                max=some(),
                waited=some(),
                route=routes[number],
                errors=0,
            )
            for number in range(50)
        ),
        "connections": [
            {
                "alias": "default",
                "pid": 100_000 + 10 * process + number,
                "state": "running",
                "seconds": some(),
                "leased_seconds": some(),
                "thread": f"thread-{number}",
                "task": None,
                "route": routes[number],
                "sql": sql(number),
                **({"ran_at": stack, "now_at": stack, "leased_at": stack} if stacks else {}),
            }
            for number in range(10)
        ],
        "metrics": {},
    }
    return {**report, "lines": number_lines(report["connections"])}


@dataclass
class Process:
    """A simulated process; *due* is when it beats next, in seconds of `time.monotonic`."""

    number: int
    id: str
    due: float
    beats: int = 0


class Fleet:
    """Sends the beats of all processes, by some threads."""

    def __init__(self, processes: int) -> None:
        self._processes = [Process(n, uuid.uuid4().hex, 0.0) for n in range(processes)]
        self._lock = threading.Lock()
        self._errors: list[Exception] = []

    def run(self, load: str, seconds: float) -> int:
        """Beat for so long; return how often all of them did."""
        interval, jitter = _LOADS[load]
        now = time.monotonic()
        for process in self._processes:
            process.due, process.beats = now + random.uniform(0, interval), 0
        arguments = (interval, jitter, now + seconds, load == "somebody looks")
        threads = [threading.Thread(target=self._send, args=arguments) for _ in range(_SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise SystemExit(f"a beat failed: {self._errors[0]}")
        return sum(process.beats for process in self._processes)

    def _send(self, interval: float, jitter: float, until: float, stacks: bool) -> None:
        from relet.dashboard import home, tables

        try:
            while True:
                with self._lock:
                    process = min(self._processes, key=lambda one: one.due)
                    due = process.due
                    process.due += interval * random.uniform(1 - jitter, 1 + jitter)
                if due > until:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                ended = process.beats % (60 if stacks else 6) == 5
                report = report_of(process.number, stacks=stacks)
                beat = tables.Beat(
                    id=process.id,
                    host=f"web-{process.number // 10}",
                    pid=1000 + process.number,
                    version="0",
                    age=1.0,
                    interval=interval,
                    now={name: report[name] for name in ("pools", "lines", "connections")},
                    totals={name: report[name] for name in ("routes", "queries", "metrics")}
                    if process.beats % (10 if stacks else 1) == 0
                    else None,
                    rollups=(tables.Rollup("default", 10, 6, 1, 1000, 9, 0.5, 0),) if ended else (),
                    sweep=ended,
                )
                home.run(tables.beat(beat), "default")
                process.beats += 1
        except Exception as error:  # noqa: BLE001 - raised by `run`
            self._errors.append(error)


def server_cpu(data: Path) -> float:
    """Return the seconds of CPU that the server in *data* has used, with all its processes."""
    postmaster = int((data / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if postmaster in (int(path.parent.name), int(fields[1])):
            ticks += sum(map(int, fields[11:13]))
            if int(path.parent.name) == postmaster:
                ticks += sum(map(int, fields[13:15]))  # of those that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def size_mb() -> float:
    """Return the size of the tables, with their indexes and TOAST."""
    from relet.dashboard import home

    sizes = " + ".join(f"pg_total_relation_size('{table}')" for table in _TABLES)
    return float(home.run(f"SELECT ({sizes})::float8 / 1e6", "default")[0][0])


def page_ms(repeats: int = 11) -> tuple[float, float, float]:
    """Return the median time of the page, its CPU, and how many kilobytes it has."""
    from django.test import RequestFactory

    from relet.dashboard.page import views

    user = SimpleNamespace(is_authenticated=True, has_perm=lambda permission: True, pk=1)
    times, cpu, size = [], [], 0
    for _ in range(repeats):
        request = RequestFactory().get("/fleet/")
        request.user = user
        began, used = time.perf_counter(), time.thread_time()
        size = len(views.page(request).content)
        times.append((time.perf_counter() - began) * 1000)
        cpu.append((time.thread_time() - used) * 1000)
    return statistics.median(times), statistics.median(cpu), size / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=200, help="default: %(default)d")
    parser.add_argument(
        "--seconds", type=float, default=300, help="for each load (default: %(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with common.server() as database:
        import django
        from django.conf import settings
        from django.core.management import call_command
        from django.db import connection

        settings.configure(
            DATABASES={"default": common.settings_for("relet", database, _SENDERS)},
            INSTALLED_APPS=["relet.dashboard"],
            SECRET_KEY="x",
            USE_TZ=True,
        )
        django.setup()
        from relet.backends.pools import pools

        pools.on_open = None  # this process does not report itself
        call_command("migrate", verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")  # opens the pool
        data = Path(str(database["HOST"]))
        fleet = Fleet(arguments.processes)
        rows, results = [], []
        for load in _LOADS:
            figures = measure(fleet, load, arguments.seconds, data)
            results.append({"load": load, **figures})
            rows.append([load, *(f"{value:.3g}" for value in figures.values())])
        connection.close()
        pools.close_all()
    environment = common.environment()
    common.note_environment(environment)
    common.print_table(
        f"{arguments.processes} processes, {arguments.seconds:g} s of each load",
        [*results[0]],
        rows,
    )
    common.write_json(
        arguments.json,
        {"environment": environment, "processes": arguments.processes, "loads": results},
    )


def measure(fleet: Fleet, load: str, seconds: float, data: Path) -> dict[str, float]:
    """Return the figures of one load."""
    local = (data / "postmaster.pid").exists()
    before, began = server_cpu(data) if local else 0.0, time.monotonic()
    half = fleet.run(load, seconds / 2)
    size_half = size_mb()
    beats = half + fleet.run(load, seconds / 2)
    took = time.monotonic() - began
    used = server_cpu(data) - before if local else float("nan")
    size = size_mb()
    page, page_cpu, page_kb = page_ms()
    return {
        "beats_per_s": beats / took,
        "server_cpu_percent": 100 * used / took,
        "server_cpu_us_per_beat": 1e6 * used / beats,
        "tables_mb_at_half_time": size_half,
        "tables_mb": size,
        "page_ms": page,
        "page_cpu_ms": page_cpu,
        "page_kb": page_kb,
    }


if __name__ == "__main__":
    main()
