"""``relet top``, the commands that print one table, and the fleet's metrics."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import pytest
from django.apps import apps
from django.db import connections

import relet
import relet.metrics
from relet.backends.cli import main

from ..support.dsn import parameters_for, uri_of
from .conftest import NAME, insert, packed, run

ESCAPE = "\x1b[31mred\x07[bold]x[/bold]\n"


@pytest.fixture
def reported(db, reporter):
    with relet.label(ESCAPE):
        run(db, "SELECT %s::text AS found", ["s3cr3t"])
    reporter.beat()


@pytest.fixture
def uri(project, server):
    return uri_of({**parameters_for(server), "dbname": NAME})


def relet_command(*arguments, **variables):
    command = [sys.executable, "-m", "relet.backends.cli", *arguments]
    environment = {**os.environ, "COLUMNS": "160", **variables}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    encoding = environment.get("PYTHONIOENCODING")
    return subprocess.run(
        command, capture_output=True, text=True, encoding=encoding, env=environment, timeout=60
    )


@pytest.mark.parametrize(
    ("command", "unknown"), [("queries", "--alias"), ("pools", "--route"), ("processes", "--route")]
)
def test_what_the_rows_have_not_cannot_be_chosen_by(capsys, command, unknown):
    with pytest.raises(SystemExit) as caught:
        main([command, unknown, "x"])
    assert caught.value.code == 2
    assert f"unrecognized arguments: {unknown}" in capsys.readouterr().err


@pytest.mark.slow
def test_commands_print_tables(reported, uri):
    done = relet_command("queries", "--fleet", "--dsn", uri)
    assert done.returncode == 0, done.stderr
    assert "SELECT %s::text AS found" in done.stdout
    assert "s3cr3t" not in done.stdout
    done = relet_command("pools", "--dsn", uri, "--json")
    rows = json.loads(done.stdout)["rows"]
    assert [row["host"] for row in rows] == [None, socket.gethostname()]


def test_top_shows_everything_once(reported, uri):
    done = relet_command("top", "--once", "--dsn", uri)
    assert done.returncode == 0, done.stderr
    for part in ("1 process on 1 host", "Pools", "Routes", "SELECT %s::text AS found"):
        assert part in done.stdout
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout
    assert "[bold]x" in done.stdout


@pytest.mark.slow
def test_top_prints_it_once_into_a_pipe(reported, uri):
    done = relet_command("top", "--dsn", uri)
    assert done.returncode == 0, done.stderr
    assert "1 process on 1 host" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", ["top", "queries"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_the_terminal_lacks(db, reporter, uri, command, encoding):
    with relet.label("größe ← 大"):
        run(db, "SELECT 1 AS größe")
    reporter.beat()
    done = relet_command(command, "--dsn", uri, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(reported, uri):
    command = [sys.executable, "-m", "relet.backends.cli", "processes", "--dsn", uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_top_shows_it_until_it_is_interrupted(reported, uri):
    import pty

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has started the tests beside itself, and what they start would ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "relet.backends.cli", "top", "--interval", "0.5", "--dsn", uri]
    environment = {**os.environ, "COLUMNS": "160", "LINES": "60", "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    try:
        os.close(theirs)
        seen = b""
        while seen.count(b"Ctrl-C ends") < 2:
            assert select.select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # it has closed its end
            while os.read(ours, 65536):
                pass
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"SELECT %s::text AS found" in seen


def test_a_terminal_gets_no_commands_from_a_route(reported):
    from rich.console import Console

    from relet.dashboard import fleet, terminal

    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    console.print(terminal.picture(fleet.read()))
    text = console.file.getvalue()
    assert "[31mred" in text
    assert "\x1b[31mred" not in text and "\x07" not in text


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_narrow_terminal(reported, width):
    """The first columns, and statements, are legible; the last numbers are left out."""
    from rich.console import Console

    from relet.dashboard import fleet, terminal

    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(terminal.picture(fleet.read(), width))
    text = console.file.getvalue()
    assert re.search(r"^alias +size  in use", text, re.MULTILINE)
    assert re.search(r"^default +\d+/", text, re.MULTILINE)
    assert re.search(r"^route +idle +held", text, re.MULTILINE)
    assert re.search(r"^ *total +calls.* statement *$", text, re.MULTILINE)
    assert ("discarded" in text) == (width >= 120)


@pytest.mark.parametrize("command", ["top", "pools", "routes", "queries", "connections"])
def test_commands_say_what_they_need(command, capsys, monkeypatch):
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    assert main([command]) == 2
    assert "--settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [("queries", "--limit", "-1"), ("pools", "--limit", "0"), ("top", "--interval", "nan")],
)
def test_numbers_that_make_no_sense(capsys, command, option, value):
    with pytest.raises(SystemExit) as stopped:
        main([command, option, value])
    assert stopped.value.code == 2
    assert f"argument {option}: '{value}' is not a" in capsys.readouterr().err


def test_a_dsn_that_is_none(capsys):
    for dsn in "mysql://x", "postgresql://u:s3cr3t/x@h/db":
        assert main(["pools", "--dsn", dsn]) == 2
        error = capsys.readouterr().err
        assert "libpq URI" in error and "s3cr3t" not in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["pools"], ["pools", "--json"], ["top", "--once"], ["top", "--json"]]
)
def test_a_database_without_the_tables(uri, command):
    done = relet_command(*command, "--dsn", uri.replace(NAME, "postgres"))
    assert done.returncode == 1
    assert "relet_dashboard_process" in done.stdout + done.stderr


# Prometheus.


def samples():
    collector = relet.metrics.prometheus_fleet()
    return {
        (sample.name, *sample.labels.items()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_any_process_answers_for_all(db, reporter):
    from relet.dashboard.reporter import Reporter

    run(db, "SELECT 1")
    reporter.beat()
    run(db, "UPDATE relet_dashboard_process SET host = 'another', pid = 7")
    Reporter().beat()
    found = samples()
    key = "db_client_connection_pool_name"
    for instance in ("another:7", f"{socket.gethostname()}:{os.getpid()}"):
        labels = ((key, "default"), ("instance", instance))
        assert found[("db_client_connection_max", *labels)] == 1
        assert found[("db_client_operation_duration_seconds_count", *labels)] > 0


def buckets(collector):
    """The histogram of how long it took to open connections of this test's alias."""
    return {
        sample.labels["le"]: sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name == "db_client_connection_create_time_seconds_bucket"
        and sample.labels["db_client_connection_pool_name"] == "default"
    }


def test_metrics_are_those_of_the_process_itself(db, reporter):
    from prometheus_client import CollectorRegistry

    run(db, "SELECT 1")
    reporter.beat()
    own = buckets(relet.metrics.prometheus(CollectorRegistry()))
    assert own["+Inf"] > 0
    assert buckets(relet.metrics.prometheus_fleet()) == own


def test_silent_processes_and_nonsense_have_no_metrics(db, reporter):
    reporter.beat()
    run(db, "UPDATE relet_dashboard_process SET beat_at = now() - interval '31 seconds'")
    for totals in ({}, "[", [], {"metrics": {"default": {"reading": 1}}}):
        insert(db, "h", 1, "0", now={}, totals=totals)
    assert samples() == {}
    assert connections["default"].connection is None


READING = {"idle": 1, "used": 0, "pending": 0, "min_idle": 0, "max_idle": 1, "max_size": 1}
NOTHING = [0, 0, {}]
COUNTS = {
    **dict.fromkeys(("timeouts", "discarded", "resets"), 0),
    **dict.fromkeys(("operations", "waits", "uses", "creations"), NOTHING),
}


@pytest.mark.parametrize(
    ("reading", "counts"),
    [
        ({"idle": "x"}, {}),
        ({"used": None}, {}),
        ({"max_size": 1.5}, {}),
        ({"unknown": 1}, {}),
        ({}, {"timeouts": "x"}),
        ({}, {"waits": ["x", 1, {}]}),
        ({}, {"waits": [1, float("nan"), {}]}),
        ({}, {"waits": [10**4000, 1, {}]}),
        ({}, {"waits": [1, 1, {"1": "x"}]}),
        ({}, {"waits": [1, 1, {"-1": 1}]}),
        ({}, {"waits": [1, 1, {"10000": 1}]}),
        ({}, {"waits": [1, 1, []]}),
    ],
)
def test_a_row_of_nonsense_fails_no_scrape(db, reporter, reading, counts):
    from prometheus_client import generate_latest

    run(db, "SELECT 1")
    reporter.beat()
    good = samples()
    one = {"reading": {**READING, **reading}, "counts": {**COUNTS, **counts}}
    insert(db, "h", 1, "0", now={}, totals={"metrics": {"default": one}})
    generate_latest(relet.metrics.prometheus_fleet())
    # What a later version has as well is no nonsense.
    assert len(samples()) == len(good) * (2 if "unknown" in reading else 1)


def test_a_report_that_is_none_fails_no_scrape(db, reporter):
    from prometheus_client import generate_latest

    half = {"\ud800": {"reading": READING, "counts": COUNTS}}
    insert(db, "h", 1, "0", now={}, totals={"metrics": half})
    insert(db, "h", 2, "0", now={}, totals=packed("[" * 100_000 + "]" * 100_000))
    text = generate_latest(relet.metrics.prometheus_fleet()).decode()
    assert 'db_client_connection_max{db_client_connection_pool_name="?",instance="h:1"} 1.0' in text


def test_processes_with_the_same_host_and_pid_are_told_apart(db, reporter):
    """Such as the first processes of containers that share the host's network."""
    from relet.dashboard.reporter import Reporter

    run(db, "SELECT 1")
    another = Reporter()
    for one in reporter, another:
        one.beat()
    key = "db_client_connection_max"
    instances = {dict(labels)["instance"] for name, *labels in samples() if name == key}
    name = f"{socket.gethostname()}:{os.getpid()}"
    assert instances == {f"{name}:{one.id[:8]}" for one in (reporter, another)}


def test_to_export_without_the_app_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    with pytest.raises(relet.core.ConfigurationError, match=r"needs 'relet\.dashboard' in INST"):
        relet.metrics.prometheus_fleet()


def test_to_export_twice_is_to_export_once(project):
    from prometheus_client import CollectorRegistry

    for export in relet.metrics.prometheus, relet.metrics.prometheus_fleet:
        registry = CollectorRegistry()
        collector = export(registry)
        assert export(registry) is collector
        registry.unregister(collector)
        assert export(registry) is collector
