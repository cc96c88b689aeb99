"""What is peculiar to psycopg_pool."""

import threading

import psycopg
import psycopg_pool
import pytest

from relet.adapters.psycopg import PsycopgAdapter
from relet.core import ConfigurationError, PoolConfig, TransactionStatus


@pytest.fixture
def adapter(server):
    adapter = make(server)
    adapter.open()
    yield adapter
    adapter.close()


def make(server, **options):
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    names["PORT"] = "port"
    connect = {theirs: server[ours] for ours, theirs in names.items() if server[ours]}
    connect["autocommit"] = True
    options = {"min_size": 1, "max_size": 1, "timeout": 5, **options}
    return PsycopgAdapter(PoolConfig("alias", connect, options))


def test_a_connection_keeps_what_is_remembered_of_it(adapter):
    first = adapter.checkout()
    raw, proven_at = first.raw, first.proven_at
    adapter.checkin(first)
    again = adapter.checkout()
    assert again is first
    assert again.raw is raw
    assert again.proven_at > proven_at
    adapter.checkin(again)


def test_nothing_remembered_refers_to_a_connection_in_the_pool(adapter):
    # Else each connection would need the garbage collector to go away.
    connection = adapter.checkout()
    adapter.checkin(connection)
    assert connection.raw is None


def test_discard_closes_and_the_pool_replaces(adapter):
    first = adapter.checkout()
    raw = first.raw
    adapter.discard(first)
    assert raw.closed
    second = adapter.checkout()
    assert second.raw is not raw
    adapter.checkin(second)


def test_stats(adapter):
    assert adapter.stats().in_use == 0
    connection = adapter.checkout()
    stats = adapter.stats()
    assert (stats.min_size, stats.max_size, stats.in_use, stats.idle) == (1, 1, 1, 0)
    adapter.checkin(connection)
    assert (adapter.stats().in_use, adapter.stats().idle) == (0, 1)


def test_transaction_status_is_the_drivers(adapter):
    connection = adapter.checkout()
    raw = connection.raw
    assert adapter.transaction_status(raw) == TransactionStatus.IDLE
    raw.execute("BEGIN")
    assert adapter.transaction_status(raw) == TransactionStatus.IN_TRANSACTION
    with pytest.raises(psycopg.Error):
        raw.execute("SELECT 1/0")
    assert adapter.transaction_status(raw) == TransactionStatus.IN_ERROR
    raw.execute("ROLLBACK")
    with raw.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
        assert adapter.transaction_status(raw) == TransactionStatus.ACTIVE
        list(copy)
    adapter.discard(connection)
    assert adapter.transaction_status(raw) == TransactionStatus.UNKNOWN


def test_the_numbers_are_libpqs():
    assert {s.name: s.value for s in psycopg.pq.TransactionStatus} == {
        "IDLE": TransactionStatus.IDLE,
        "ACTIVE": TransactionStatus.ACTIVE,
        "INTRANS": TransactionStatus.IN_TRANSACTION,
        "INERROR": TransactionStatus.IN_ERROR,
        "UNKNOWN": TransactionStatus.UNKNOWN,
    }


def test_ping(adapter):
    connection = adapter.checkout()
    raw = connection.raw
    assert adapter.ping(raw)
    assert adapter.transaction_status(raw) == TransactionStatus.IDLE
    assert raw.autocommit
    raw.close()
    assert not adapter.ping(raw)
    adapter.discard(connection)


def test_open_is_repeatable_and_fails_again_if_it_failed(server):
    adapter = make({**server, "USER": "nobody_of_that_name"})
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match=r"DATABASES\['alias'\]"):
            adapter.open()
    adapter.close()


def test_i11_an_interrupted_waiter_loses_no_connection(adapter, monkeypatch):
    """Struck at each of two moments: while it waits, and when it has been served."""

    class Interrupt(BaseException):
        pass

    wait = psycopg_pool.pool.WaitingClient.wait

    def interrupted_after(position, timeout):
        connection = wait(position, timeout)
        assert connection is not None
        raise Interrupt

    def interrupted_before(position, timeout):
        raise Interrupt

    for interrupted in (interrupted_before, interrupted_after):
        held = adapter.checkout()
        monkeypatch.setattr(psycopg_pool.pool.WaitingClient, "wait", interrupted)
        caught = []

        def waiter(caught=caught):
            try:
                adapter.checkout()
            except Interrupt as error:
                caught.append(error)

        thread = threading.Thread(target=waiter)
        thread.start()
        if interrupted is interrupted_after:
            while not adapter.stats().waiting:
                pass
            adapter.checkin(held)
        thread.join(20)
        monkeypatch.undo()
        if interrupted is interrupted_before:
            adapter.checkin(held)
        assert len(caught) == 1
        connection = adapter.checkout(timeout=5)
        adapter.checkin(connection)


def test_i5_an_interrupted_checkin_loses_no_connection(adapter, monkeypatch):
    connection = adapter.checkout()

    def interrupted(raw, now):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter, "_give", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapter.checkin(connection)
    assert adapter.stats().in_use == 0
    adapter.checkin(adapter.checkout(timeout=5))


def test_check_options_takes_what_the_pool_takes():
    PsycopgAdapter.check_options({})
    PsycopgAdapter.check_options({"min_size": 2, "max_size": 3, "check": print})
    PsycopgAdapter.check_options(False)
    with pytest.raises(ConfigurationError):
        PsycopgAdapter.check_options({"connection_klass": 1})
