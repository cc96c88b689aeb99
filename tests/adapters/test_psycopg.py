"""What is peculiar to psycopg_pool."""

import sys
import threading

import psycopg
import psycopg_pool
import pytest
from psycopg import _compat

from relet.adapters.psycopg import PsycopgAdapter, lean_pool
from relet.adapters.psycopg import adapter as adapter_module
from relet.core import ConfigurationError, PoolConfig, TransactionStatus
from relet.core.sql.classifier import UNREADABLE

from ..support.dsn import parameters_for
from ..support.waiting import until


@pytest.fixture
def adapter(server):
    adapter = make(server)
    adapter.open()
    yield adapter
    adapter.close()


def make(server, **options):
    connect = {**parameters_for(server), "autocommit": True}
    options = {"min_size": 1, "max_size": 1, "timeout": 5, **options}
    return PsycopgAdapter(PoolConfig("alias", connect, options))


def test_a_connection_keeps_what_is_remembered_of_it(adapter):
    first = adapter.checkout()
    raw, last_used_at = first.raw, first.last_used_at
    adapter.checkin(first)
    again = adapter.checkout()
    assert again is first
    assert again.raw is raw
    assert again.last_used_at > last_used_at
    adapter.checkin(again)


def test_a_timeout_of_0_leaves_time_to_open_the_pool(server, monkeypatch):
    monkeypatch.setattr(adapter_module, "MIN_WAIT", 20.0)
    adapter = make(server, timeout=0)
    try:
        adapter.open()
        connection = adapter.checkout()
        with pytest.raises(psycopg_pool.PoolTimeout):
            adapter.checkout()
        adapter.checkin(connection)
    finally:
        adapter.close()


def test_a_new_cursor_is_what_the_connection_makes(adapter, monkeypatch):
    """Whatever a user or a tool has put in the place of the class, the method or the factories."""
    connection = adapter.checkout()
    raw = connection.raw
    assert type(adapter.new_cursor(raw)) is type(raw.cursor()) is psycopg.Cursor
    raw.cursor_factory, raw.row_factory = psycopg.ClientCursor, psycopg.rows.dict_row
    assert type(adapter.new_cursor(raw)) is psycopg.ClientCursor
    assert adapter.new_cursor(raw).execute("SELECT 1 AS one").fetchone() == {"one": 1}
    raw.cursor = lambda: "of the connection"
    assert adapter.new_cursor(raw) == "of the connection"
    del raw.cursor
    with monkeypatch.context() as patching:
        patching.setattr(psycopg.Connection, "cursor", lambda raw: "of the class")
        assert adapter.new_cursor(raw) == "of the class"
    raw.close()
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        adapter.new_cursor(raw).execute("SELECT 1")
    adapter.discard(connection)


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


class Turn:
    """A lock whose acquire() is interrupted, before or after it has succeeded."""

    def __init__(self, turn, served):
        self.turn, self.served = turn, served
        self.release = turn.release

    def acquire(self, timeout):
        if self.served:
            assert self.turn.acquire(timeout=timeout)
        raise Interrupt


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("fairness", [0, 3600])
@pytest.mark.parametrize("served", [False, True])
def test_i11_an_interrupted_waiter_loses_no_connection(adapter, monkeypatch, served, fairness):
    """Struck while it waits; when it was handed a connection; when it was woken for one."""
    adapter.fairness = fairness

    class Waiter(lean_pool.Waiter):
        def __init__(self, since):
            super().__init__(since)
            self.turn = Turn(self.turn, served)

        __slots__ = ()

    held = adapter.checkout()
    monkeypatch.setattr(lean_pool, "Waiter", Waiter)
    caught = []

    def waiter():
        try:
            adapter.checkout()
        except Interrupt as error:
            caught.append(error)

    thread = threading.Thread(target=waiter)
    thread.start()
    if served:
        until(lambda: adapter.stats().waiting)
        adapter.checkin(held)
    thread.join(20)
    monkeypatch.undo()
    if not served:
        adapter.checkin(held)
    assert len(caught) == 1
    adapter.checkin(adapter.checkout(timeout=5))


def test_a_connection_that_comes_at_the_last_moment_is_taken(adapter, monkeypatch):
    held = adapter.checkout()

    class Late:
        """Times out, and is served before the waiter has given up."""

        def __init__(self, place):
            self.place = place

        def acquire(self, timeout):
            adapter.checkin(held)
            return False

        def release(self):
            pass

    class Waiter(lean_pool.Waiter):
        __slots__ = ()

        def __init__(self, since):
            super().__init__(since)
            self.turn = Late(self)

    monkeypatch.setattr(lean_pool, "Waiter", Waiter)
    adapter.checkin(adapter.checkout())


def test_waiters_are_told_when_the_pool_closes(adapter):
    held = adapter.checkout()
    caught = []

    def waiter():
        try:
            adapter.checkout()
        except psycopg.OperationalError as error:
            caught.append(error)

    thread = threading.Thread(target=waiter)
    thread.start()
    until(lambda: adapter.stats().waiting)
    adapter.close()
    thread.join(20)
    assert isinstance(caught[0], psycopg_pool.PoolClosed)
    raw = held.raw
    adapter.checkin(held)
    assert raw.closed


def test_expired_and_drained_connections_are_not_kept(server):
    adapter = make(server, max_lifetime=0)
    adapter.open()
    first = adapter.checkout()
    raw = first.raw
    adapter.checkin(first)
    assert raw.closed
    adapter.close()
    adapter = make(server)
    adapter.open()
    first = adapter.checkout()
    raw = first.raw
    adapter.native.drain()
    adapter.checkin(first)
    assert raw.closed
    adapter.close()


def test_reset_and_check_of_the_user_are_called(server):
    calls = []
    adapter = make(
        server, reset=lambda raw: calls.append("reset"), check=lambda raw: calls.append("check")
    )
    adapter.open()
    adapter.checkin(adapter.checkout())
    adapter.checkin(adapter.checkout())
    assert calls[:3] == ["check", "reset", "check"]
    adapter.close()


def test_the_pool_grows_for_those_who_wait(server):
    adapter = make(server, min_size=1, max_size=3)
    adapter.open()
    held = [adapter.checkout() for _ in range(3)]
    assert len({connection.raw.info.backend_pid for connection in held}) == 3
    for connection in held:
        adapter.checkin(connection)
    assert adapter.stats().in_use == 0
    adapter.close()


def test_i5_an_interrupted_checkin_loses_no_connection(adapter, monkeypatch):
    connection = adapter.checkout()

    def interrupted(slot):
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


class Unknown:
    """What psycopg cannot adapt."""

    def __repr__(self):
        return "Unknown()"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT 1", "SELECT 1"),
        (b"SELECT '\xc3\xa9'", "SELECT 'é'"),
        (
            psycopg.sql.SQL("SET {} = {}").format(psycopg.sql.Identifier("a", "b"), 5),
            'SET "a"."b" = 5',
        ),
        (bytearray(b"SELECT 1"), "SELECT 1"),
        (17, UNREADABLE),
        # What only a connection may know how to adapt.
        (
            psycopg.sql.SQL("SET {} = {}").format(psycopg.sql.Identifier("a"), Unknown()),
            'SET "a" = $0',
        ),
        (
            psycopg.sql.SQL("{}, 1").format(psycopg.sql.SQL("SELECT {}").format(Unknown())),
            "SELECT $0, 1",
        ),
    ],
    ids=repr,
)
def test_the_text_of_a_query(query, text):
    assert PsycopgAdapter.sql_text(query) == text


def template(*parts):
    """A template string, or what psycopg has in its place before Python 3.14."""
    if sys.version_info >= (3, 14):
        return _compat.Template(*parts)
    found = type("Template", (_compat.Template,), {"__iter__": lambda self: iter(parts)})
    return object.__new__(found)


def put_in(value, form=""):
    return _compat.Interpolation(value, "value", None, form)


@pytest.mark.skipif(not hasattr(_compat, "Template"), reason="psycopg takes no template strings")
def test_the_text_of_a_template():
    table, columns = psycopg.sql.Identifier("s", "t"), psycopg.sql.SQL("a, b")
    where = template(" WHERE a = ", put_in(7, "l"), " AND b = ", put_in(Unknown(), "l"))
    query = template(
        *("SELECT ", put_in(columns, "q"), " FROM ", put_in(table, "i"), put_in(where, "q")),
        *(" ORDER BY ", put_in('c"d', "i"), " LIMIT ", put_in(5), " OFFSET ", put_in(6, "b")),
    )
    assert PsycopgAdapter.sql_text(query) == (
        'SELECT a, b FROM "s"."t" WHERE a = 7 AND b = $0 ORDER BY "c""d" LIMIT $0 OFFSET $0'
    )


@pytest.mark.parametrize(
    ("query", "boolean_columns"),
    [
        ("SELECT true, false, 1, NULL::boolean", [True, False, False, False]),
        ("SELECT true WHERE false", None),
        ("SELECT true FROM generate_series(1, 2)", None),
        ("SET lock_timeout = 0", None),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_the_truths_of_a_row_that_stays(adapter, query, boolean_columns, binary):
    connection = adapter.checkout()
    cursor = connection.raw.cursor(binary=binary)
    cursor.execute(query)
    assert adapter.boolean_columns(cursor) == boolean_columns
    if boolean_columns is not None:
        assert len(cursor.fetchone()) == 4
    adapter.checkin(connection)


def test_pooled(server):
    assert make(server).pooled
    assert not PsycopgAdapter(PoolConfig("alias", {}, False)).pooled


def test_one_that_is_closed_while_it_opens_stays_closed(server, monkeypatch):
    pool = make(server)
    connecting = pool.native._connect

    def closed_meanwhile():
        pool.close()
        return connecting()

    monkeypatch.setattr(pool.native, "_connect", closed_meanwhile)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match=r"'alias'.*the pool was closed"):
            pool.open()
    assert pool.native.closed


@pytest.mark.filterwarnings("ignore:the default for the LeanPool 'open':DeprecationWarning")
@pytest.mark.parametrize("option", [{"open": True}, {}])
def test_a_pool_by_itself_opens_as_psycopgs_own(parameters, option):
    pool = lean_pool.LeanPool(kwargs=parameters, min_size=2, **option)
    try:
        pool.wait(10)
        assert pool.get_stats()["pool_available"] == 2
        with pool.connection() as raw:
            assert raw.execute("SELECT 1").fetchone() == (1,)
    finally:
        pool.close()


def test_a_pool_by_itself_that_was_not_opened_is_filled_when_it_is(parameters):
    pool = lean_pool.LeanPool(kwargs=parameters, min_size=2, open=False)
    assert pool.closed
    with pool:
        pool.wait(10)
        assert pool.get_stats()["pool_available"] == 2
    with pytest.raises(psycopg_pool.PoolClosed):
        pool.getconn()


def test_a_pool_that_its_user_has_opened_is_filled_once(server):
    adapter = make(server, min_size=2, max_size=2)
    adapter.native.open(wait=True)
    try:
        adapter.open()
        connection = adapter.checkout()
        adapter.checkin(connection)
        stats = adapter.native.get_stats()
        assert (stats["connections_num"], stats["pool_size"], stats["pool_available"]) == (2, 2, 2)
    finally:
        adapter.close()
