"""I5, I6, I8: server processes that end while a connection is idle, at work, or kept."""

from __future__ import annotations

import threading

import pytest
from django.db import DatabaseError, OperationalError, transaction

from relet import hold
from relet.core.application_name import process_name

from ..support import driver
from ..support.pools import all_pids, at_rest, backend_pid
from ..support.sessions import kill, until_true
from ..support.threads import in_thread
from .conftest import UNSEEN

ALIAS = "faults"


def run(wrapper, sql):
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


@pytest.fixture
def table(observer):
    observer.execute("DROP TABLE IF EXISTS written")
    observer.execute("CREATE TABLE written (what text)")
    yield lambda: [what for (what,) in observer.execute("SELECT what FROM written").fetchall()]
    observer.execute("DROP TABLE written")


@pytest.fixture
def db(postgres, use):
    wrapper = use(postgres.port, alias=ALIAS, policy=UNSEEN)
    yield wrapper
    wrapper.close()
    assert at_rest(wrapper)


def test_all_killed_while_idle(postgres, use, observer):
    wrapper = use(postgres.port, alias=ALIAS, size=4, policy=UNSEEN)
    killed = set(all_pids(wrapper))
    for pid in killed:
        kill(observer, pid)
    with pytest.raises(OperationalError):
        backend_pid(wrapper)
    assert at_rest(wrapper)
    # One told of it; no thread is handed another one that is dead.
    assert not killed & {in_thread(lambda: backend_pid(wrapper.copy())) for _ in range(8)}
    assert not killed & set(all_pids(wrapper))
    assert at_rest(wrapper)


def test_all_killed_while_idle_with_health_checks(postgres, use, observer):
    policy = {"check_idle": 0}
    wrapper = use(postgres.port, alias=ALIAS, size=4, health_checks=True, policy=policy)
    for pid in all_pids(wrapper):
        kill(observer, pid)
    assert backend_pid(wrapper)


def test_killed_while_active(db, observer, table):
    pid = backend_pid(db)

    def kill_it():
        active = "SELECT state = 'active' AND query LIKE 'WITH%%' FROM pg_stat_activity"
        until_true(observer, f"{active} WHERE pid = %s", pid)
        kill(observer, pid)

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises(OperationalError):
        run(db, "WITH slept AS (SELECT pg_sleep(60)) INSERT INTO written SELECT 'lost' FROM slept")
    killer.join()
    assert at_rest(db)
    run(db, "INSERT INTO written VALUES ('kept')")
    assert table() == ["kept"]


def test_i8_killed_in_a_transaction(db, observer, table):
    with pytest.raises(DatabaseError), transaction.atomic(using=ALIAS):
        run(db, "INSERT INTO written VALUES ('lost')")
        kill(observer, backend_pid(db))
        for _ in range(3):
            with pytest.raises(driver.CONNECTION_LOST):
                run(db, "INSERT INTO written VALUES ('on another connection')")
    assert at_rest(db)
    assert table() == []
    run(db, "INSERT INTO written VALUES ('kept')")
    assert table() == ["kept"]


def test_i8_killed_in_an_inner_block(db, observer, table):
    with transaction.atomic(using=ALIAS):
        run(db, "INSERT INTO written VALUES ('lost')")
        with pytest.raises(DatabaseError), transaction.atomic(using=ALIAS):
            kill(observer, backend_pid(db))
            run(db, "SELECT 1")
        # Its savepoint could not be rolled back to.
        with pytest.raises(DatabaseError):
            run(db, "INSERT INTO written VALUES ('on another connection')")
    assert at_rest(db)
    assert table() == []


def test_i8_killed_without_autocommit(db, observer, table):
    db.set_autocommit(False)
    run(db, "INSERT INTO written VALUES ('lost')")
    kill(observer, backend_pid(db))
    for _ in range(3):
        with pytest.raises(driver.CONNECTION_LOST):
            run(db, "INSERT INTO written VALUES ('on another connection')")
    with pytest.raises(driver.CONNECTION_LOST):
        db.commit()
    db.close()
    assert at_rest(db)
    run(db, "INSERT INTO written VALUES ('kept')")
    assert table() == ["kept"]


def test_i12_killed_before_the_commit(db, observer, table):
    hooks = []
    with pytest.raises(driver.CONNECTION_LOST), transaction.atomic(using=ALIAS):
        run(db, "INSERT INTO written VALUES ('lost')")
        transaction.on_commit(lambda: hooks.append("ran"), using=ALIAS)
        kill(observer, backend_pid(db))
    assert at_rest(db)
    assert table() == []
    assert not hooks


def test_killed_with_a_server_side_cursor_open(db, observer):
    with pytest.raises(DatabaseError), db.chunked_cursor() as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT generate_series(1, 100000)")
        cursor.fetchmany(10)
        kill(observer, db.connection.info.backend_pid)
        while cursor.fetchmany(10):
            pass
    assert at_rest(db)
    assert backend_pid(db)


@pytest.mark.usefixtures("garbage")
def test_killed_before_a_server_side_cursor_is_closed(db, observer):
    """The error is Django's, and psycopg does not warn that the cursor was left open."""
    cursor = db.chunked_cursor()
    cursor.execute("SELECT 1")
    assert cursor.fetchall() == [(1,)]
    kill(observer, db.connection.info.backend_pid)
    with pytest.raises(driver.CONNECTION_LOST):
        cursor.close()
    assert at_rest(db)
    assert backend_pid(db)


def test_i3_killed_with_session_state(db, observer):
    """Who has set the session up does not go on, unawares, in another."""
    run(db, "SET application_name = 'mine'")
    kill(observer, backend_pid(db))
    for _ in range(3):
        with pytest.raises(driver.CONNECTION_LOST):
            run(db, "SELECT 1")
    db.close()
    assert at_rest(db)
    assert run(db, "SHOW application_name") == [(process_name(),)]


def test_killed_in_a_hold_block(db, observer):
    with hold(ALIAS):
        kill(observer, backend_pid(db))
        for _ in range(3):
            with pytest.raises(driver.CONNECTION_LOST):
                backend_pid(db)
    assert at_rest(db)
    assert backend_pid(db)
