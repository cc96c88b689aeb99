"""PgBouncer between gunicorn and the server."""

from __future__ import annotations

from typing import Any

import pytest

from ..support.aliases import Aliases
from ..support.engine import ENGINE, put_small_pool
from ..support.pools import backend_pid
from . import test_gunicorn
from .bouncer import bouncer, installed, version
from .conftest import Project
from .test_gunicorn import COMMAND, THREADS, WORKERS
from .watch import Watch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not installed(), reason="PgBouncer is not installed (apt-get install pgbouncer)"
    ),
]

CLIENTS = WORKERS * THREADS


def test_in_transaction_mode(project: Project, watch: Watch) -> None:
    """Fewer connections to the server than in relet's pools, and no session is anybody's own."""
    options = project.database["OPTIONS"]
    options["policy"] = {"session_state": "error"}
    options["tag"] = True  # SET LOCAL is no state of a session
    project.database["DISABLE_SERVER_SIDE_CURSORS"] = True
    size = 3
    with watch.limit(size), bouncer(project.database, mode="transaction", size=size) as behind:
        project.served.update(behind)
        with project.site(*COMMAND) as site:
            site.load(
                ("write", "atomic", "stream", "fails", "async"), requests=240, clients=CLIENTS
            )
            watch.wait_for({"idle"})
            site.wait_for_rest(WORKERS)
            with pytest.raises(AssertionError, match="leave a setting in its session"):
                site.load(("state",), requests=1, clients=1)
    project.assert_written(site.acknowledged)


@pytest.mark.parametrize(
    "most",
    [
        pytest.param(None, id="without"),
        pytest.param(
            200,
            id="with",
            marks=pytest.mark.skipif(
                version() < (1, 21), reason="PgBouncer before 1.21 has no max_prepared_statements"
            ),
        ),
    ],
)
def test_prepared_plans_in_transaction_mode(
    project: Project, watch: Watch, most: int | None
) -> None:
    """Everything is to be prepared, in sessions that each transaction shares with all others."""
    options = project.database["OPTIONS"]
    options["prepare"] = {"mode": "auto", "after": 0}
    project.database["DISABLE_SERVER_SIDE_CURSORS"] = True
    size = 3
    with (
        watch.limit(size),
        bouncer(project.database, mode="transaction", size=size, prepared=most) as behind,
    ):
        project.served.update(behind)
        with project.site(*COMMAND) as site:
            site.load(("write", "atomic", "fails", "async"), requests=240, clients=CLIENTS)
            watch.wait_for({"idle"})
            site.wait_for_rest(WORKERS)
    project.assert_written(site.acknowledged)


def test_in_session_mode(project: Project, watch: Watch) -> None:
    """A connection of a pool has one to the server for as long as it lives, so all have."""
    size = WORKERS * test_gunicorn.SIZE
    # What was probed before a pool is opened is used again.
    with watch.limit(size), bouncer(project.database, mode="session", size=size) as behind:
        project.served.update(behind)
        with project.site(*COMMAND) as site:
            site.load(test_gunicorn.VIEWS, requests=240, clients=CLIENTS)
            watch.wait_for({"idle"})
            site.wait_for_rest(WORKERS)
    project.assert_written(site.acknowledged)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_budget_notices_it(
    server: dict[str, Any], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """By the process id that PgBouncer tells, which is none of the server's."""
    caplog.set_level("WARNING", "relet")
    with bouncer(server, mode=mode, size=2) as behind, Aliases() as aliases:
        budget = {"connections": 2, "group": f"bouncer {mode}"}
        settings = {"ENGINE": ENGINE, **server, **behind, "OPTIONS": {"budget": budget}}
        put_small_pool(settings)
        backend_pid(aliases.add("bounced", settings))
    assert "there is a pooler between this process and the server" in caplog.text
