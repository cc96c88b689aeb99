"""What is peculiar to SQLAlchemy's pools."""

import gc
import re
import threading

import pytest
from sqlalchemy import event, exc
from sqlalchemy import pool as sqlalchemy_pool

from relet.adapters.queue_pool import lean_queue_pool
from relet.adapters.queue_pool.lean_queue_pool import LeanQueuePool
from relet.adapters.sqlalchemy import SQLAlchemyAdapter
from relet.core import ConfigurationError, PoolConfig, TransactionStatus

from ..support.waiting import until

OperationalError = SQLAlchemyAdapter.dbapi.OperationalError


@pytest.fixture
def make(parameters):
    made = []

    def make(configure=lambda raw: None, pool=None, opened=True, **options):
        options = {"pool_size": 1, "max_overflow": 0, "timeout": 5, **options}
        config = PoolConfig("alias", parameters, options if pool is None else pool, configure)
        made.append(SQLAlchemyAdapter(config))
        if opened:
            made[-1].open()
        return made[-1]

    yield make
    for adapter in made:
        adapter.close()


def pid(adapter, connection):
    return adapter.execute_internal(connection.raw, "SELECT pg_backend_pid()")[0][0]


def pids_of(adapter, count):
    """The server processes of *count* connections, all of them idle again."""
    held = [adapter.checkout() for _ in range(count)]
    pids = [pid(adapter, connection) for connection in held]
    for connection in held:
        adapter.checkin(connection)
    return pids


def kill(adapter, other, number):
    adapter.execute_internal(other.raw, f"SELECT pg_terminate_backend({number}, 5000)")


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            False,
            {},
            {"pool_size": 3, "max_overflow": -1, "timeout": 1.5, "recycle": 60, "use_lifo": True},
            {"timeout": None},
            {"echo": "debug", "pre_ping": True, "logging_name": "x", "events": []},
            {"class": "NullPool", "echo": True},
            {"class": sqlalchemy_pool.QueuePool, "pool_size": 2},
            {"class": "sqlalchemy.pool.QueuePool"},
        ],
    )
    def test_what_it_takes(self, options):
        SQLAlchemyAdapter.check_options(options)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"pool_sise": 1}, r"unknown 'pool_sise' \(did you mean 'pool_size'\?\)"),
            ({"class": "NullPool", "pool_size": 1}, "unknown 'pool_size'"),
            ({"pool_size": -1}, "'pool_size' is -1; it must be a whole number, 0 or more"),
            ({"pool_size": 1.5}, "'pool_size' is 1.5; it must be a whole number"),
            ({"pool_size": True}, "'pool_size' is True"),
            ({"max_overflow": -2}, "'max_overflow' is -2; it must be a whole number, -1 or more"),
            ({"timeout": "30"}, "'timeout' is '30'; it must be a number of seconds, 0 or more"),
            ({"timeout": -1}, "'timeout' is -1"),
            ({"recycle": None}, "'recycle' is None; it must be a number of seconds, -1 or more"),
            ({"creator": print}, "'creator' cannot be set: connection parameters belong in"),
            ({"dialect": 1}, "'dialect' cannot be set"),
            ({"reset_on_return": None}, "'reset_on_return' cannot be set: relet itself"),
            ({"events": 7}, "not iterable"),
            ({"class": "NoPool"}, "'class': 'NoPool' cannot be imported"),
            ({"class": "no_such.Pool"}, "'class': 'no_such.Pool' cannot be imported"),
            ({"class": dict}, r"'class' is <class 'dict'>; it must be a pool class of SQLAlchemy"),
            ({"class": "SingletonThreadPool"}, "cannot be SingletonThreadPool: it keeps a connec"),
            ({"class": sqlalchemy_pool.StaticPool}, "cannot be StaticPool: it hands the same"),
            ({"class": "AssertionPool"}, "cannot be AssertionPool: it raises an AssertionError"),
            ({"class": "AsyncAdaptedQueuePool"}, "cannot be AsyncAdaptedQueuePool: it is for"),
        ],
    )
    def test_what_it_refuses(self, options, says):
        with pytest.raises(ConfigurationError, match=says):
            SQLAlchemyAdapter.check_options(options)

    def test_they_reach_the_pool(self, make):
        pool = make(pool_size=3, max_overflow=2, timeout=7, recycle=60, use_lifo=True).native
        assert type(pool) is LeanQueuePool
        assert (pool.size(), pool._max_overflow, pool.timeout()) == (3, 2, 7)
        assert (pool._recycle, pool._pool.use_lifo) == (60, True)

    def test_pre_ping_is_for_the_wrapper(self, make):
        assert not make().health_checks
        adapter = make(pre_ping=True)
        assert adapter.health_checks
        assert not adapter.native._pre_ping


class TestSize:
    def test_connections_beyond_it_are_not_kept(self, make):
        adapter = make(pool_size=1, max_overflow=1)
        assert adapter.stats().max_size == 2
        first, second = adapter.checkout(), adapter.checkout()
        raw = second.raw
        adapter.checkin(first)
        adapter.checkin(second)
        assert raw.closed
        assert (adapter.stats().size, adapter.stats().idle) == (1, 1)

    @pytest.mark.parametrize("options", [{"pool_size": 0}, {"max_overflow": -1}])
    def test_no_limit(self, make, options):
        adapter = make(**options)
        assert adapter.stats().max_size is None
        held = [adapter.checkout() for _ in range(5)]
        assert adapter.stats().in_use == 5
        for connection in held:
            adapter.checkin(connection)
        kept = 1 if "max_overflow" in options else None
        assert adapter.stats().max_idle == kept
        assert adapter.stats().idle == (kept or 5)

    @pytest.mark.parametrize(("use_lifo", "which"), [(False, 0), (True, 2)])
    def test_the_order_of_reuse(self, make, use_lifo, which):
        adapter = make(pool_size=3, use_lifo=use_lifo)
        pids = pids_of(adapter, 3)
        connection = adapter.checkout()
        assert pid(adapter, connection) == pids[which]
        adapter.checkin(connection)


class TestDisconnects:
    """https://docs.sqlalchemy.org/en/20/core/pooling.html#disconnect-handling-optimistic"""

    def test_older_connections_are_not_used_again(self, make):
        adapter, other = make(pool_size=3), make()
        admin = other.checkout()
        pids = pids_of(adapter, 3)
        broken = adapter.checkout()
        kill(other, admin, pid(adapter, broken))
        assert not adapter.ping(broken.raw)
        adapter.discard(broken)
        # The server closed only one, but nobody knows.
        assert not set(pids) & set(pids_of(adapter, 3))
        other.checkin(admin)

    def test_younger_ones_are(self, make):
        adapter, other = make(pool_size=2), make()
        admin = other.checkout()
        first, second = adapter.checkout(), adapter.checkout()
        for connection in first, second:
            kill(other, admin, pid(adapter, connection))
            assert not adapter.ping(connection.raw)
        adapter.discard(first)
        young = adapter.checkout()
        number = pid(adapter, young)
        adapter.checkin(young)
        # It broke with the first, and says nothing of those that were opened since.
        adapter.discard(second)
        assert pids_of(adapter, 1) == [number]
        other.checkin(admin)

    def test_discarding_one_that_works_leaves_the_others(self, make):
        adapter = make(pool_size=2)
        pids = pids_of(adapter, 2)
        connection = adapter.checkout()
        pids.remove(pid(adapter, connection))
        adapter.discard(connection)
        assert pids_of(adapter, 1) == pids

    def test_what_is_too_old_is_replaced(self, make):
        adapter = make(recycle=0)
        first = adapter.checkout()
        raw, first.initialized = first.raw, True
        adapter.checkin(first)
        second = adapter.checkout()
        assert raw.closed
        assert second.raw is not raw
        assert not second.initialized
        adapter.checkin(second)


class TestPlaces:
    def test_one_whose_connection_fails_goes_to_who_waits(self, make):
        """QueuePool itself would let them wait until their time is up."""
        connecting, fail = threading.Event(), threading.Event()
        failed = []

        def configure(raw):
            if not failed:
                failed.append(raw)
                connecting.set()
                fail.wait(20)
                raise ValueError

        adapter = make(configure, timeout=60)
        outcomes = []

        def checkout():
            try:
                outcomes.append(adapter.checkout())
            except ValueError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=checkout) for _ in range(2)]
        threads[0].start()
        assert connecting.wait(20)
        threads[1].start()
        until(lambda: adapter.stats().waiting)
        fail.set()
        for thread in threads:
            thread.join(20)
        assert failed[0].closed
        # In whatever order the threads go on.
        (served,) = (outcome for outcome in outcomes if not isinstance(outcome, ValueError))
        assert len(outcomes) == 2
        assert adapter.stats().in_use == 1
        adapter.checkin(served)

    def test_a_reconnect_that_fails_frees_its_place(self, make):
        fail = []

        def configure(raw):
            if fail:
                raise fail.pop()

        adapter = make(configure, recycle=0)
        adapter.checkin(adapter.checkout())
        fail.append(ValueError())
        with pytest.raises(ValueError):  # noqa: PT011
            adapter.checkout()
        assert adapter.stats().in_use == 0
        adapter.checkin(adapter.checkout())

    def test_i5_an_interrupted_checkin_loses_none(self, make, monkeypatch):
        adapter = make()
        connection = adapter.checkout()
        raw = connection.raw

        def interrupted(entry):
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(adapter.native, "checkin_from", interrupted)
        with pytest.raises(KeyboardInterrupt):
            adapter.checkin(connection)
        assert raw.closed
        assert adapter.stats().in_use == 0
        adapter.checkin(adapter.checkout(timeout=5))

    def test_dispose_keeps_count_of_what_is_in_use(self, make):
        adapter = make(pool_size=2)
        pids = pids_of(adapter, 2)
        held = adapter.checkout()
        adapter.native.dispose()
        stats = adapter.stats()
        assert (stats.in_use, stats.idle) == (1, 0)
        other = adapter.checkout()
        assert pid(adapter, other) not in pids
        with pytest.raises(OperationalError, match="couldn't get a connection"):
            adapter.checkout(timeout=0)
        adapter.checkin(held)
        adapter.checkin(other)
        assert adapter.stats().idle == 2


class TestOthers:
    """Code that knows SQLAlchemy's pools, and uses this one."""

    def test_connect_shares_the_connections(self, make):
        adapter = make()
        pids = pids_of(adapter, 1)
        proxy = adapter.native.connect()
        assert adapter.stats().in_use == 1
        assert adapter.execute_internal(proxy.dbapi_connection, "SELECT pg_backend_pid()") == [
            (pids[0],)
        ]
        with pytest.raises(OperationalError, match=r"raise OPTIONS\['pool'\]\['pool_size'\]"):
            adapter.checkout(timeout=0)
        proxy.close()
        assert pids_of(adapter, 1) == pids
        proxy = adapter.native.connect()
        proxy.invalidate()
        assert adapter.stats().size == 0
        assert pids_of(adapter, 1) != pids

    def test_their_timeout_is_sqlalchemys(self, make):
        adapter = make(timeout=0.01)
        held = adapter.checkout()
        with pytest.raises(exc.TimeoutError):
            adapter.native.connect()
        adapter.checkin(held)

    @pytest.mark.parametrize("by", ["option", "listen"])
    def test_listeners_are_called(self, make, parameters, by):
        seen = []
        listeners = [
            (lambda *args, name=name: seen.append(name), name)
            for name in ("connect", "checkout", "checkin", "reset")
        ]
        if by == "option":
            adapter = make(events=listeners)
        else:
            adapter = make(opened=False)
            for listener, name in listeners:
                event.listen(adapter.native, name, listener)
            adapter.open()
        pids = pids_of(adapter, 1)
        assert seen == ["connect", "checkout", "reset", "checkin"]
        connection = adapter.checkout()
        stats = adapter.stats()
        assert (stats.in_use, stats.checkouts) == (1, 2)
        assert [pid(adapter, connection)] == pids
        adapter.discard(connection)
        assert adapter.stats().in_use == 0
        assert pids_of(adapter, 1) != pids

    def test_who_listens_too_late_does_no_harm(self, make):
        adapter = make()
        connection = adapter.checkout()
        event.listen(adapter.native, "checkin", lambda *args: None)
        adapter.open()  # as each wrapper's first connect() does
        adapter.checkin(connection)
        assert (adapter.stats().in_use, adapter.stats().idle) == (0, 1)
        adapter.checkin(adapter.checkout(timeout=0))

    @pytest.mark.parametrize("own", [False, True])
    @pytest.mark.parametrize("left", ["autocommit", "transaction", "raw", "error"])
    def test_what_they_leave_is_tidied_up(self, make, left, own):
        """Else the next statement would be part of a transaction that nobody commits."""
        adapter = make(**({"class": Own} if own else {}))
        pids = pids_of(adapter, 1)
        proxy = adapter.native.connect()
        raw = proxy.dbapi_connection
        raw.autocommit = left not in ("autocommit", "transaction")
        if left != "autocommit":
            raw.cursor().execute("BEGIN; SELECT 1" if left != "transaction" else "SELECT 1")
        if left == "error":
            with pytest.raises(adapter.dbapi.Error):
                raw.cursor().execute("SELECT 1/0")
        proxy.close()
        connection = adapter.checkout()
        assert adapter.transaction_status(connection.raw) == TransactionStatus.IDLE
        assert connection.raw.autocommit is True
        assert pid(adapter, connection) in pids
        adapter.checkin(connection)

    def test_one_that_cannot_be_tidied_up_is_closed(self, make):
        adapter = make()
        proxy = adapter.native.connect()
        proxy.dbapi_connection.close()
        proxy.close()
        assert adapter.stats().size == 0
        pids_of(adapter, 1)

    def test_a_proxy_that_is_collected_while_one_looks_is_not_missed(self, make, monkeypatch):
        """Between the look for an idle connection and the place in the queue."""
        adapter = make()
        proxies = [adapter.native.connect()]

        class Waiter(lean_queue_pool.Waiter):
            __slots__ = ()

            def __init__(self, since):
                super().__init__(since)
                proxies.clear()
                gc.collect()

        monkeypatch.setattr(lean_queue_pool, "Waiter", Waiter)
        adapter.checkin(adapter.checkout(timeout=20))
        assert adapter.stats().wait_ms < 10_000

    def test_listening_for_new_connections_costs_no_proxy(self, make):
        adapter = make(events=[(lambda *args: None, "connect")])
        connection = adapter.checkout()
        assert not hasattr(connection.entry, "_connection_record")
        adapter.checkin(connection)


class Own(sqlalchemy_pool.QueuePool):
    pass


class TestOtherClasses:
    def check(self, make, adapter, other):
        """All that an adapter does, where entries come with a proxy."""
        pids = pids_of(adapter, 2)
        connection = adapter.checkout()
        assert connection.raw.autocommit
        assert pid(adapter, connection) in pids
        assert connection is not adapter.checkout()
        assert adapter.stats().in_use == 2
        with pytest.raises(OperationalError, match=r"DATABASES\['alias'\]: QueuePool limit"):
            adapter.checkout()
        broken = pid(adapter, connection)
        admin = other.checkout()
        kill(other, admin, broken)
        other.checkin(admin)
        assert not adapter.ping(connection.raw)
        adapter.discard(connection)
        assert adapter.stats().in_use == 1
        fresh = adapter.checkout()
        assert pid(adapter, fresh) not in pids
        raw = fresh.raw
        adapter.close()
        assert not raw.closed
        adapter.checkin(fresh)
        assert raw.closed
        with pytest.raises(OperationalError, match=r"DATABASES\['alias'\]: the pool is closed"):
            adapter.checkout()

    def test_dispose_keeps_count(self, make):
        adapter = make(**{"class": Own}, pool_size=2)
        pids_of(adapter, 2)
        proxy = adapter.native.connect()
        adapter.close()
        assert (adapter.native.checkedout(), adapter.native.checkedin()) == (1, 0)
        proxy.close()
        assert adapter.native.checkedout() == 0

    def test_a_subclass(self, make):
        adapter = make(**{"class": Own}, pool_size=2, timeout=0.01)
        assert type(adapter.native) is Own
        self.check(make, adapter, make())

    @pytest.mark.parametrize("options", [False, {"class": "NullPool"}])
    def test_no_pool(self, make, options):
        assert not SQLAlchemyAdapter.is_pooling(options)
        adapter = make(pool=options)
        assert not adapter.pooled
        assert adapter.stats().max_size is None
        connection = adapter.checkout()
        raw = connection.raw
        assert adapter.stats().in_use == 1
        adapter.checkin(connection)
        assert raw.closed
        assert (adapter.stats().in_use, adapter.stats().checkouts) == (0, 1)


def test_a_server_that_refuses_is_asked_again(parameters):
    adapter = SQLAlchemyAdapter(PoolConfig("alias", {**parameters, "user": "relet_nobody"}))
    adapter.open()
    for _ in range(2):
        with pytest.raises(OperationalError, match=r"DATABASES\['alias'\]: cannot connect"):
            adapter.checkout()
    assert adapter.stats().in_use == 0
    adapter.close()


class TestLog:
    """SQLAlchemy's logger tells what it would tell of a QueuePool."""

    def told(self, caplog):
        return [
            re.sub(r"<.*>", "...", record.message)
            for record in caplog.records
            if record.name.startswith("sqlalchemy.pool.")
        ]

    def test_checkouts_and_checkins(self, make, caplog):
        adapter = make()
        adapter.checkin(adapter.checkout())
        # The level may be set at any time.
        with caplog.at_level("DEBUG", "sqlalchemy.pool"):
            adapter.checkin(adapter.checkout())
        assert self.told(caplog) == [
            "Connection ... checked out from pool",
            "Connection ... being returned to pool",
        ]
        caplog.clear()
        adapter.checkin(adapter.checkout())
        assert self.told(caplog) == []

    def test_echo(self, make, caplog, capsys):
        adapter = make(echo="debug", logging_name="mine")
        adapter.checkin(adapter.checkout())
        told = self.told(caplog)
        assert told[0] == "Created new connection ..."
        assert told[1:] == [
            "Connection ... checked out from pool",
            "Connection ... being returned to pool",
        ]
        assert {record.name for record in caplog.records} == {"sqlalchemy.pool.impl.QueuePool.mine"}

    def test_a_disconnection(self, make, caplog):
        adapter, other = make(pool_size=2), make()
        pids = pids_of(adapter, 2)
        helper, connection = other.checkout(), adapter.checkout()
        kill(other, helper, pid(adapter, connection))
        assert not adapter.ping(connection.raw)
        with caplog.at_level("INFO", "sqlalchemy.pool"):
            adapter.discard(connection)
        detected, invalidated = self.told(caplog)
        assert detected.startswith("Disconnection detected, invalidating all pooled connections")
        assert invalidated == "Invalidate connection ..."
        again = adapter.checkout()
        assert pid(adapter, again) not in pids
        adapter.checkin(again)
        other.checkin(helper)

    def test_the_end(self, make, caplog):
        adapter = make()
        adapter.checkin(adapter.checkout())
        with caplog.at_level("INFO", "sqlalchemy.pool"):
            adapter.close()
        (told,) = self.told(caplog)
        assert told.startswith("Pool disposed. Pool size: ")


class TestWithoutATimeout:
    def test_it_waits(self, make):
        adapter = make(timeout=None)
        assert adapter.native.timeout() is None
        first, found = adapter.checkout(), []
        thread = threading.Thread(target=lambda: found.append(adapter.checkout()))
        thread.start()
        until(lambda: adapter.stats().waiting)
        adapter.checkin(first)
        thread.join(20)
        adapter.checkin(found[0])

    def test_a_timeout_of_the_callers(self, make):
        adapter = make(timeout=None)
        held = adapter.checkout()
        with pytest.raises(OperationalError, match=r"couldn't .* after 0\.01 sec"):
            adapter.checkout(timeout=0.01)
        adapter.checkin(held)


class TestRecordInfo:
    def test_it_outlives_its_connection(self, make):
        """What a listener keeps there; `info` goes with the connection."""
        seen = []

        def connected(raw, record):
            seen.append((record.record_info.get("count", 0), record.info.get("count", 0)))
            record.record_info["count"] = record.info["count"] = len(seen)

        adapter = make(events=[(connected, "connect")])
        for _ in range(3):
            adapter.discard(adapter.checkout())
        with_proxy = adapter.native.connect()
        with_proxy.invalidate()
        with_proxy.close()
        adapter.checkin(adapter.checkout())
        assert seen == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]

    def test_none_is_anothers(self, make):
        adapter = make(pool_size=2)
        first, second = adapter.checkout(), adapter.checkout()
        first.entry.record_info["name"] = "first"
        adapter.discard(first)
        third = adapter.checkout()
        assert third.entry.record_info == {"name": "first"}
        assert second.entry.record_info == {}
        adapter.discard(second)
        fourth = adapter.checkout()
        assert fourth.entry.record_info == {}
        for connection in third, fourth:
            adapter.checkin(connection)
