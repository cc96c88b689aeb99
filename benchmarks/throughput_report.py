"""What the runs of `throughput` come to: medians, tables, and the project's targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import common

BASELINE = "held"
PGBOUNCER = "PgBouncer"

Figures = dict[str, Any]
"""What was measured of one engine under one load."""


@dataclass(frozen=True)
class Load:
    """What the server gets to do.

    :param threads: in each of the processes.
    :param elsewhere_ms: what a request spends outside the database, between its two queries.
    """

    processes: int
    threads: int
    elsewhere_ms: float

    @property
    def clients(self) -> int:
        return self.processes * self.threads

    def __str__(self) -> str:
        threads = f"{self.threads} threads"
        if self.processes > 1:
            threads = f"{self.processes} processes of {threads}"
        return f"{threads}, {self.elsewhere_ms:g} ms elsewhere"


@dataclass(frozen=True)
class Target:
    """What relet is to reach under a load.

    :param beside: the engine that it is compared with.
    :param least: the least ratio of its requests per second to those of that engine.
    """

    load: Load
    beside: str
    least: float


TARGETS = (
    Target(Load(1, 8, 0), BASELINE, 0.95),
    Target(Load(1, 16, 0.5), BASELINE, 0.95),
    Target(Load(1, 32, 2), BASELINE, 0.95),
    Target(Load(1, 128, 10), BASELINE, 0.95),
    Target(Load(1, 128, 10), PGBOUNCER, 1.0),
    Target(Load(8, 32, 10), PGBOUNCER, 1.0),
)
TARGET_ENGINES = ("relet", "relet/sqlalchemy")
#: The largest ratio of the busiest thread's requests to the idlest's, with one process.
WIDEST_SPREAD = 1.3


def combined(processes: Sequence[Figures]) -> Figures:
    """Return the figures of a run, from those of each of its *processes*.

    :raises ValueError: there are not enough requests to tell anything.
    """
    threads = [took_ms for process in processes for took_ms in process["took_ms"]]
    took_ms = sorted(took for thread in threads for took in thread)
    if len(took_ms) < 2:
        raise ValueError(f"{len(took_ms)} requests in {processes[0]['seconds']:.1f} s")
    percentiles = statistics.quantiles(took_ms, n=100, method="inclusive")
    counts = [len(thread) for thread in threads]

    def each(name: str) -> float | None:
        if name not in processes[0]:
            return None
        return float(sum(process[name] for process in processes)) / len(took_ms)

    cpu_s = each("cpu_s")
    assert cpu_s is not None
    return {
        "requests_per_s": sum(
            sum(map(len, process["took_ms"])) / process["seconds"] for process in processes
        ),
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        # JSON has no infinity.
        "spread": max(counts) / min(counts) if min(counts) else None,
        "voluntary_switches": each("voluntary_switches"),
        "involuntary_switches": each("involuntary_switches"),
        "client_cpu_us": 1e6 * cpu_s,
    }


def medians(runs: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    """Return for each engine the medians of its *runs*, its ratio to the baseline, and the runs."""
    summary: dict[str, Figures] = {}
    for engine, its_runs in runs.items():
        summary[engine] = {
            name: _median([run[name] for run in its_runs]) for name in its_runs[0]
        } | {"x_held": None, "runs": list(its_runs)}
        if BASELINE in runs:
            summary[engine]["x_held"] = ratio(its_runs, runs[BASELINE])
    return summary


def ratio(runs: Sequence[Figures], others: Sequence[Figures]) -> float:
    """Return the median over the rounds of the ratio of requests per second."""
    rounds = zip(runs, others, strict=True)
    ratios: list[float] = [one["requests_per_s"] / other["requests_per_s"] for one, other in rounds]
    return statistics.median(ratios)


def _median(figures: Sequence[float | None]) -> float | None:
    """Return the median of *figures*, of which None is larger than any number."""
    ordered = sorted(float("inf") if figure is None else figure for figure in figures)
    middle = statistics.median(ordered)
    return None if middle == float("inf") else middle


def report(load: Load, size: int, engines: Mapping[str, Figures]) -> None:
    """Print the table of one *load*."""
    rows = []
    for name, figures in engines.items():
        rates = [run["requests_per_s"] for run in figures["runs"]]
        rows.append(
            [
                name,
                f"{figures['requests_per_s']:.0f}",
                f"{min(rates):.0f} to {max(rates):.0f}",
                _number(figures["x_held"], ""),
                f"{figures['p50_ms']:.1f}",
                f"{figures['p99_ms']:.1f}",
                _number(figures["spread"], "inf"),
                _number(figures["voluntary_switches"], ""),
                _number(figures["involuntary_switches"], ""),
                f"{figures['client_cpu_us']:.0f}",
            ]
        )
    each = " in each process" if load.processes > 1 else ""
    common.print_table(
        f"{load}; {size} connections{each}",
        [
            "engine",
            "requests/s",
            "runs",
            f"x {BASELINE}",
            "p50 ms",
            "p99 ms",
            "spread",
            "switches",
            "involuntary",
            "client CPU us",
        ],
        rows,
    )


def _number(figure: float | None, without: str) -> str:
    return without if figure is None else f"{figure:.2f}"


def reached(results: Mapping[Load, Mapping[str, Figures]]) -> list[dict[str, Any]]:
    """Return, for each target whose load and engines are in *results*, what was reached of it."""
    found = []
    for target in TARGETS:
        engines = results.get(target.load, {})
        for name in TARGET_ENGINES:
            if name not in engines or target.beside not in engines:
                continue
            reaches = ratio(engines[name]["runs"], engines[target.beside]["runs"])
            spread = engines[name]["spread"]
            even = target.load.processes > 1 or (spread is not None and spread <= WIDEST_SPREAD)
            found.append(
                {
                    "load": str(target.load),
                    "engine": name,
                    "beside": target.beside,
                    "ratio": reaches,
                    "least": target.least,
                    "spread": spread,
                    "is_reached": reaches >= target.least and even,
                }
            )
    return found


def report_targets(found: Sequence[Mapping[str, Any]]) -> None:
    """Print what `reached` has found."""
    if not found:
        return
    rows = [
        [
            target["load"],
            target["engine"],
            target["beside"],
            f"{target['ratio']:.2f}",
            f"{target['least']:.2f}",
            _number(target["spread"], "inf"),
            "reached" if target["is_reached"] else "MISSED",
        ]
        for target in found
    ]
    common.print_table(
        f"targets: ratio of requests/s; with one process, a spread of at most {WIDEST_SPREAD}",
        ["load", "engine", "beside", "ratio", "least", "spread", "target"],
        rows,
    )
