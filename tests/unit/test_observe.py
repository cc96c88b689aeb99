"""The counters of statements, routes, waits and leases."""

from __future__ import annotations

import sys
from math import inf
from random import Random

import pytest

from relet.core.observe import Bounded, Contention, Histogram, Tally, Totals
from relet.core.observe.counts import StatementCounts, StatementTotals


def new_tally(alias: str = "default") -> tuple[Tally, Totals]:
    totals = Totals()
    return Tally(alias, str.lower, totals.add_batch), totals


def add(totals: Totals, tally: Tally) -> None:
    totals.add_pool(tally)
    totals.add_batch(tally.alias, tally.batch)


def run(tally: Tally, route: str, text: str, seconds: float) -> None:
    """Count a statement as the hot path does."""
    counts = tally.find(route, text)
    counts.total += seconds
    counts.maximum = max(counts.maximum, seconds)
    histogram = Histogram()
    histogram.add(seconds)
    counts.buckets = [a + b for a, b in zip(counts.buckets, histogram.buckets, strict=True)]


# Histograms.


@pytest.mark.parametrize("seconds", [2e-8, 2e-6, 0.00034, 0.5, 1.0, 3.7, 3600.0, 20_000.0])
def test_a_quantile_is_within_a_factor_of_two(seconds: float) -> None:
    histogram = Histogram()
    for _ in range(100):
        histogram.add(seconds)
    assert seconds / 2 <= histogram.quantile(0.95) <= seconds
    assert histogram.count == 100
    assert histogram.total == pytest.approx(100 * seconds)


def test_durations_beyond_all_bounds_are_counted() -> None:
    histogram = Histogram()
    for seconds in (-1.0, 0.0, 1e9):
        histogram.add(seconds)
    assert histogram.count == 3
    assert histogram.quantile(1.0) <= 1e9


def test_a_histogram_is_cumulative_for_exporters() -> None:
    histogram = Histogram()
    for seconds in (0.3, 0.4, 3.0):
        histogram.add(seconds)
    assert histogram.cumulative() == [(0.5, 2), (1.0, 2), (2.0, 2), (4.0, 3), (inf, 3)]
    assert Histogram().cumulative() == [(inf, 0)]
    assert Histogram().quantile(0.95) == 0.0


def test_a_copy_is_independent() -> None:
    histogram = Histogram()
    histogram.add(1.0)
    copy = histogram.copy()
    histogram.add(2.0)
    assert (copy.count, copy.total, copy.maximum) == (1, 1.0, 1.0)


# Tallies.


def test_texts_with_one_fingerprint_share_their_counts() -> None:
    tally, totals = new_tally()
    for text in ("SELECT 1", "select 1", "Select 1"):
        run(tally, "/", text, 0.5)
    add(totals, tally)
    [(fingerprint, counts)] = totals.statements
    assert fingerprint == "select 1"
    assert (counts.calls, counts.total, counts.mean, counts.route) == (3, 1.5, 0.5, "/")


def test_a_fingerprint_is_made_once_for_each_text() -> None:
    asked: list[str] = []

    def fingerprint(text: str) -> str:
        asked.append(text)
        return text

    tally = Tally("default", fingerprint, Totals().add_batch)
    for _ in range(100):
        run(tally, "/", "SELECT 1", 0.1)
    assert asked == ["SELECT 1"]


def test_a_statement_knows_the_route_that_runs_it_most() -> None:
    tally, totals = new_tally()
    for route, calls in (("/a", 3), ("/b", 5), ("/c", 1)):
        for _ in range(calls):
            run(tally, route, "select 1", 0.1)
    add(totals, tally)
    [(_, counts)] = totals.statements
    assert counts.route == "/b"


def test_plain_statements_are_leases_of_their_route() -> None:
    tally, totals = new_tally()
    run(tally, "/a", "select 1", 0.1)
    run(tally, "/a", "select 2", 0.4)
    inner = tally.find("/a", "select 3")
    inner.add_inner(0.2, 0)
    tally.route("/a").counts.add_lease(held=2.0, ran=0.2)
    add(totals, tally)
    [(route, counts)] = totals.routes
    assert (route, counts.leases, counts.longest) == ("/a", 3, 2.0)
    assert (counts.held, counts.ran) == (pytest.approx(2.5), pytest.approx(0.7))
    assert counts.idle == pytest.approx(1.8)


def test_a_statement_may_take_long() -> None:
    counts = StatementCounts()
    for _ in range(10):
        counts.add(40_000.0, 0)
    assert 20_000 <= counts.p95 <= 40_000


@pytest.mark.slow
def test_any_number_of_texts_and_routes_is_bounded() -> None:
    tally, totals = new_tally()
    for number in range(20_000):
        run(tally, f"/{number % 10_000}", f"select {number}", 0.001)
    assert tally.batch.size <= 201
    add(totals, tally)
    assert len(totals.statements) == 1_000
    assert len(totals.routes) == 500
    # Nothing is lost.
    assert totals.statements.other.calls + sum(c.calls for _, c in totals.statements) == 20_000
    assert totals.routes.other.leases + sum(c.leases for _, c in totals.routes) == 20_000
    assert totals.pool("default").operations.count == 20_000


def test_texts_that_differ_in_their_values_only_are_bounded() -> None:
    totals = Totals()
    tally = Tally("default", lambda text: "select ?", totals.add_batch)
    for number in range(10_000):
        run(tally, "/", f"select {number}", 0.001)
    assert len(tally.texts["/"]) <= 2_000
    assert tally.batch.size == 2


def test_texts_of_all_routes_together_are_bounded() -> None:
    totals = Totals()
    tally = Tally("default", lambda text: text[:8], totals.add_batch)
    for number in range(3_000):
        for text in (f"select {number:3000}", f"insert {number:5000}"):
            run(tally, f"/{number % 12}", text, 0.001)
        texts = [text for found in tally.texts.values() for text in found]
        assert sum(map(len, texts)) + sum(map(len, tally._long.values())) <= 400_000
    add(totals, tally)
    assert totals.pool("default").operations.count == 6_000


def test_long_texts_are_not_remembered() -> None:
    tally, _ = new_tally()
    run(tally, "/", "select " + "1" * 5_000, 0.1)
    assert tally.texts == {}
    assert len(tally.batch.routes["/"].statements) == 1


def test_a_long_text_is_read_once() -> None:
    asked: list[str] = []

    def fingerprint(text: str) -> str:
        asked.append(text[:8])
        return text[:8]

    tally = Tally("default", fingerprint, Totals().add_batch)
    for _ in range(100):
        run(tally, "/", "select " + "1" * 5_000, 0.1)
    assert asked == ["select 1"]
    for number in range(10_000):
        run(tally, "/", f"select {number}" + "1" * 5_000, 0.1)
    assert len(tally._long) <= 500


@pytest.mark.parametrize("what", ["statements", "routes"])
def test_what_is_forgotten_is_counted_anew(what: str) -> None:
    tally, totals = new_tally()
    run(tally, "/", "select 1", 0.1)
    tally.forget(what)
    run(tally, "/", "select 1", 0.1)
    add(totals, tally)
    [(text, counts)] = totals.statements
    [(route, route_counts)] = totals.routes
    assert (text, counts.calls) == ("select 1", 1 if what == "statements" else 2)
    assert (route, route_counts.leases) == ("/", 1 if what == "routes" else 2)
    assert totals.pool("default").operations.count == 2


def test_what_matters_is_kept() -> None:
    totals = Totals(statements=10)
    tally = Tally("default", str, totals.add_batch)
    for number in range(1_000):
        run(tally, "/", f"select {number}", 0.0001)
        run(tally, "/", "often", 0.001)
        if number == 10:
            run(tally, "/", "once, but long", 60.0)
    add(totals, tally)
    kept = dict(totals.statements)
    assert kept["often"].calls == 1_000
    assert kept["once, but long"].calls == 1
    assert len(kept) == 10


def test_bounded_without_room_has_the_rest_only() -> None:
    bounded = Bounded(StatementTotals, 0)
    bounded["a"].calls += 1
    bounded["b"].calls += 1
    assert (len(bounded), bounded.other.calls) == (0, 2)


def test_totals_of_processes_can_be_merged() -> None:
    first, second = Totals(), Totals()
    for totals, seconds in ((first, 1.0), (second, 2.0)):
        tally, _ = new_tally()
        run(tally, "/", "select 1", seconds)
        tally.pool.waits.add(seconds)
        tally.pool.timeouts += 1
        add(totals, tally)
    first.merge(second)
    [(_, counts)] = first.statements
    assert (counts.calls, counts.total, counts.maximum) == (2, 3.0, 2.0)
    assert counts.calls_by_route == {"/": 2}
    assert (first.pool("default").waits.total, first.pool("default").timeouts) == (3.0, 2)


def test_a_statement_keeps_few_routes() -> None:
    counts = StatementTotals()
    for number in range(1_000):
        counts.called_by(f"/{number}", 1)
        counts.called_by("/often", 1)
    assert len(counts.calls_by_route) <= 10
    assert counts.route == "/often"


def test_a_route_of_short_threads_is_found() -> None:
    """What it has run arrives a few calls at a time, when others have had many."""
    totals = Totals()
    old = [f"/old{number // 40}" for number in range(800)]
    new = [route for number in range(1_500) for route in ("/busy", f"/rare{number}")]
    for route in old + new:
        part = Totals()
        tally, _ = new_tally()
        run(tally, route, "select 1", 0.001)
        add(part, tally)
        totals.merge(part)
    [(_, counts)] = totals.statements
    assert (counts.route, counts.calls) == ("/busy", 3_800)


def test_counts_are_small() -> None:
    counts = StatementCounts()
    assert sys.getsizeof(counts) + sys.getsizeof(counts.buckets) < 700


# Contention.


def test_a_lease_is_charged_for_those_who_wait_meanwhile() -> None:
    contention = Contention()
    contention.begin("a", 10.0)
    assert contention.until == inf
    contention.begin("b", 11.0)
    assert contention.end("a", 14.0) == 4.0
    assert contention.until == inf
    assert contention.end("b", 15.0) == 4.0
    assert contention.until == 15.0
    assert contention.waited_since(5.0, 15.0) == 8.0
    assert contention.waited_since(12.0, 13.0) == 2.0
    assert contention.waited_since(16.0, 17.0) == 0.0
    assert contention.waited(15.0) == 8.0


def test_a_lease_is_charged_for_those_who_still_wait() -> None:
    contention = Contention()
    contention.begin("a", 10.0)
    assert contention.waited(12.0) == contention.waited_since(5.0, 12.0) == 2.0
    assert contention.waited_since(11.0, 12.0) == 1.0


def test_a_lease_is_charged_to_the_moment() -> None:
    """By what each of many waits overlaps with it, added up one by one."""
    chance = Random(0)
    contention = Contention()
    waits: list[list[float]] = []
    now = 100.0
    for _ in range(250):
        now += chance.expovariate(1.0)
        if len(waits) > 3 and chance.random() < 0.5:
            open_ = [number for number, wait in enumerate(waits) if wait[1] == inf]
            if open_:
                number = chance.choice(open_)
                waits[number][1] = now
                contention.end(number, now)
                continue
        contention.begin(len(waits), now)
        waits.append([now, inf])
    end = now + 1.0
    for began in (0.0, 101.0, now - 30.0, now - 3.3, now, now + 0.5, end):
        exact = sum(max(0.0, min(until, end) - max(since, began)) for since, until in waits)
        assert contention.waited_since(began, end) == pytest.approx(exact)


def test_waits_that_are_remembered_are_bounded() -> None:
    contention = Contention()
    for number in range(10_000):
        contention.begin(number, float(number))
        contention.end(number, number + 1.0)
    assert contention.waited_since(0.0, 20_000.0) == 300.0
    assert contention.waited(20_000.0) == 10_000.0
    assert contention.waiting == 0
