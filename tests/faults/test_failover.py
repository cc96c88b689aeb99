"""HOST and PORT name two servers; the one that can be written to goes, and the other takes over."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from unittest import mock

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.transaction import atomic

from relet import hold, policies
from relet.backends.leases import standby

from ..support import driver
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


WRITE = "INSERT INTO written VALUES ('kept')"
REFUSED = r"read-only transaction|during recovery"


def refused(wrapper):
    with pytest.raises(DatabaseError, match=REFUSED):
        run(wrapper, WRITE)


def in_atomic(wrapper):
    with suppress(DatabaseError), atomic(wrapper.alias):
        run(wrapper, WRITE)


def in_an_inner_atomic(wrapper):
    with atomic(wrapper.alias):
        run(wrapper, "SELECT 1")
        in_atomic(wrapper)
        run(wrapper, "SELECT 1")


def in_hold(wrapper):
    with hold(wrapper.alias):
        refused(wrapper)
        run(wrapper, "SELECT 1")


def in_atomic_in_hold(wrapper):
    with hold(wrapper.alias):
        in_atomic(wrapper)
        run(wrapper, "SELECT 1")


def after_set(wrapper):
    run(wrapper, "SET work_mem = '5MB'")
    refused(wrapper)
    wrapper.close()


def after_raw_begin(wrapper):
    run(wrapper, "BEGIN")
    refused(wrapper)
    run(wrapper, "ROLLBACK")


def without_autocommit(wrapper):
    wrapper.set_autocommit(False)
    refused(wrapper)
    wrapper.rollback()
    wrapper.set_autocommit(True)


def callproc(wrapper):
    with wrapper.cursor() as cursor, pytest.raises(DatabaseError, match=REFUSED):
        cursor.callproc("nextval", ["numbers"])
    wrapper.close()


def executemany(wrapper):
    with wrapper.cursor() as cursor, pytest.raises(DatabaseError, match=REFUSED):
        cursor.executemany("INSERT INTO written VALUES (%s)", [("a",), ("b",)])


def with_server_cursor(wrapper):
    with suppress(DatabaseError), atomic(wrapper.alias), wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 9)")
        cursor.fetchmany(2)
        run(wrapper, WRITE)


def in_mode(release: str) -> Callable[[object], None]:
    def write(wrapper):
        with policies.override(wrapper.alias, release=release):
            refused(wrapper)
            wrapper.close()

    return write


def with_a_note(wrapper):
    """What others ask of a running statement is done when it has ended."""
    runner, block = wrapper._runner, object()
    is_refused = standby.is_refused_by_one

    def noted(error, lease):
        runner.leave(lambda owner: owner.release_hold(block))
        return is_refused(error, lease)

    wrapper.hold(block)
    with mock.patch.object(standby, "is_refused_by_one", noted):
        refused(wrapper)
    assert not runner.holds


def copy_into(cursor, sql):
    if driver.NAME == "psycopg":
        with cursor.copy(sql) as copying:
            copying.write("kept\n")
    else:
        cursor.copy_expert(sql, io.StringIO("kept\n"))


def copy(wrapper):
    with wrapper.cursor() as cursor, pytest.raises(Exception, match=REFUSED):
        copy_into(cursor, "COPY written FROM STDIN")


def stream(wrapper):
    with wrapper.cursor() as cursor, pytest.raises(Exception, match=REFUSED):
        list(cursor.stream(f"{WRITE} RETURNING what"))


def copy_in_atomic(wrapper):
    with (
        pytest.raises(Exception, match=REFUSED),
        atomic(wrapper.alias),
        wrapper.cursor() as cursor,
    ):
        copy_into(cursor, "COPY written FROM STDIN")


@pytest.fixture(scope="module")
def pair(template):
    with new_server(template, DURABLE) as primary, primary.standby() as standby:
        with driver.connect(**primary.parameters) as observer:
            observer.execute("CREATE TABLE written (what text)")
            observer.execute("CREATE SEQUENCE numbers")
        with driver.connect(**standby.parameters) as observer:
            arrived = "SELECT to_regclass('numbers') IS NOT NULL"
            until(lambda: observer.execute(arrived).fetchall() == [(True,)])
        yield primary, standby


@pytest.mark.parametrize(
    "write",
    [
        *(refused, in_atomic, in_an_inner_atomic, in_hold, in_atomic_in_hold, after_set),
        *(after_raw_begin, without_autocommit, callproc, executemany, with_server_cursor),
        *(copy, copy_in_atomic, with_a_note),
        pytest.param(stream, marks=driver.needs("psycopg", "stream()")),
        *(pytest.param(in_mode(mode), id=mode) for mode in ("cursor", "request")),
    ],
)
def test_no_connection_to_the_standby_is_kept(pair, use, write):
    """Wherever the refused statement stood, and whatever keeps its connection until later."""
    primary, standby = pair
    leads_to = {"port": standby.port}
    wrapper = use(standby.port, size=2, connection_parameters=lambda known: dict(leads_to))
    assert all_pids(wrapper)
    write(wrapper)
    assert at_rest(wrapper)
    leads_to["port"] = primary.port
    for _ in range(3):
        with atomic(wrapper.alias):
            assert where(wrapper) == primary.port
    assert all_pids(wrapper)
    assert at_rest(wrapper)
