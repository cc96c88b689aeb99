"""What prepared plans bring: a point query and joins of three and eight tables, prepared and not.

The variants take turns in one process and one thread, in many short rounds of rotating order.
Client and server share one CPU, so the time of a statement is that of both. "SQL" is the text that
the ORM has compiled, run by a cursor; "ORM" is the whole queryset, which is compiled each time. The
first execution of a connection is measured with everything that it has to prepare.

    python benchmarks/plans.py --json FILE
    python benchmarks/plans.py --executions 1000000  # is memory flat?
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import statement

#: Variant -> (engine, what is added to its ``OPTIONS``, whether the queries are targets).
VARIANTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "relet": ("relet", {}, False),
    "relet, prepared": ("relet", {}, True),
    "relet/pg8000": ("relet/pg8000", {}, False),
    "relet/pg8000, prepared": ("relet/pg8000", {}, True),
    "Django": ("held", {}, False),
    "Django, server_side_binding": (
        "held",
        {"server_side_binding": True, "prepare_threshold": 0},
        False,
    ),
}
#: Variant -> the one that it is compared with.
BASELINES = {
    "relet, prepared": "relet",
    "relet/pg8000, prepared": "relet/pg8000",
    "Django, server_side_binding": "Django",
    "Django": "relet",
}
#: Workload -> (how many tables it joins, by how much it is to be faster as SQL).
WORKLOADS = {"point query": (1, 1.5), "join of 3 tables": (3, None), "join of 8 tables": (8, 5.0)}
TABLES, ROWS = 8, 1000


def models() -> list[Any]:
    """Return a model for each table; each but the last refers to the next one."""
    from django.apps import apps
    from django.db import models

    known = apps.all_models["plans"]
    for number in range(TABLES, 0, -1):
        if f"t{number}" in known:
            continue
        body: dict[str, Any] = {
            "__module__": __name__,
            "Meta": type("Meta", (), {"app_label": "plans", "db_table": f"relet_plans_{number}"}),
            "name": models.CharField(max_length=20),
        }
        if number < TABLES:
            body["next"] = models.ForeignKey(known[f"t{number + 1}"], models.CASCADE)
        type(f"T{number}", (models.Model,), body)
    return [known[f"t{number}"] for number in range(1, TABLES + 1)]


def make_tables(connection: Any) -> None:
    with connection.schema_editor() as editor:
        for model in reversed(models()):
            editor.create_model(model)
    with connection.cursor() as cursor:
        for number in range(TABLES, 0, -1):
            columns = "id, name" if number == TABLES else "id, name, next_id"
            values = "i, 'name ' || i" if number == TABLES else "i, 'name ' || i, i"
            cursor.execute(
                f"INSERT INTO relet_plans_{number} ({columns}) "
                f"SELECT {values} FROM generate_series(1, {ROWS}) AS i"
            )
        cursor.execute("ANALYZE")


def drop_tables(connection: Any) -> None:
    with connection.schema_editor() as editor:
        for model in models():
            editor.delete_model(model)


def queryset(alias: str, tables: int) -> Any:
    """Return a query for one row that joins *tables* tables."""
    rows = models()[0].objects.using(alias)
    if tables > 1:
        rows = rows.select_related("__".join(["next"] * (tables - 1)))
    return rows


def as_sql(alias: str, tables: int) -> statement.Statement:
    """Return a function that runs the query's SQL, with other values each time."""
    from django.db import connections

    connection = connections[alias]
    query = queryset(alias, tables).filter(pk=1).query
    sql, params = query.get_compiler(alias).as_sql()
    value = iter_values()

    def run() -> object:
        with connection.cursor() as cursor:
            cursor.execute(sql, (value(), *params[1:]))
            return cursor.fetchall()

    return run


def as_orm(alias: str, tables: int) -> statement.Statement:
    rows, value = queryset(alias, tables), iter_values()
    return lambda: list(rows.filter(pk=value()))


def iter_values() -> Callable[[], int]:
    state = 0

    def value() -> int:
        nonlocal state
        state = state % ROWS + 1
        return state

    return value


def first_executions(alias: str, run: statement.Statement, times: int) -> float:
    """Return the microseconds of an execution for which nothing is prepared."""
    from django.db import connections

    book = connections[alias]._runner.handle.pool.plans  # type: ignore[attr-defined]
    spent = 0
    for _ in range(times):
        book.renew()
        began = time.perf_counter_ns()
        run()
        spent += time.perf_counter_ns() - began
    return spent / 1000 / times


def measure(rounds: int, times: int) -> dict[str, Any]:
    """Return by workload and variant the microseconds for each statement, as medians."""
    results: dict[str, Any] = {}
    for workload, (tables, _) in WORKLOADS.items():
        for kind, make in (("SQL", as_sql), ("ORM", as_orm)):
            runs = {variant: make(variant, tables) for variant in VARIANTS}
            samples: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
            for run in runs.values():
                statement.sample(run, 20)
            order = list(VARIANTS)
            gc.collect()
            gc.disable()
            try:
                for number in range(rounds):
                    order.append(order.pop(0))
                    for variant in order if number % 2 else reversed(order):
                        samples[variant].append(statement.sample(runs[variant], times).wall_us)
                    gc.collect()
            finally:
                gc.enable()
            found = {variant: statistics.median(each) for variant, each in samples.items()}
            first = {
                variant: first_executions(variant, runs[variant], times)
                for variant, (_, _, prepared) in VARIANTS.items()
                if prepared and kind == "SQL"
            }
            results[f"{workload}, {kind}"] = {"wall_us": found, "first_us": first}
    return results


def report(results: dict[str, Any]) -> None:
    for workload, result in results.items():
        wall = result["wall_us"]
        rows = []
        for variant, microseconds in wall.items():
            baseline = BASELINES.get(variant)
            rows.append(
                [
                    variant,
                    f"{microseconds:.1f}",
                    f"{wall[baseline] / microseconds:.2f}" if baseline else "",
                    f"{result['first_us'][variant]:.1f}" if variant in result["first_us"] else "",
                ]
            )
        headers = ["variant", "us", "times as fast", "first execution, us"]
        common.print_table(workload, headers, rows)
        _, bound = WORKLOADS[workload.rpartition(", ")[0]]
        if bound is not None and workload.endswith("SQL"):
            times = wall["relet"] / wall["relet, prepared"]
            verdict = "within" if times >= bound else "BELOW"
            print(f"\nprepared, it is {times:.2f} times as fast: {verdict} the bound of {bound}")


def memory(executions: int) -> dict[str, Any]:
    """Return the memory of the client and the server's session, in kB, while targets are run."""
    import os

    from django.db import connections

    alias = "relet, prepared"
    runs = [as_sql(alias, tables) for tables, _ in WORKLOADS.values()]
    for run in runs:
        run()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    found = []
    for _ in range(10):
        for _ in range(executions // len(runs) // 10):
            for run in runs:
                run()
        gc.collect()
        found.append((_resident(os.getpid()), _resident(pid)))
        print(f"client {found[-1][0]} kB, server {found[-1][1]} kB")
    return {
        "executions": executions,
        "client_kb": [one for one, _ in found],
        "server_kb": [other for _, other in found],
    }


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--times", type=int, default=100, help="statements per round")
    parser.add_argument("--executions", type=int, default=0, help="measure memory, over so many")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    environment = common.environment()
    common.stay_on_one_cpu()
    with common.server() as database:
        databases = {}
        for variant, (engine, added, _) in VARIANTS.items():
            settings = common.settings_for(engine, database, 1)
            databases[variant] = {
                **settings,
                "OPTIONS": {**settings.get("OPTIONS", {}), **added},
            }
        common.configure(databases)
        common.note_environment(environment)
        from django.db import connections

        import relet

        for variant, (_, _, prepared) in VARIANTS.items():
            if prepared:
                for workload, (tables, _) in WORKLOADS.items():
                    relet.prepare(queryset(variant, tables).filter(pk=1), name=workload)
        make_tables(connections["Django"])
        common.wait_until_quiet()
        results: dict[str, Any] = {}
        if options.executions:
            results["memory"] = memory(options.executions)
        else:
            results = measure(options.rounds, options.times)
            report(results)
            print(f"\n{relet.plans()}")
        drop_tables(connections["Django"])
        for connection in connections.all(initialized_only=True):
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]
    common.write_json(
        options.json, {"benchmark": "plans", "environment": environment, "workloads": results}
    )


if __name__ == "__main__":
    main()
