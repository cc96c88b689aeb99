"""PgBouncer between gunicorn and the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ..support.aliases import Aliases
from ..support.engine import ENGINE, put_small_pool
from ..support.pools import all_pids, backend_pid
from ..support.threads import Thread
from ..support.waiting import until
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


@pytest.fixture
def behind_one(server: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Any]:
    """A wrapper behind PgBouncer in the mode *request.param*, with one connection to the server."""
    with bouncer(server, mode=request.param, size=1) as behind, Aliases() as aliases:
        settings = {"ENGINE": ENGINE, **server, **behind, "DISABLE_SERVER_SIDE_CURSORS": True}
        put_small_pool(settings, size=2)
        yield aliases.add("bounced", settings)


def run(wrapper: Any, sql: str) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def held_by_another(lock: Any) -> bool:
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True


@pytest.mark.parametrize("behind_one", ["transaction"], indirect=True)
def test_a_thread_that_waits_for_its_server_stops_no_other(behind_one: Any) -> None:
    """One reads definitions; the other's transaction has the only server, and defines some."""
    thread = Thread()
    other = thread(behind_one.copy)
    assert len(all_pids(behind_one)) == 2  # else the other would wait for a connection
    thread(lambda: run(other, "SELECT 1"))
    definitions = other._runner.handle.pool.definitions
    try:
        run(behind_one, "BEGIN")
        run(behind_one, "CREATE VIEW waited AS SELECT 1 AS n")
        thread.begin(lambda: run(other, "SELECT 2 AS n"))
        until(lambda: held_by_another(definitions._lock), 10)
        assert run(behind_one, "SELECT n FROM waited") == [(1,)]
        run(behind_one, "ROLLBACK")
        assert thread.result() == [(2,)]
    finally:
        thread(other.close)
        thread.end()
        behind_one.close()


@pytest.mark.parametrize("behind_one", ["statement"], indirect=True)
def test_in_statement_mode(behind_one: Any) -> None:
    """It takes no transactions, not even to read definitions."""
    run(behind_one, "CREATE FUNCTION trap() RETURNS text LANGUAGE sql RETURN now()::text")
    try:
        run(behind_one, "SELECT trap()")
        assert behind_one._runner.handle.pool.definitions.memo.stale is False
        assert behind_one.connection is None
    finally:
        run(behind_one, "DROP FUNCTION trap")


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
