"""`relet demo`: that it ends well, and however it ends, that nothing is left.

How fast it is says the demo itself; no test does.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from relet.backends.demo.measurement import Measurement, percentile

COMMAND = [sys.executable, "-m", "relet.backends.cli", "demo"]
FEW = ["--seconds", "1", "--clients", "8", "--connections", "2"]
TIMEOUT_S = 120


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The directory for temporary files of a demo. Its path is short, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="relet-t-") as directory:
        yield Path(directory)


@pytest.fixture
def environment(scratch: Path, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "COLUMNS": "100",
        "TERM": "xterm",
        "TMPDIR": str(scratch),
        # The PostgreSQL wheel has a lock file for all servers of the user. It stays.
        "XDG_RUNTIME_DIR": str(tmp_path),
    }


def left_running(scratch: Path) -> list[str]:
    """What runs of a demo: gunicorn knows *scratch* by its environment, PostgreSQL by its files."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue  # ended; whose child it was has not looked yet
            traces = [*process.cmdline(), process.cwd(), process.environ().get("TMPDIR", "")]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(str(scratch) in trace for trace in traces):
            found.append(f"{process.pid}: {traces}")
    return found


def assert_nothing_is_left(scratch: Path) -> None:
    assert left_running(scratch) == []
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_it_compares(scratch: Path, environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [*COMMAND, *FEW, "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert_nothing_is_left(scratch)

    for row in ("requests/s", "p50 ms", "p99 ms", "wait for a connection", "errors"):
        assert row in done.stdout
    assert "times the requests of Django's native pool on the same 2 connections" in done.stdout
    assert "\x1b" not in done.stdout, "colours are for terminals"

    figures = json.loads(file.read_text())
    assert figures["settings"] == {"seconds": 1.0, "clients": 8, "connections": 2}
    native, relet = figures["measurements"]
    assert native["engine"] == "django.db.backends.postgresql"
    assert relet["engine"] == "relet.backends.psycopg"
    for each in (native, relet):
        assert each["errors"] == 0
        assert each["rows"] == each["answers"] >= each["requests"] > 0
        assert 0 < each["latency_p50_ms"] <= each["latency_p99_ms"]
        assert 0 < each["in_use_mean"] <= each["in_use_most"] <= 2


def heed_interrupts() -> None:
    """A shell has its background jobs ignore them, and what these start inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "signum"),
    [
        ("Starting PostgreSQL", signal.SIGTERM),
        ("Starting PostgreSQL", signal.SIGINT),
        ("relet: warming up", signal.SIGTERM),
    ],
)
def test_a_signal_leaves_nothing(
    line: str, signum: signal.Signals, scratch: Path, environment: dict[str, str]
) -> None:
    with subprocess.Popen(
        [*COMMAND, *FEW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    ) as demo:
        assert demo.stdout is not None
        while line not in (said := demo.stdout.readline()):
            assert said, "it ended before"
        time.sleep(0.3)
        # To the group, as a terminal does.
        os.killpg(demo.pid, signum)
        _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 128 + signum
    assert "interrupted" in errors and "Traceback" not in errors
    assert_nothing_is_left(scratch)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_nothing(scratch: Path, environment: dict[str, str]) -> None:
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *FEW, "--seconds", "60"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
        # Only a process of the terminal's own session is sent what is typed.
        preexec_fn=lambda: (heed_interrupts(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    ) as demo:
        os.close(terminal)
        shown = read_until(keyboard, "requests/s")
        os.write(keyboard, b"\x03\x03")
        shown += read_until(keyboard, None)
        demo.wait(TIMEOUT_S)
    os.close(keyboard)
    assert demo.returncode == 128 + signal.SIGINT
    assert "interrupted" in shown and "Traceback" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"
    assert_nothing_is_left(scratch)


def read_until(terminal: int, text: str | None) -> str:
    """Return what is shown until *text* is, or, without one, until the other side is gone."""
    shown = ""
    until = time.monotonic() + TIMEOUT_S
    while text is None or text not in shown:
        assert select.select([terminal], [], [], until - time.monotonic())[0], shown
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other side is gone
            data = b""
        if not data:
            assert text is None, shown
            break
        shown += data.decode(errors="replace")
    return shown


@pytest.mark.slow
def test_a_server_that_does_not_start_shows_its_log(
    scratch: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    package = tmp_path / "gunicorn"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("raise SystemExit('this gunicorn cannot serve')\n")
    done = subprocess.run(
        [*COMMAND, *FEW],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**environment, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "gunicorn ended with exit code 1" in done.stderr
    assert "this gunicorn cannot serve" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_is_left(scratch)


@pytest.mark.parametrize(
    ("answers", "rows", "errors", "ok"),
    [(5, 5, 0, True), (5, 6, 0, False), (5, 4, 0, False), (5, 5, 1, False), (0, 0, 0, False)],
)
def test_all_is_well_if_each_answered_request_wrote_its_row(
    answers: int, rows: int, errors: int, ok: bool
) -> None:
    measurement = Measurement(
        name="relet",
        engine="relet.backends.psycopg",
        seconds=2.0,
        requests=answers,
        latency_p50_ms=1.0,
        latency_p99_ms=1.0,
        wait_ms=0.0,
        in_use_mean=0.0,
        in_use_most=0,
        answers=answers,
        rows=rows,
        errors=errors,
    )
    assert measurement.ok is ok


def test_percentile() -> None:
    assert percentile([], 99) == 0
    assert percentile([7], 50) == 7
    values = list(range(1, 101))
    assert (percentile(values, 50), percentile(values, 99)) == (50, 99)
