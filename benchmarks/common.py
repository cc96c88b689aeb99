"""What the benchmarks share: a server, the engines' settings, a table, a JSON file."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
"""One entry of ``DATABASES``."""

#: Environment variable with a libpq URI of a server to use instead of an embedded one.
DSN = "RELET_TEST_DSN"

#: Engine -> its ``ENGINE`` setting. Those that have a pool take it in the same words.
ENGINES = {
    "held": "django.db.backends.postgresql",
    "native": "django.db.backends.postgresql",
    "django-pg-real-pool": "django_pg_real_pool",
    "relet": "relet.backends.psycopg",
}

_DSN_KEYS = {
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}


@contextmanager
def server() -> Iterator[Settings]:
    """Yield the part of ``DATABASES[alias]`` that names a server to measure against.

    :raises SystemExit: there is none; the text says how to get one.
    """
    if dsn := os.environ.get(DSN):
        yield _from_dsn(dsn)
        return
    from relet.backends.commands.embedded import embedded_postgres

    try:
        # A commit that waits for the disk measures the disk.
        with embedded_postgres({"synchronous_commit": "off"}) as embedded:
            yield embedded.database()
    except ImportError as error:
        raise SystemExit(f"{error}\nOr set {DSN} to the URI of a server.") from error


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


def settings_for(engine: str, database: Settings, pool: dict[str, Any]) -> Settings:
    """Return ``DATABASES[alias]`` for *engine* on the server *database*.

    :param pool: the pool's keyword arguments; the engine ``held`` has no pool.
    """
    settings: Settings = {**database, "ENGINE": ENGINES[engine]}
    if engine == "held":
        settings["CONN_MAX_AGE"] = None
    else:
        settings["OPTIONS"] = {**database.get("OPTIONS", {}), "pool": pool}
    return settings


def configure(databases: dict[str, Settings]) -> None:
    """Set Django up with *databases* and nothing else."""
    import django
    from django.conf import settings

    default = databases.get("default", next(iter(databases.values())))
    settings.configure(DATABASES={"default": default, **databases}, USE_TZ=True)
    django.setup()


def environment() -> dict[str, Any]:
    """Return what the figures depend on, for the JSON file."""
    packages = (
        "relet",
        "django",
        "psycopg",
        "psycopg-binary",
        "psycopg-pool",
        "django-pg-real-pool",
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


def note_environment(environment: dict[str, Any]) -> None:
    """Print what the figures depend on, and whether the machine was busy at the start."""
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    print(f"Python {environment['python']}, {environment['cpus']} CPUs, {packages}")
    load, cpus = environment["load_1min"], environment["cpus"]
    if load is not None and cpus and load > cpus / 4:
        print(f"note: the load was {load:.1f} at the start; figures of a busy machine are noisy")


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table: the first column to the left, all others to the right."""
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
