"""The cost of observation: off, on (the default), and all of it.

The variants take turns in one process and one thread, in many short rounds of rotating order, on
wrappers that differ in ``OPTIONS["observe"]`` only. The cost that a variant adds is the median over
the rounds of its difference to ``off`` in the same round.

    python benchmarks/observe.py --json FILE
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import statement

BASELINE = "off"
#: Variant -> its ``OPTIONS["observe"]``. "all" also has a label and a `leak_after`.
VARIANTS: dict[str, Any] = {"off": False, "on": True, "all": True}
#: Workload -> (statements in it, microseconds that "on" may add to each of them).
BOUNDS = {
    "SELECT 1, outside of transactions": (1, 0.3),
    "ten SELECT 1 of one cursor, in hold()": (10, 3.0),
    "ten get(), in hold()": (10, 3.0),
    "BEGIN, SELECT 1, COMMIT": (3, 3.0),
}


def settings_for(variant: str, database: common.Settings) -> common.Settings:
    settings = common.settings_for("relet", database, 1)
    options = {**settings["OPTIONS"], "observe": VARIANTS[variant]}
    if variant == "all":
        options["policy"] = {"leak_after": 3600.0}
    return {**settings, "OPTIONS": options}


def held(alias: str) -> statement.Statement:
    """Return a function that runs ten statements with one cursor, in one lease."""
    from django.db import connections

    from relet import hold

    connection = connections[alias]

    def run() -> None:
        with hold(alias), connection.cursor() as cursor:
            for _ in range(10):
                cursor.execute("SELECT 1")
                cursor.fetchone()

    return run


def held_orm(alias: str) -> statement.Statement:
    """Return a function that runs ten queries of the ORM in one lease."""
    from relet import hold

    get = statement.get(alias)

    def run() -> None:
        with hold(alias):
            for _ in range(10):
                get()

    return run


def transaction(alias: str) -> statement.Statement:
    """Return a function that runs a transaction of one statement."""
    from django.db import connections
    from django.db.transaction import atomic

    connection = connections[alias]

    def run() -> None:
        with atomic(using=alias), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()

    return run


WORKLOADS: dict[str, Callable[[str], statement.Statement]] = dict(
    zip(BOUNDS, (statement.select1, held, held_orm, transaction), strict=True)
)


def labelled(run: statement.Statement) -> statement.Statement:
    """Return *run* as the code of a request would run it: with a route."""
    from relet.backends.observe import scopes

    def inside() -> None:
        scopes.enter("/orders/<int:pk>/", run)
        try:
            run()
        finally:
            scopes.leave(run)

    return inside


def measure(workload: str, rounds: int, times: int) -> dict[str, list[float]]:
    """Return the CPU time of each variant, in microseconds per run, one for each round."""
    runs = {variant: WORKLOADS[workload](variant) for variant in VARIANTS}
    runs["all"] = labelled(runs["all"])
    samples: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    order = list(VARIANTS)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            order.append(order.pop(0))
            for variant in order if number % 2 else reversed(order):
                samples[variant].append(statement.sample(runs[variant], times).cpu_us)
            gc.collect()
    finally:
        gc.enable()
    return samples


def memory() -> dict[str, float]:
    """Return the bytes that the counters take: of one thread, and of one statement in it."""
    from relet.core.observe import Tally, Totals
    from relet.core.sql.fingerprint import normalized

    def texts(tally: Tally, count: int) -> None:
        for number in range(count):
            text = f"SELECT a{number} FROM shop_order WHERE id = %s"
            tally.find("/orders/<int:pk>/", text).add(0.001, 1)

    totals = Totals()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tally = Tally("default", normalized, totals.add_batch)
        texts(tally, 1)
        thread = tracemalloc.get_traced_memory()[0] - before
        texts(tally, 101)
        hundred = tracemalloc.get_traced_memory()[0] - before - thread
        texts(tally, 20_000)
        process = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    return {
        "thread": thread,
        "statement_in_a_thread": hundred / 100,
        "process_after_20000_texts": process,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--times", type=int, default=200, help="runs per round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    environment = common.environment()
    common.stay_on_one_cpu()
    with common.server() as database:
        databases = {variant: settings_for(variant, database) for variant in VARIANTS}
        databases["held"] = common.settings_for("held", database, 1)
        common.configure(databases)
        common.note_environment(environment)
        statement.make_table()
        common.wait_until_quiet()
        results: dict[str, Any] = {}
        rows = []
        for workload, (statements, bound) in BOUNDS.items():
            samples = measure(workload, options.rounds, options.times // statements + 1)
            off = samples[BASELINE]
            results[workload] = {"off_cpu_us": statistics.median(off)}
            row = [workload, f"{statistics.median(off):.1f}"]
            for variant in ("on", "all"):
                added = [mine - theirs for mine, theirs in zip(samples[variant], off, strict=True)]
                low, middle, high = (each / statements for each in statistics.quantiles(added, n=4))
                results[workload][variant] = {
                    "added_cpu_us_per_statement": middle,
                    "quartile_1": low,
                    "quartile_3": high,
                }
                row += [f"{middle:+.2f}", f"{low:+.2f} to {high:+.2f}"]
            within = results[workload]["on"]["added_cpu_us_per_statement"] <= bound
            rows.append([*row, f"{bound:g}", "within" if within else "ABOVE"])
        title = "CPU time of the client, in microseconds; what is added, for each statement"
        headers = ["workload", "off", "on adds", "quartiles", "all adds", "quartiles", "bound", ""]
        common.print_table(title, headers, rows)
        results["memory_bytes"] = memory()
        print(f"\nMemory, in bytes: {results['memory_bytes']}")
        statement.drop_table()
        statement.close()
    common.write_json(
        options.json, {"benchmark": "observe", "environment": environment, "workloads": results}
    )


if __name__ == "__main__":
    main()
