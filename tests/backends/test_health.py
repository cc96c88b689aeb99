"""CONN_HEALTH_CHECKS: a round trip only for a connection that was idle for long."""

import pytest
from django.db import OperationalError

from ..support import engine
from ..support.pools import all_pids, at_rest, backend_pid
from ..support.sessions import kill
from ..support.waiting import until


def statements(observer, pid):
    """The last text that the server process *pid* was given."""
    return observer.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()


@pytest.fixture
def pings(make, monkeypatch):
    """Make a wrapper, and count the pings of its pool."""

    def start(**settings):
        wrapper = make("health", **settings)
        backend_pid(wrapper)
        pool = wrapper._runner.lease.pool
        count = []
        ping = pool.ping
        monkeypatch.setattr(pool, "ping", lambda raw: count.append(1) or ping(raw))
        return wrapper, count

    return start


def test_a_connection_used_a_moment_ago_is_not_pinged(pings):
    wrapper, count = pings(CONN_HEALTH_CHECKS=True, policy={"check_idle": 60})
    for _ in range(5):
        backend_pid(wrapper)
    assert not count


def test_an_idle_connection_is_pinged(pings):
    wrapper, count = pings(CONN_HEALTH_CHECKS=True, policy={"check_idle": 0})
    for number in range(1, 4):
        backend_pid(wrapper)
        assert len(count) == number


def test_without_health_checks_nothing_is_pinged(pings):
    wrapper, count = pings(CONN_HEALTH_CHECKS=False, policy={"check_idle": 0})
    for _ in range(5):
        backend_pid(wrapper)
    assert not count


def test_one_that_the_server_has_ended_is_replaced_all_the_same(pings, observer):
    """It has said so, which takes no round trip to find out; also before a write."""
    wrapper, count = pings(CONN_HEALTH_CHECKS=False, policy={"check_idle": 0})
    pid = backend_pid(wrapper)
    kill(observer, pid)
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO testapp_item (name) VALUES ('on another')")
        cursor.execute("DELETE FROM testapp_item")
        assert cursor.rowcount == 1
    assert backend_pid(wrapper) != pid
    assert len(count) == 1
    assert at_rest(wrapper)


def test_one_to_which_the_server_has_said_something_else_is_kept(pings, observer):
    """It is pinged, and works."""
    policy = {"check_idle": 0, "session_state": "ignore"}
    wrapper, count = pings(CONN_HEALTH_CHECKS=False, policy=policy)
    pid = backend_pid(wrapper)
    with wrapper.cursor() as cursor:
        cursor.execute("LISTEN something")
    pool = wrapper._runner.lease.pool
    with wrapper.temporary_connection():
        raw = wrapper._runner.lease.connection.raw
    assert not pool.has_unread_data(raw)
    observer.execute("NOTIFY something")
    until(lambda: pool.has_unread_data(raw))
    assert backend_pid(wrapper) == pid
    assert len(count) == 1
    assert backend_pid(wrapper) == pid
    assert len(count) == 1


def test_without_health_checks_the_statement_finds_out(pings, observer):
    wrapper, _ = pings(CONN_HEALTH_CHECKS=False)
    kill(observer, backend_pid(wrapper))
    with pytest.raises(OperationalError):
        backend_pid(wrapper)
    assert backend_pid(wrapper)


#: Whether the pool itself throws away what is older than one that was found broken.
REPLACED = engine.NAME in ("sqlalchemy", "dj_db_conn_pool", "pg8000")


def test_each_older_connection_is_pinged_once_after_a_breakage(make, observer, monkeypatch):
    wrapper = make("once", size=3)
    pids = set(all_pids(wrapper))
    broken = backend_pid(wrapper)
    pool = wrapper._runner.lease.pool
    kill(observer, broken)
    with pytest.raises(OperationalError):
        for _ in pids:  # in whatever order the pool lets them
            backend_pid(wrapper)
    pinged = []
    ping = pool.ping
    monkeypatch.setattr(pool, "ping", lambda raw: pinged.append(raw.info.backend_pid) or ping(raw))
    for _ in range(3):
        all_pids(wrapper)
    survivors = pids & set(all_pids(wrapper))
    assert sorted(pinged) == sorted(survivors)
    assert survivors == (set() if REPLACED else pids - {broken})


@engine.needs("dj_db_conn_pool", "'PRE_PING'")
def test_pings_that_the_pool_is_to_make(pings):
    options = engine.adapter().options_for(size=1, timeout=5)
    wrapper, count = pings(pool={**options, "PRE_PING": True}, policy={"check_idle": 0})
    backend_pid(wrapper)
    assert len(count) == 1
