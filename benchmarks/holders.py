"""The cost of recording who holds the connections.

When a checkout times out, the error names the current holders (`relet.backends.leases.holders`).
For that, each lease that outlasts a statement is recorded once. Rounds with and without recording
alternate, in one process and one thread, on one wrapper.

    python benchmarks/holders.py --json FILE
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common
import statement

ENGINE = "relet"
#: Microseconds that recording may add to a statement.
BOUND = 3.0


@contextmanager
def unrecorded() -> Iterator[None]:
    """Turn recording off."""
    from relet.backends.leases import holders

    recording = holders.record_holder
    holders.record_holder = lambda lease, pool: None
    try:
        yield
    finally:
        holders.record_holder = recording


def in_transaction(statements: int) -> statement.Statement:
    """Return a function that runs a transaction of *statements* statements."""
    from django.db import connections, transaction

    connection = connections[ENGINE]

    def run() -> None:
        with transaction.atomic(using=ENGINE), connection.cursor() as cursor:
            for _ in range(statements):
                cursor.execute("SELECT 1")
                cursor.fetchone()

    return run


def measure(run: statement.Statement, rounds: int, times: int) -> list[float]:
    """Return the CPU time that recording adds to one *run*, in microseconds, for each round."""
    added = []
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            samples = {}
            for recorded in (True, False) if number % 2 else (False, True):
                if recorded:
                    samples[recorded] = statement.sample(run, times)
                else:
                    with unrecorded():
                        samples[recorded] = statement.sample(run, times)
            added.append(samples[True].cpu_us - samples[False].cpu_us)
            gc.collect()
    finally:
        gc.enable()
    return added


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--times", type=int, default=200, help="runs per round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    environment = common.environment()
    common.stay_on_one_cpu()
    with common.server() as database:
        databases = {name: common.settings_for(name, database, 1) for name in ("held", ENGINE)}
        # Observation would record more; see observe.py.
        databases[ENGINE]["OPTIONS"]["observe"] = False
        common.configure(databases)
        common.note_environment(environment)
        statement.make_table()
        workloads = {
            "SELECT 1, outside of transactions": (statement.select1(ENGINE), 1),
            "get(), outside of transactions": (statement.get(ENGINE), 1),
            "BEGIN, SELECT 1, COMMIT": (in_transaction(1), 3),
            "BEGIN, an update() of the ORM, COMMIT": (statement.atomic(ENGINE), 3),
            "BEGIN, ten SELECT 1, COMMIT": (in_transaction(10), 12),
        }
        results, rows = {}, []
        common.wait_until_quiet()
        for name, (run, statements) in workloads.items():
            low, middle, high = statistics.quantiles(
                measure(run, options.rounds, options.times), n=4
            )
            each = middle / statements
            results[name] = {"added_cpu_us": middle, "quartile_1": low, "quartile_3": high}
            results[name]["to_each_statement"] = each
            verdict = "within" if each <= BOUND else "ABOVE"
            quartiles = f"{low:+.2f} to {high:+.2f}"
            rows.append([name, f"{middle:+.2f}", quartiles, f"{each:+.2f}", verdict])
        title = f"CPU time added, in microseconds; the bound is {BOUND:g} per statement"
        headers = ["workload", "added", "quartiles", "added per statement", "bound"]
        common.print_table(title, headers, rows)
        statement.drop_table()
        statement.close()
    common.write_json(
        options.json, {"benchmark": "holders", "environment": environment, "workloads": results}
    )


if __name__ == "__main__":
    main()
