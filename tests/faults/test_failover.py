"""HOST and PORT name two servers; the one that can be written to goes, and the other takes over."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError

from ..support.pools import all_pids, at_rest
from ..support.server import DURABLE, new_server
from ..support.waiting import until
from .test_killed_backends import run

pytestmark = pytest.mark.slow


@pytest.fixture
def servers(template):
    with new_server(template, DURABLE) as primary, primary.standby() as standby:
        yield primary, standby


def where(wrapper):
    ((port,),) = run(wrapper, "SELECT inet_server_port()")
    return port


@pytest.mark.parametrize("first", ["primary", "standby"])
def test_failover(servers, use, caplog, first):
    caplog.set_level("ERROR", "psycopg.pool")  # it warns of each attempt to connect
    primary, standby = servers
    ports = [primary.port, standby.port]
    if first == "standby":
        ports.reverse()
    wrapper = use(*ports, size=2, target_session_attrs="read-write")
    assert all_pids(wrapper)
    assert where(wrapper) == primary.port
    run(wrapper, "CREATE TABLE written (what text)")
    with pytest.raises(OperationalError, match=r"standby|recovery|session is"):
        run(use(standby.port, alias="other", target_session_attrs="read-write"), "SELECT 1")
    primary.stop("fast")  # it sends the standby what there is
    standby.promote()
    failed = 0
    for _ in range(4):
        try:
            run(wrapper, "INSERT INTO written VALUES ('kept')")
        except (OperationalError, InterfaceError):
            failed += 1
    assert failed <= 1
    assert where(wrapper) == standby.port
    assert run(wrapper, "SELECT count(*) FROM written") == [(4 - failed,)]
    assert at_rest(wrapper)


def test_the_primary_is_a_standby_now(servers, use, caplog):
    """As after a failover, while a name still leads to the old primary."""
    primary, standby = servers
    run(use(primary.port, alias="other"), "CREATE TABLE written (what text)")
    wrapper = use(standby.port, size=2)
    until(lambda: run(wrapper, "SELECT to_regclass('written')::text") == [("written",)])
    before = all_pids(wrapper)
    write = "INSERT INTO written VALUES ('kept')"
    for _ in range(2):
        with pytest.raises(DatabaseError, match="read-only transaction"):
            run(wrapper, write)
    assert caplog.text.count("the server is a standby and takes no writes") == 1
    assert not set(before) & set(all_pids(wrapper))
    assert at_rest(wrapper)
    wrapper.set_autocommit(False)
    with pytest.raises(DatabaseError, match="read-only transaction"):
        run(wrapper, write)
    wrapper.rollback()
    wrapper.set_autocommit(True)
    primary.stop("fast")
    standby.promote()
    run(wrapper, write)
    assert run(wrapper, "SELECT count(*) FROM written") == [(1,)]
    # A transaction that only reads by its own wish says nothing of the server.
    pids = all_pids(wrapper)
    wrapper.set_autocommit(False)
    run(wrapper, "SET TRANSACTION READ ONLY")
    with pytest.raises(DatabaseError, match="read-only transaction"):
        run(wrapper, write)
    wrapper.rollback()
    wrapper.set_autocommit(True)
    assert all_pids(wrapper) == pids


def test_an_alias_of_a_standby_keeps_its_connections(servers, use):
    """A write there is a mistake; there is no other server to which the connections could go."""
    _, standby = servers
    wrapper = use(standby.port, size=2, health_checks=True, policy={"check_idle": 0})
    before = all_pids(wrapper)
    with pytest.raises(DatabaseError, match="read-only transaction"):
        run(wrapper, "CREATE TABLE written (what text)")
    replaced = set(all_pids(wrapper))
    assert not replaced & set(before)
    for _ in range(3):
        assert set(all_pids(wrapper)) == replaced
    assert at_rest(wrapper)
