"""What a process reports, on which connection, and what it does when it cannot."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager

import pytest
from django.db import transaction

import relet
from relet.backends.pools import pools

from ..support.pools import backend_pid, stats
from ..support.threads import Thread, in_thread
from ..support.waiting import until
from .conftest import run

PROCESSES = "SELECT now, totals FROM relet_dashboard_process"


def reported(db):
    """The one report that there is."""
    from relet.dashboard.packing import unpack

    ((now, totals),) = run(db, PROCESSES)
    return {**unpack(now), **unpack(totals)}


def routes_reported(db):
    from relet.dashboard.payload import swap_quotes

    return [*map(swap_quotes, reported(db)["routes"]["route"])]


def look(db, seconds=30):
    run(
        db,
        "INSERT INTO relet_dashboard_ask (what, until) "
        f"VALUES ('stacks', now() + {seconds} * interval '1 second')",
    )


def test_tables_are_unlogged(db):
    sql = "SELECT relname, relpersistence FROM pg_class WHERE relname LIKE 'relet_dashboard_%%'"
    found = dict(run(db, sql + " AND relkind = 'r'", []))
    assert {name: str(kind).strip("b'") for name, kind in found.items()} == dict.fromkeys(
        (f"relet_dashboard_{name}" for name in ("process", "ask", "minute")), "u"
    )


def test_a_beat_is_a_row(db, reporter):
    run(db, "SELECT %s::text", ["s3cr3t"])
    assert 9 <= reporter.beat() <= 11
    assert 9 <= reporter.beat() <= 11
    found = reported(db)
    assert found["pools"][0]["alias"] == "default"
    assert "SELECT %s::text" in found["queries"]["sql"]
    assert found["connections"]
    assert "s3cr3t" not in json.dumps(found)


SETTINGS = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"


def test_a_beat_is_one_transaction_on_an_idle_connection(db, reporter, observer):
    before = run(db, SETTINGS)
    pid = backend_pid(db)
    reporter.beat()
    sql = "SELECT query, state FROM pg_stat_activity WHERE pid = %s"
    assert observer.execute(sql, [pid]).fetchone() == ("COMMIT", "idle")
    assert stats(db).in_use == 0
    assert (backend_pid(db), run(db, SETTINGS)) == (pid, before)


@contextmanager
def locked(observer):
    observer.execute("BEGIN")
    observer.execute("LOCK TABLE relet_dashboard_process")
    try:
        yield
    finally:
        observer.execute("ROLLBACK")


def test_a_beat_lets_go_of_its_connection_while_the_table_is_locked(db, reporter, observer, caplog):
    """Such as by VACUUM FULL."""
    reporter.beat()
    before = run(db, SETTINGS)
    pid = backend_pid(db)
    with locked(observer):
        thread = Thread()
        thread.begin(reporter.beat)
        until(lambda: reporter._beating.locked() and stats(db).in_use == 1)
        assert backend_pid(db) == pid, "no connection came free, or it was thrown away"
        assert thread.result() > 1
        thread.end()
    assert "lock timeout" in caplog.text
    assert run(db, SETTINGS) == before
    assert 9 <= reporter.beat() <= 11


def test_a_beat_on_a_connection_of_its_own_waits_no_longer_for_a_lock(
    db, reporter, observer, caplog
):
    with transaction.atomic():
        run(db, "SELECT 1")
        with locked(observer):
            assert in_thread(reporter.beat) > 1
    assert "lock timeout" in caplog.text


def test_a_connection_that_has_ended_is_not_a_database_that_is_away(db, reporter, observer, caplog):
    """Such as by idle_session_timeout, or from the page."""
    reporter.beat()
    pid = backend_pid(db)
    observer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert 9 <= reporter.beat() <= 11
    assert [one for one in caplog.records if one.name == "relet"] == []
    assert stats(db).in_use == 0


@pytest.mark.parametrize("begun", [False, True], ids=["no thread", "a thread"])
def test_the_end_does_not_wait_for_a_database_that_is_silent(
    db, reporter, observer, monkeypatch, begun
):
    """At exit no thread can be started, so the one that beats removes the row."""
    monkeypatch.setattr("relet.dashboard.reporter._EXIT_S", 0.1)
    monkeypatch.setattr("relet.dashboard.home._LIMIT", "SELECT 1")
    reporter.beat()
    if begun:
        reporter.begin()
        until(lambda: reporter._beats.goes_on)
        monkeypatch.setattr("_thread.start_new_thread", refuse)
    with locked(observer):
        reporter.stop()
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: observer.execute(sql).fetchone()[0] == 1)
    until(lambda: run(db, PROCESSES) == [])


def refuse(*arguments):
    raise RuntimeError("can't create new thread at interpreter shutdown")


def test_the_end_says_nothing_if_it_can_start_no_thread(db, reporter, monkeypatch):
    """Others delete the row."""
    reporter.beat()
    monkeypatch.setattr("_thread.start_new_thread", refuse)
    reporter.stop()
    assert len(run(db, PROCESSES)) == 1


def test_a_beat_while_the_pool_is_exhausted(db, reporter):
    """Its connection is one of its own, which is closed at once."""
    with transaction.atomic():
        pid = backend_pid(db)
        before = stats(db)
        assert before.idle == 0
        in_thread(reporter.beat)
        assert stats(db) == before, "it asked the pool"
        report = reported(db)
    assert [(row["pid"], row["state"]) for row in report["connections"]] == [
        (pid, "idle in transaction")
    ]
    assert sessions(db) == [pid]


def sessions(db):
    sql = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'relet %%'"
    )
    return [pid for (pid,) in run(db, sql, [])]


def test_a_beat_is_faster_and_has_stacks_while_somebody_looks(db, reporter):
    with transaction.atomic():
        run(db, "SELECT 1")
        in_thread(reporter.beat)
        assert "ran_at" not in reported(db)["connections"][0]
    look(db)
    with transaction.atomic():
        run(db, "SELECT 1")
        assert in_thread(reporter.beat) == 1.0  # it knows now
        assert in_thread(reporter.beat) == 1.0
        found = reported(db)
    (row,) = found["connections"]
    file, _, _ = found["lines"][int(row["ran_at"].split()[0])]
    assert file.endswith("conftest.py")
    run(db, "UPDATE relet_dashboard_ask SET until = now() - interval '1 second'")
    assert reporter.beat() > 1


def test_a_database_that_is_away_costs_one_line(db, reporter, observer, caplog):
    reporter.beat()
    caplog.set_level(logging.INFO, "relet")
    pid = backend_pid(db)
    observer.execute("ALTER TABLE relet_dashboard_process RENAME TO elsewhere")
    try:
        delays = [reporter.beat() for _ in range(6)]
        assert backend_pid(db) == pid, "a connection that is fine was thrown away"
    finally:
        observer.execute("ALTER TABLE elsewhere RENAME TO relet_dashboard_process")
    assert [round(delay, -1) for delay in delays[:1]] == [10]
    assert delays[:4] == sorted(delays[:4])
    assert 160 * 0.9 <= delays[-1] <= 160 * 1.1
    (record,) = caplog.records
    assert "relet_dashboard_process" in record.getMessage()
    assert "manage.py migrate" in record.getMessage()
    assert 9 <= reporter.beat() <= 11
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
    assert stats(db).in_use == 0


def test_a_process_removes_its_row_at_the_end(db, reporter):
    reporter.beat()
    reporter.stop()
    assert run(db, PROCESSES) == []
    assert reporter.beat() is None
    assert run(db, PROCESSES) == []


def test_close_all_removes_the_row_until_a_pool_is_opened(db, reporter, observer, monkeypatch):
    """For servers that end without Python's exit handlers."""
    monkeypatch.setattr(pools, "before_close", reporter.pause)
    monkeypatch.setattr(reporter._beats, "_run", lambda: None)
    monkeypatch.setattr(pools, "on_open", reporter.begin)

    def rows():
        return observer.execute("SELECT count(*) FROM relet_dashboard_process").fetchone()[0]

    reporter.beat()
    db.close()
    assert relet.close_all()
    assert (rows(), reporter.beat()) == (0, None)
    run(db, "SELECT 1")
    assert reporter.beat() > 1
    assert rows() == 1


def test_a_process_reports_while_it_has_no_pool(db, reporter):
    """Celery closes them between tasks."""
    reporter.beat()
    db.close()
    pools.close_all()
    assert reporter.beat() > 1
    assert reported(db)["pools"] == []


def test_rows_of_the_dead_are_deleted_by_the_living(db, reporter):
    reporter.beat()
    run(
        db,
        "UPDATE relet_dashboard_process SET id = gen_random_uuid(), "
        "beat_at = now() - interval '301 seconds'",
    )
    run(
        db,
        "INSERT INTO relet_dashboard_minute (minute, host, alias, size, in_use, waiting, "
        "checkouts, waits, waited, timeouts) SELECT now() - n * interval '50 minutes', "
        "'h', 'default', 1, 1, 0, 1, 0, 0, 0 FROM generate_series(0, 9) n",
    )
    reporter._swept -= 60
    reporter.beat()
    assert len(run(db, PROCESSES)) == 1
    sql = "SELECT count(*) FROM relet_dashboard_minute WHERE host = 'h'"
    assert run(db, sql) == [(2,)]


def test_minutes_have_what_happened_in_them(db, reporter, monkeypatch):
    moment = 60.0
    monkeypatch.setattr("relet.dashboard.reporter.time", lambda: moment)
    run(db, "SELECT 1")
    reporter.beat()
    before = stats(db).checkouts
    for _ in range(5):
        run(db, "SELECT 1")
    reporter.beat()
    assert run(db, "SELECT count(*) FROM relet_dashboard_minute") == [(0,)]
    moment = 120.0
    reporter.beat()
    ((alias, size, in_use, checkouts),) = run(
        db, "SELECT alias, size, in_use, checkouts FROM relet_dashboard_minute"
    )
    assert (alias, size, in_use) == ("default", 1, 0)
    assert checkouts >= 5 and stats(db).checkouts - before >= checkouts


@pytest.mark.parametrize("text", ["'; DROP TABLE x; --", "\\'", 'a"b', "é☃", "\0", "100%s %(a)s"])
def test_texts_of_any_kind_arrive(db, reporter, text):
    with relet.label(text):
        run(db, "SELECT 'x'", None)
    assert reporter.beat() > 1, "it failed"
    assert text in routes_reported(db)


@pytest.mark.parametrize(
    "setting", ["standard_conforming_strings = off", "TimeZone = 'Asia/Tokyo'"]
)
def test_settings_of_the_session_do_not_matter(db, reporter, observer, setting):
    observer.execute(f"ALTER ROLE CURRENT_USER SET {setting}")
    try:
        db.close()
        pools.close_all()
        with relet.label("a\\'b"):
            run(db, "SELECT 1")
        assert reporter.beat() > 1
        assert "a\\'b" in routes_reported(db)
        sql = "SELECT beat_at BETWEEN now() - interval '9 s' AND now() FROM relet_dashboard_process"
        assert run(db, sql) == [(True,)]
    finally:
        observer.execute("ALTER ROLE CURRENT_USER RESET ALL")
        db.close()
        pools.close_all()


def test_nothing_is_reported_under_djangos_test_runner(db, reporter, monkeypatch):
    from django.test import utils

    monkeypatch.setattr(utils._TestState, "saved_data", object(), raising=False)
    reporter.beat()
    assert run(db, PROCESSES) == []
