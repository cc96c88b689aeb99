"""What is peculiar to django-db-connection-pool."""

import os

import dj_db_conn_pool
import pytest
from dj_db_conn_pool.core import pool_container
from sqlalchemy.pool import QueuePool

from relet.adapters.dj_db_conn_pool import DjDbConnPoolAdapter
from relet.adapters.drivers.default import Driver
from relet.core import ConfigurationError, PoolConfig

ALIAS = "dj_alias"


@pytest.fixture
def make(parameters):
    made = []

    def make(configure=lambda raw: None, pool=None, **options):
        options = {"POOL_SIZE": 1, "MAX_OVERFLOW": 0, "TIMEOUT": 5, **options}
        config = PoolConfig(ALIAS, parameters, options if pool is None else pool, configure)
        made.append(DjDbConnPoolAdapter(config))
        made[-1].open()
        return made[-1]

    yield make
    for adapter in made:
        adapter.close()
    pool_container.pop(ALIAS, None)


def pid(adapter):
    connection = adapter.checkout()
    number = adapter.execute_internal(connection.raw, "SELECT pg_backend_pid()")[0][0]
    adapter.checkin(connection)
    return number


def test_the_pool_is_in_the_container(make):
    adapter = make()
    assert pool_container.get(ALIAS) is adapter.native
    number = pid(adapter)
    # As other code has it, with a ping before.
    with pool_container.get(ALIAS).connect() as proxy:
        assert adapter.execute_internal(proxy.dbapi_connection, "SELECT pg_backend_pid()") == [
            (number,)
        ]
    adapter.close()
    assert not pool_container.has(ALIAS)


def test_its_defaults_are_the_containers(make, monkeypatch):
    adapter = make(pool={})
    pool = adapter.native
    assert (pool.size(), pool._max_overflow, pool._recycle, pool.timeout()) == (10, 10, 900, 30)
    assert adapter.health_checks
    adapter.close()
    monkeypatch.setattr(
        type(pool_container), "pool_default_params", dict(pool_container.pool_default_params)
    )
    dj_db_conn_pool.setup(pool_size=3, pre_ping=False)
    adapter = make(pool={"RECYCLE": 5, "TIMEOUT": None})
    assert (adapter.native.size(), adapter.native._recycle) == (3, 5)
    assert adapter.native.timeout() is None
    assert not adapter.health_checks


def test_what_is_ignored_is_doubted(make):
    options = {"POOL_SIZE": 2, "pool_size": 9, "Timeout": 1, "USE_LIFO": True, 7: 1}
    DjDbConnPoolAdapter.check_options(options)
    DjDbConnPoolAdapter.check_options({"TIMEOUT": None})
    ignored = "is ignored, as django-db-connection-pool ignores it;"
    known = "it knows 'PRE_PING', 'ECHO', 'TIMEOUT', 'RECYCLE', 'POOL_SIZE', 'MAX_OVERFLOW'."
    assert DjDbConnPoolAdapter.option_warnings(options) == [
        f"'pool_size' {ignored} did you mean 'POOL_SIZE'?",
        f"'Timeout' {ignored} did you mean 'TIMEOUT'?",
        f"'USE_LIFO' {ignored} {known}",
        f"7 {ignored} {known}",
    ]
    assert make(pool=options).native.size() == 2


def test_wrong_values_are_named_as_they_are_written():
    with pytest.raises(ConfigurationError, match="'POOL_SIZE' is 'many'; it must be a whole"):
        DjDbConnPoolAdapter.check_options({"POOL_SIZE": "many"})
    with pytest.raises(ConfigurationError, match="'TIMEOUT' is -1; it must be a number of sec"):
        DjDbConnPoolAdapter.check_options({"TIMEOUT": -1})


def test_errors_name_the_settings(make):
    adapter = make()
    held = adapter.checkout()
    with pytest.raises(adapter.dbapi.OperationalError, match=r"raise POOL_OPTIONS\['POOL_SIZE'\]"):
        adapter.checkout(timeout=0)
    adapter.checkin(held)


def test_no_pool(make):
    adapter = make(pool=False)
    assert not adapter.pooled
    assert not pool_container.has(ALIAS)
    assert pid(adapter) != pid(adapter)


def test_a_pool_of_somebody_elses_is_used(make, parameters):
    created = []

    def create():
        created.append(Driver.dbapi.connect(**parameters))  # not in autocommit
        return created[-1]

    theirs = QueuePool(create, pool_size=1, max_overflow=0)
    pool_container.put(ALIAS, theirs)
    configured = []
    adapter = make(configured.append)
    assert adapter.native is theirs
    connection = adapter.checkout()
    assert connection.raw.autocommit
    adapter.checkin(connection)
    adapter.checkin(adapter.checkout())
    assert created == configured
    assert theirs.checkedout() == 0
    adapter.close()
    assert pool_container.get(ALIAS) is theirs
    assert created[0].closed


def test_one_that_cannot_be_configured_is_given_up(make, parameters):
    theirs = QueuePool(lambda: Driver.dbapi.connect(**parameters), pool_size=1, max_overflow=0)
    pool_container.put(ALIAS, theirs)
    fail = [ValueError()]

    def configure(raw):
        if fail:
            raise fail.pop()

    adapter = make(configure)
    with pytest.raises(ValueError):  # noqa: PT011
        adapter.checkout()
    assert theirs.checkedout() == 0
    assert adapter.stats().in_use == 0
    pid(adapter)


def test_one_of_relets_is_replaced(make):
    """As when the test runner has changed NAME: its alias has another pool then."""
    old, new = make(), make()
    assert pool_container.get(ALIAS) is new.native
    old.close()
    assert pool_container.get(ALIAS) is new.native
    pid(new)


def test_whoever_disposes_of_the_container_does_no_harm(make):
    adapter = make(POOL_SIZE=2)
    held = adapter.checkout()
    pid(adapter)
    pool_container.dispose()
    assert (adapter.stats().in_use, adapter.stats().idle) == (1, 0)
    adapter.checkin(held)
    assert adapter.stats().in_use == 0
    pid(adapter)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_i10_a_child_finds_none_of_its_parents(make):
    adapter = make()
    number = pid(adapter)
    lock = pool_container.lock
    # As if another thread was looking for a pool at that moment.
    with lock:
        child = os.fork()
        if child == 0:
            free = pool_container.lock.acquire(blocking=False)
            os._exit(0 if free and not pool_container.has(ALIAS) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pid(adapter) == number
