"""Pools that nothing refers to: their alias has left DATABASES, or no wrapper has them."""

import gc
import threading

import pytest
from django.core.signals import request_finished
from django.db import connections, transaction

from relet import close_all
from relet.backends.config.copying import copy_settings
from relet.backends.pools import pools

from ..support.engine import put_small_pool
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import until_true
from ..support.threads import Thread, in_thread

ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"


def aliases():
    return [entry.alias for entry in pools]


def gone(observer, *pids):
    until_true(observer, f"SELECT ({ALIVE}) = 0", list(pids))


@pytest.fixture
def tenant(database):
    """Declare an alias, as dynamic tenants do; return its name."""
    settings = copy_settings(connections["default"].settings_dict)
    put_small_pool(settings)
    connections.settings["tenant"] = settings
    yield "tenant"
    connections.settings.pop("tenant", None)
    if hasattr(connections._connections, "tenant"):
        connections["tenant"].close()
        del connections["tenant"]
    pools.close_alias("tenant")


def forget(alias):
    """As tenants go: from the settings, and from this thread."""
    del connections.settings[alias]
    del connections[alias]


def request_ends():
    request_finished.send(sender=None)


class TestAliases:
    def test_one_that_stays_keeps_its_pool(self, tenant):
        pid = backend_pid(connections[tenant])
        request_ends()
        in_thread(lambda: backend_pid(connections[tenant]))
        del connections[tenant]
        gc.collect()
        request_ends()
        assert backend_pid(connections[tenant]) == pid

    def test_one_that_has_left(self, tenant, observer):
        pid = backend_pid(connections[tenant])
        forget(tenant)
        request_ends()
        assert tenant not in aliases()
        gone(observer, pid)

    def test_it_is_seen_when_the_next_pool_is_made(self, tenant, make, observer):
        pid = backend_pid(connections[tenant])
        forget(tenant)
        backend_pid(make("next"))
        assert tenant not in aliases()
        gone(observer, pid)

    def test_threads_that_have_used_it_do_not_keep_it(self, tenant, observer):
        worker = Thread()
        pid = worker(lambda: backend_pid(connections[tenant]))
        del connections.settings[tenant]
        request_ends()
        assert tenant not in aliases()
        gone(observer, pid)
        worker.end()

    def test_a_transaction_goes_on_to_its_end(self, tenant, observer):
        with transaction.atomic(using=tenant):
            pid = backend_pid(connections[tenant])
            wrapper = connections[tenant]
            del connections.settings[tenant]
            request_ends()
            assert tenant not in aliases()
            assert backend_pid(wrapper) == pid
        gone(observer, pid)

    def test_a_wrapper_that_somebody_uses_all_the_same(self, tenant):
        wrapper = connections[tenant]
        pid = backend_pid(wrapper)
        del connections.settings[tenant]
        request_ends()
        assert backend_pid(wrapper) != pid
        request_ends()
        assert aliases().count(tenant) == 1

    def test_one_that_comes_back(self, tenant):
        settings = connections.settings[tenant]
        backend_pid(connections[tenant])
        forget(tenant)
        request_ends()
        connections.settings[tenant] = settings
        assert backend_pid(connections[tenant])
        assert at_rest(connections[tenant])

    def test_one_that_has_come_back_and_leaves_again(self, tenant):
        settings, wrapper = connections.settings[tenant], connections[tenant]
        backend_pid(wrapper)
        del connections.settings[tenant]
        request_ends()
        backend_pid(wrapper)  # by a thread that has it still
        connections.settings[tenant] = settings
        in_thread(lambda: backend_pid(connections[tenant]))
        del connections.settings[tenant]
        request_ends()
        assert tenant not in aliases()

    def test_who_closes_all_waits_for_it(self, tenant, monkeypatch):
        backend_pid(connections[tenant])
        pool = connections[tenant]._runner.find_pool().pool
        may, closed, close = threading.Event(), [], pool.close

        def slowly():
            may.wait(20)
            close()
            closed.append(True)

        monkeypatch.setattr(pool, "close", slowly)
        forget(tenant)
        request_ends()
        assert tenant not in aliases()
        assert not close_all(0.05)
        threading.Timer(0.1, may.set).start()
        pools.close_alias(tenant)
        assert closed
        assert close_all(20)


class TestWrappers:
    def test_a_pool_of_its_own_goes_with_the_last(self, make, observer):
        first = make("lonely")
        second = first.copy()
        pid = backend_pid(first)
        assert backend_pid(second) == pid
        del second
        gc.collect()
        assert backend_pid(first) == pid
        assert "lonely" in aliases()

    def test_nobody_has_it(self, database, observer):
        template = connections["default"]
        settings = copy_settings(template.settings_dict)
        wrapper = type(template)(settings, "lonely")
        pid = backend_pid(wrapper)
        del wrapper
        gc.collect()
        gone(observer, pid)
        assert "lonely" not in aliases()

    def test_settings_that_have_changed(self, make, observer):
        """As the test runner does it, in place."""
        wrapper = make("moving")
        pid = backend_pid(wrapper)
        wrapper.close()
        wrapper.settings_dict["OPTIONS"]["application_name"] = "another"
        assert backend_pid(wrapper) != pid
        gone(observer, pid)
        assert aliases().count("moving") == 1
        assert stats(wrapper).in_use == 0
