"""The cost of simple queries: relet's pg8000 engine compared with pg8000 and with psycopg.

All take turns in one process, over TCP on the loopback interface. A figure is the median wall time
of a statement over the rounds. A ratio is the median of the ratios in each round.

    python benchmarks/simple_query.py --json FILE
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import common

Work = Callable[[], object]

ROWS = 10_000
#: The bounds: (workload, slower, faster, least ratio) and (workload, other, engine, largest ratio).
AT_LEAST = (
    ("parameterised read", "pg8000", "relet's cursor", 2.0),
    (f"fetch of {ROWS:,} rows", "pg8000", "relet's cursor", 1.5),
)
AT_MOST = (("ORM get()", "relet.backends.psycopg", "relet.backends.pg8000", 1.5),)

READ = "SELECT name, made FROM relet_simple_query WHERE id = %s AND name <> %s"
FETCH = "SELECT id, name, made, price, code FROM relet_simple_query ORDER BY id"
BIG = """
    CREATE TABLE relet_simple_query AS
    SELECT n::bigint AS id, 'name ' || n AS name,
        timestamptz '2020-01-01 00:00:00.123456Z' + n * interval '1 minute' AS made,
        n / 100.0 AS price, gen_random_uuid() AS code
    FROM generate_series(1, 10000) n
"""
#: Run in a process of its own, to measure the memory that a queryset of a million rows takes.
ITERATE = """
import resource, sys, time
sys.path.insert(0, sys.argv[1])
import common, json
database = json.loads(sys.argv[2])
common.configure({"default": common.settings_for("relet/pg8000", database, 1)})
from django.db import connection, models
class Number(models.Model):
    text = models.TextField()
    class Meta:
        app_label, db_table, managed = "numbers", "relet_numbers", False
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
seen, peaks, began = 0, [], time.perf_counter()
for number in Number.objects.order_by("id").iterator(chunk_size=1000):
    seen += 1
    if seen in (10_000, 100_000, 1_000_000):
        peaks.append(peak())
print(json.dumps({"seen": seen, "peaks": peaks, "seconds": time.perf_counter() - began}))
connection.close()
connection.close_pool()
"""


def stock(database: common.Settings) -> Any:
    import pg8000.dbapi

    return pg8000.dbapi.connect(
        user=database["USER"],
        host=database["HOST"],
        port=int(database["PORT"]),
        database=database["NAME"],
        password=database["PASSWORD"] or None,
        ssl_context=False,
    )


def ours(database: common.Settings) -> Any:
    from relet.adapters.pg8000 import dbapi

    return dbapi.connect(
        user=database["USER"],
        host=database["HOST"],
        port=int(database["PORT"]),
        dbname=database["NAME"],
        password=database["PASSWORD"] or None,
        sslmode="disable",
    )


@contextmanager
def works(database: common.Settings) -> Iterator[dict[str, dict[str, Work]]]:
    """Yield for each workload the functions that do it, by the way in which they do it."""
    from django.db import connections

    with closing(stock(database)) as theirs, closing(ours(database)) as own:
        theirs.autocommit = own.autocommit = True

        def read(connection: Any) -> Work:
            cursor = connection.cursor()

            def run() -> object:
                cursor.execute(READ, (4711, "it's another"))
                return cursor.fetchone()

            return run

        def fetch(connection: Any) -> Work:
            cursor = connection.cursor()

            def run() -> object:
                cursor.execute(FETCH)
                return cursor.fetchall()

            return run

        def get(alias: str) -> Work:
            rows = model().objects.using(alias)
            return lambda: rows.get(pk=4711)

        same(read(theirs)(), read(own)())
        same(fetch(theirs)(), fetch(own)())
        yield {
            "parameterised read": {"pg8000": read(theirs), "relet's cursor": read(own)},
            f"fetch of {ROWS:,} rows": {"pg8000": fetch(theirs), "relet's cursor": fetch(own)},
            "ORM get()": {
                "relet.backends.psycopg": get("psycopg"),
                "relet.backends.pg8000": get("default"),
            },
        }
    for connection in connections.all(initialized_only=True):
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]


def same(one: Any, other: Any) -> None:
    """Exit if two ways to read the same rows have returned different values."""
    if plain(one) != plain(other):
        raise SystemExit(f"results differ: {one!r} and {other!r}")


def plain(value: Any) -> Any:
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def model() -> Any:
    from django.apps import apps
    from django.db import models

    try:
        return apps.all_models["simple_query"]["row"]
    except KeyError:
        meta = {"app_label": "simple_query", "db_table": "relet_simple_query", "managed": False}
        body: dict[str, Any] = {
            "__module__": __name__,
            "Meta": type("Meta", (), meta),
            "id": models.BigIntegerField(primary_key=True),
            "name": models.TextField(),
            "made": models.DateTimeField(),
            "price": models.DecimalField(max_digits=12, decimal_places=2),
            "code": models.UUIDField(),
        }
        return type("Row", (models.Model,), body)


def measure(ways: dict[str, Work], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return for each way its microseconds per run, in each round."""
    times = {}
    for name, work in ways.items():
        work()
        began = time.perf_counter()
        work()
        times[name] = max(3, int(seconds / (time.perf_counter() - began)))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    gc.collect()
    for number in range(rounds):
        # Alternate the order, so that no way always follows the same other one.
        for name in list(ways) if number % 2 else reversed(list(ways)):
            work, count = ways[name], times[name]
            work()
            began = time.perf_counter()
            for _ in range(count):
                work()
            taken[name].append((time.perf_counter() - began) / count * 1e6)
    return taken


def iterate(database: common.Settings) -> dict[str, Any]:
    """Return the peak resident memory while a million rows are read, in MB."""
    import json

    from django.db import connections

    with connections["default"].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS relet_numbers")
        cursor.execute(
            "CREATE TABLE relet_numbers AS SELECT n::bigint AS id, repeat('x', 100) AS text"
            " FROM generate_series(1, 1000000) n"
        )
        cursor.execute("ALTER TABLE relet_numbers ADD PRIMARY KEY (id)")
    command = [sys.executable, "-c", ITERATE, str(Path(__file__).parent), json.dumps(database)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    with connections["default"].cursor() as cursor:
        cursor.execute("DROP TABLE relet_numbers")
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.1, help="for each way in each round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    environment = common.environment()
    cpu = common.stay_on_one_cpu()
    results: dict[str, Any] = {}
    with common.tcp_server() as database:
        common.configure(
            {
                "default": common.settings_for("relet/pg8000", database, 1),
                "psycopg": common.settings_for("relet", database, 1),
            }
        )
        common.note_environment(environment)
        from django.db import connections

        with connections["default"].cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS relet_simple_query")
            cursor.execute(BIG)
            cursor.execute("ALTER TABLE relet_simple_query ADD PRIMARY KEY (id)")
            cursor.execute("ANALYZE relet_simple_query")
        try:
            common.wait_until_quiet()
            with works(database) as workloads:
                taken = {
                    workload: measure(ways, options.rounds, options.seconds)
                    for workload, ways in workloads.items()
                }
                results["microseconds"] = report(taken)
                results["ratios"] = ratios(taken)
                results["iterator"] = memory(iterate(database))
                with connections["default"].cursor() as cursor:
                    cursor.execute("DROP TABLE relet_simple_query")
        finally:
            for connection in connections.all(initialized_only=True):
                connection.close()
                connection.close_pool()  # type: ignore[attr-defined]
    common.write_json(
        options.json,
        {"benchmark": "simple_query", "environment": environment, "cpu": cpu, **results},
    )


def report(taken: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    medians = {
        workload: {name: statistics.median(rounds) for name, rounds in ways.items()}
        for workload, ways in taken.items()
    }
    rows = [
        [workload, name, f"{median:,.1f}", f"{1e6 / median:,.0f}"]
        for workload, ways in medians.items()
        for name, median in ways.items()
    ]
    common.print_table("medians", ["workload", "way", "microseconds", "per second"], rows)
    return medians


def ratios(taken: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Print and return the ratios between the ways, and whether they are within the bounds."""
    found = {}
    print()
    for workload, slower, faster, bound in AT_LEAST:
        ratio = _ratio(taken[workload][slower], taken[workload][faster])
        verdict = "reaches" if ratio >= bound else "BELOW"
        print(f"{workload}: {faster} is {ratio:.1f} times as fast as {slower}; {verdict} {bound}")
        found[workload] = ratio
    for workload, other, engine, bound in AT_MOST:
        ratio = _ratio(taken[workload][engine], taken[workload][other])
        verdict = "within" if ratio <= bound else "ABOVE"
        print(f"{workload}: {engine} takes {ratio:.2f} times as long as {other}; {verdict} {bound}")
        found[workload] = ratio
    return found


def _ratio(dividends: list[float], divisors: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(dividends, divisors, strict=True))


def memory(result: dict[str, Any]) -> dict[str, Any]:
    peaks = ", ".join(f"{peak:.1f}" for peak in result["peaks"])
    print(
        f"\niterator(chunk_size=1000): {result['seen']:,} rows in {result['seconds']:.1f} s; peak "
        f"RSS after 10,000, 100,000 and all rows: {peaks} MB"
    )
    return result


if __name__ == "__main__":
    main()
