"""A PostgreSQL server with ICU and the contrib extensions, which Django's suite needs.

No wheel carries that; it is the system's, such as Debian's package ``postgresql``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..support.dsn import database_of, parameters_of

OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


@contextmanager
def postgres() -> Iterator[dict[str, Any]]:
    """Start a server in a temporary directory; yield what ``DATABASES[alias]`` is to say."""
    if dsn := os.environ.get("RELET_TEST_DSN"):
        database = database_of(parameters_of(dsn))
        yield {name: database[name] for name in ("USER", "PASSWORD", "HOST", "PORT")}
        return
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        raise SystemExit(
            "Django's suite needs a PostgreSQL with ICU and the contrib extensions: put its "
            "initdb and pg_ctl on PATH, or name a server in RELET_TEST_DSN."
        )
    with tempfile.TemporaryDirectory(prefix="relet-suite-") as directory:
        user = _user(directory)

        def run(*command: str) -> None:
            subprocess.run(command, check=True, cwd=directory, stdout=subprocess.DEVNULL, **user)

        data, log = f"{directory}/data", f"{directory}/log"
        run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        run("pg_ctl", "-D", data, "-l", log, "-w", "-o", f"-h '' -k {directory} {OPTIONS}", "start")
        try:
            yield {"USER": "postgres", "HOST": directory, "PORT": "5432"}
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


def _user(directory: str) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then another user owns the directory."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    shutil.chown(directory, user)
    Path(directory).chmod(0o755)
    return {"user": user}
