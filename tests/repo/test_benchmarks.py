"""The benchmark of many threads runs, and computes what it says. Nothing here depends on time."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ENGINES = ("held", "relet", "relet/pg8000", "django-pg-real-pool", "PgBouncer")
#: Those whose packages `.[dev]` brings.
INSTALLED = {"held", "relet", "relet/pg8000"}


def run(root: Path, uri: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "benchmarks" / "throughput.py"), *arguments],
        env={**os.environ, "RELET_TEST_DSN": uri},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def reports(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Its module that computes; the names of benchmarks/ are no others' afterwards."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module("throughput_report")
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent.name == "benchmarks":
            del sys.modules[name]


def process(*threads: list[float], seconds: float = 1, **used: float) -> dict[str, Any]:
    return {"took_ms": list(threads), "seconds": seconds, "cpu_s": 1.0, **used}


@pytest.mark.slow
def test_throughput_measures_each_engine_that_is_there(
    root: Path, server_uri: str, tmp_path: Path
) -> None:
    written = tmp_path / "results.json"
    small = "--threads 2 --elsewhere 1 --processes 2 --seconds 0.2 --warmup 0 --repeats 1"
    arguments = [*small.split(), "--patience", "0", "--json", str(written), "--engines", *ENGINES]
    done = run(root, server_uri, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(written.read_text())
    (load,) = results["loads"]
    assert (load["processes"], load["threads"], load["elsewhere_ms"]) == (2, 2, 1)
    measured = set(load["engines"])
    skipped = {name for name in ENGINES if f"\n{name} is skipped: " in done.stdout}
    assert (measured | skipped, measured & skipped) == (set(ENGINES), set())
    assert measured >= INSTALLED
    for figures in load["engines"].values():
        assert figures["requests_per_s"] > 0
        assert figures["p99_ms"] >= figures["p50_ms"] > 0
    assert "| relet/pg8000 " in done.stdout


@pytest.mark.slow
def test_an_error_in_a_request_ends_it(root: Path, server_uri: str) -> None:
    # A pool that no connection fits into.
    arguments = ["--connections", "0", "--engines", "relet", "--patience", "0", "--repeats", "1"]
    done = run(root, server_uri, *arguments)
    assert done.returncode == 1
    assert "relet, 32 threads, 10 ms elsewhere: a worker failed" in done.stderr


def test_processes_are_summed(reports: Any) -> None:
    one = process([1.0, 2.0], [3.0], voluntary_switches=4, involuntary_switches=1)
    two = process(
        [4.0, 5.0, 6.0], [7.0, 8.0], seconds=2, voluntary_switches=12, involuntary_switches=3
    )
    figures = reports.combined([one, two])
    assert figures["requests_per_s"] == 3 / 1 + 5 / 2
    assert figures["p50_ms"] == 4.5
    assert figures["spread"] == 3
    assert figures["voluntary_switches"] == 16 / 8
    assert figures["involuntary_switches"] == 4 / 8
    assert figures["client_cpu_us"] == 2e6 / 8


def test_a_thread_without_a_request_has_no_number_for_a_spread(reports: Any) -> None:
    figures = reports.combined([process([1.0, 2.0], [])])
    assert (figures["spread"], figures["voluntary_switches"]) == (None, None)
    assert reports.medians({"relet": [figures]})["relet"]["spread"] is None


def test_targets_take_the_ratio_within_a_round(reports: Any) -> None:
    """How fast the machine is differs from round to round, and says nothing about an engine."""

    def run_of(requests: int, spread: float = 1.0) -> dict[str, Any]:
        return reports.combined([process([1.0] * requests)]) | {"spread": spread}

    load = reports.TARGETS[0].load
    held = [run_of(100), run_of(200), run_of(400)]
    relet = [run_of(96), run_of(180), run_of(400)]
    uneven = [{**run, "spread": 1.5} for run in relet]
    for runs, is_reached in (relet, True), (uneven, False), ([run_of(90)] * 3, False):
        figures = reports.medians({"held": held, "relet": runs})
        (found,) = reports.reached({load: figures})
        assert found["is_reached"] is is_reached
    assert reports.medians({"held": held, "relet": relet})["relet"]["x_held"] == 0.96
    assert reports.reached({load: reports.medians({"relet": relet})}) == []


@pytest.mark.skipif(not find_spec("matplotlib"), reason="matplotlib is not installed")
def test_picture(root: Path, tmp_path: Path) -> None:
    engines = {"held": {"requests_per_s": 900.0}, "relet": {"requests_per_s": 890.0}}
    loads = [
        {"processes": 1, "threads": threads, "elsewhere_ms": elsewhere, "engines": engines}
        for elsewhere in (0, 0.5)
        for threads in (8, 16)
    ]
    results, picture = tmp_path / "results.json", tmp_path / "picture.svg"
    results.write_text(json.dumps({"connections": 4, "loads": loads}))
    script = root / "benchmarks" / "throughput_picture.py"
    subprocess.run([sys.executable, str(script), str(results), str(picture)], check=True)
    drawn = picture.read_text()
    for text in ("0.5 ms elsewhere", "threads", "requests/s", "relet on psycopg_pool"):
        assert f">{text}</text>" in drawn
