"""The client's cost of one statement, compared with a held connection.

All engines take turns in one process and one thread, in many short rounds of rotating order, so
that a slow phase of the machine slows all of them. The cost that an engine adds is the median over
the rounds of its difference to ``held`` in the same round. Client and server share one CPU if the
system allows it. Otherwise the figures are mostly the time to wake another CPU: two to three times
as high, and unsteady.

    python benchmarks/statement.py --workload all --json FILE
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common

BASELINE = "held"
#: relet's engine -> a peer's engine on the same pool, and the largest fraction of the peer's added
#: cost that relet's engine may add.
BOUNDS = {
    "relet": ("django-pg-real-pool", 0.10),
    "relet/sqlalchemy": ("django-pg-real-pool/dj_db_conn_pool", 0.15),
    "relet/dj_db_conn_pool": ("django-pg-real-pool/dj_db_conn_pool", 0.15),
}

#: Variant -> (engine, whether the wrapper is closed after each statement). Django closes it at the
#: end of a request. Without close(), a loop over ``native`` holds its connection; with it, the loop
#: pays with each statement what a request pays once.
VARIANTS = {
    "held": ("held", False),
    "native": ("native", False),
    "native+close": ("native", True),
    "django-pg-real-pool": ("django-pg-real-pool", False),
    "relet": ("relet", False),
    "relet/unobserved": ("relet/unobserved", False),
    "relet+close": ("relet", True),
    "django-pg-real-pool/dj_db_conn_pool": ("django-pg-real-pool/dj_db_conn_pool", False),
    "relet/sqlalchemy": ("relet/sqlalchemy", False),
    "relet/dj_db_conn_pool": ("relet/dj_db_conn_pool", False),
}


class Sample(NamedTuple):
    """Microseconds per statement, over one round.

    :param cpu_us: CPU time of the thread that runs the statements.
    :param process_us: CPU time of the whole process, including the pools' threads.
    """

    cpu_us: float
    process_us: float
    wall_us: float


Statement = Callable[[], object]


def select1(alias: str) -> Statement:
    """Return a function that runs ``SELECT 1`` through a cursor."""
    from django.db import connections

    connection = connections[alias]

    def run() -> object:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone()

    return run


def get(alias: str) -> Statement:
    """Return a function that reads one object by its primary key."""
    rows = row_model().objects.using(alias)
    return lambda: rows.get(pk=1)


def atomic(alias: str) -> Statement:
    """Return a function that writes one row in a transaction."""
    from django.db import transaction

    rows = row_model().objects.using(alias)

    def run() -> object:
        with transaction.atomic(using=alias):
            return rows.filter(pk=1).update(name="b")

    return run


WORKLOADS: dict[str, Callable[[str], Statement]] = {
    "select1": select1,
    "get": get,
    "atomic": atomic,
}


def row_model() -> Any:
    """Return the model of the table that `make_table` makes."""
    from django.apps import apps
    from django.db import models

    try:
        return apps.all_models["benchmark"]["row"]
    except KeyError:
        body: dict[str, Any] = {
            "__module__": __name__,
            "Meta": type("Meta", (), {"app_label": "benchmark", "db_table": "relet_benchmark_row"}),
            "name": models.CharField(max_length=10),
            "made": models.DateTimeField(null=True),
        }
        return type("Row", (models.Model,), body)


def make_table() -> None:
    from django.db import connections

    with connections[BASELINE].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS relet_benchmark_row")
        cursor.execute(
            "CREATE TABLE relet_benchmark_row"
            " (id bigint PRIMARY KEY, name varchar(10) NOT NULL, made timestamptz)"
            " WITH (fillfactor = 10)"
        )
        cursor.execute("INSERT INTO relet_benchmark_row VALUES (1, 'a', now())")


def drop_table() -> None:
    from django.db import connections

    with connections[BASELINE].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS relet_benchmark_row")


def closing(statement: Statement, alias: str) -> Statement:
    """Return a function that runs *statement* and closes the wrapper."""
    from django.db import connections

    close = connections[alias].close

    def run() -> None:
        statement()
        close()

    return run


def sample(statement: Statement, times: int) -> Sample:
    # Warm up: the previous engine has evicted this one's code and server process from the caches.
    for _ in range(5):
        statement()
    thread, process, wall = time.thread_time_ns(), time.process_time_ns(), time.perf_counter_ns()
    for _ in range(times):
        statement()
    wall, process, thread = (
        time.perf_counter_ns() - wall,
        time.process_time_ns() - process,
        time.thread_time_ns() - thread,
    )
    return Sample(*(nanoseconds / 1000 / times for nanoseconds in (thread, process, wall)))


def measure(workload: str, rounds: int, times: int) -> dict[str, list[Sample]]:
    """Return the samples of each variant, one per round."""
    statements = {}
    for variant, (_, closes) in VARIANTS.items():
        statement = WORKLOADS[workload](variant)
        statements[variant] = closing(statement, variant) if closes else statement
        sample(statement, times)
    samples: dict[str, list[Sample]] = {variant: [] for variant in VARIANTS}
    order = list(VARIANTS)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number in range(rounds):
            order.append(order.pop(0))
            # Alternate the direction, so that no variant always follows the same other one.
            for variant in order if number % 2 else reversed(order):
                samples[variant].append(sample(statements[variant], times))
            gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()
    return samples


def summary(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return for each variant its medians, and the medians of its differences to the baseline."""
    variants = {}
    for variant, mine in samples.items():
        figures: dict[str, float] = {}
        for index, field in enumerate(Sample._fields):
            added = [
                one[index] - held[index] for one, held in zip(mine, samples[BASELINE], strict=True)
            ]
            low, _, high = statistics.quantiles(added, n=4)
            figures[field] = statistics.median(one[index] for one in mine)
            figures[f"added_{field}"] = statistics.median(added)
            figures[f"added_{field}_quartile_1"] = low
            figures[f"added_{field}_quartile_3"] = high
        variants[variant] = figures
    fractions = {}
    for subject, (peer, _) in BOUNDS.items():
        added = variants[peer]["added_cpu_us"]
        fractions[subject] = variants[subject]["added_cpu_us"] / added if added > 0 else None
    return {"variants": variants, "fractions_of_peers": fractions, "bounds": BOUNDS}


def report(workload: str, result: dict[str, Any]) -> None:
    rows = []
    for variant, figures in result["variants"].items():
        added = [
            f"{figures[f'added_{field}']:+.1f}" if variant != BASELINE else ""
            for field in Sample._fields
        ]
        low, high = figures["added_cpu_us_quartile_1"], figures["added_cpu_us_quartile_3"]
        rows.append(
            [
                variant,
                f"{figures['cpu_us']:.1f}",
                added[0],
                f"{low:+.1f} to {high:+.1f}" if variant != BASELINE else "",
                added[1],
                f"{figures['wall_us']:.1f}",
                added[2],
            ]
        )
    common.print_table(
        f"{workload}: microseconds per statement, medians",
        ["engine", "CPU", "added", "quartiles", "process CPU added", "wall", "added"],
        rows,
    )
    print()
    for subject, fraction in result["fractions_of_peers"].items():
        peer, bound = BOUNDS[subject]
        if fraction is None:
            print(f"{peer} adds nothing to {BASELINE}, so there is no fraction to report")
        else:
            verdict = "within" if fraction <= bound else "ABOVE"
            print(
                f"{subject} adds {fraction:+.3f} of the CPU time that {peer} adds: "
                f"{verdict} the bound of {bound:.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", choices=[*WORKLOADS, "all"], default="select1")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--times", type=int, default=200, help="statements per round")
    parser.add_argument("--connections", type=int, default=1, help="each pool's size")
    parser.add_argument("--spread", action="store_true", help="let the system choose CPUs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    environment = common.environment()
    # Before the server starts, which then inherits the CPU.
    cpu = None if options.spread else common.stay_on_one_cpu()
    with common.server() as database:
        common.configure(
            {
                variant: common.settings_for(engine, database, options.connections)
                for variant, (engine, _) in VARIANTS.items()
            }
        )
        common.note_environment(environment)
        results = {}
        try:
            make_table()
            for workload in WORKLOADS if options.workload == "all" else [options.workload]:
                common.wait_until_quiet()
                results[workload] = summary(measure(workload, options.rounds, options.times))
                report(workload, results[workload])
            drop_table()
        finally:
            close()
    common.write_json(
        options.json,
        {
            "benchmark": "statement",
            "environment": environment,
            "rounds": options.rounds,
            "statements_per_round": options.times,
            "connections": options.connections,
            "cpu": cpu,
            "workloads": results,
        },
    )


def close() -> None:
    """Close all connections and pools before the server stops."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]
    from dj_db_conn_pool.core import pool_container

    pool_container.dispose()


if __name__ == "__main__":
    main()
