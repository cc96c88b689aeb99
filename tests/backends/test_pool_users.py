"""Who keeps a pool: the settings, and wrappers; not those whose thread has ended, nor garbage."""

from __future__ import annotations

import gc
import weakref
from typing import Any, ClassVar

import pytest
from django.db import connections

import relet
import relet.backends
import relet.core
from relet.backends import pools as module
from relet.backends.config.copying import copy_settings
from relet.backends.pools import Pools, pools
from relet.core import ReleasePolicy

from ..support.pools import backend_pid
from ..support.strikes import each_instruction
from ..support.threads import Thread
from .test_vanished_pools import aliases, gone


@pytest.fixture(autouse=True)
def uncollected():
    """The garbage collector comes when it likes: not in these tests."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def lonely(alias: str = "lonely") -> Any:
    """A wrapper whose settings are its own."""
    template: Any = connections["default"]
    return type(template)(copy_settings(template.settings_dict), alias)


def test_a_wrapper_that_moves_leaves_none_open(database, observer):
    wrapper, other = lonely(), lonely()
    pid = backend_pid(wrapper)
    wrapper.close()
    other.settings_dict["OPTIONS"]["application_name"] = "another"
    its = backend_pid(other)
    wrapper.settings_dict["OPTIONS"]["application_name"] = "another"
    # To a pool that is there already.
    assert backend_pid(wrapper) == its
    gone(observer, pid)
    assert aliases().count("lonely") == 1
    wrapper.close()
    other.close()
    pools.close_alias("lonely")


def test_a_thread_that_ends_takes_its_wrappers_with_it(database, observer):
    """They are in reference cycles; nobody is to wait until they are collected."""
    thread = Thread()
    kept = thread(lonely)
    pid = thread(lambda: backend_pid(kept))
    thread(kept.close)
    assert "lonely" in aliases()
    thread.end()
    gone(observer, pid)
    assert "lonely" not in aliases()


def test_a_wrapper_that_another_thread_goes_on_with(database, observer):
    """It makes a pool anew, and keeps that."""
    thread = Thread()
    wrapper = thread(lonely)
    wrapper.inc_thread_sharing()
    pid = thread(lambda: backend_pid(wrapper))
    thread.end()
    gone(observer, pid)
    assert backend_pid(wrapper) == backend_pid(wrapper)
    assert aliases().count("lonely") == 1
    wrapper.close()
    wrapper.dec_thread_sharing()
    pools.close_alias("lonely")


def test_a_thread_that_looked_and_ends_takes_nothing_with_it(database):
    """A wrapper of this thread still uses the pool, whichever thread asked for it last."""
    wrapper, thread = lonely(), Thread()
    pid = backend_pid(wrapper)
    pool = thread(lambda: wrapper._runner.find_pool().pool)
    thread.end()
    assert not pool.closed
    assert backend_pid(wrapper) == pid
    wrapper.close()
    pools.close_alias("lonely")


class Wrapper:
    pass


class Pool:
    """It is made, and closed. One that nothing refers to was not opened, and has nothing open."""

    made: ClassVar[weakref.WeakSet[Pool]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.closed = False
        self.made.add(self)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def making(monkeypatch, database):
    """Pools of one's own; the alias' settings, and what makes a pool from them."""
    monkeypatch.setattr(Pool, "made", weakref.WeakSet())
    found = Pools()
    monkeypatch.setattr(module, "pools", found)
    settings = copy_settings(connections["default"].settings_dict)
    return found, settings, lambda: lambda: (Pool(), ReleasePolicy())


def test_i15_an_interrupt_leaves_no_pool_behind(making):
    """Each that is open is one that the next who asks is given."""
    found, settings, plan = making
    wrapper = Wrapper()

    def before() -> None:
        found.close_all()
        Pool.made.clear()

    def run() -> None:
        found.get("struck", settings, "UTC", plan, wrapper)

    packages = [relet.core, relet.backends]
    for _ in each_instruction(run, packages, before):
        thread = Thread()  # a lock that was left taken is found there
        entry: Any = thread(lambda: found.get("struck", settings, "UTC", plan, wrapper))
        assert [pool for pool in Pool.made if not pool.closed] == [entry.pool]
        assert list(found) == [entry]
        thread.end()


def test_i15_an_interrupt_leaves_none_open_that_is_to_be_closed(making):
    found, settings, plan = making
    wrapper = Wrapper()

    def before() -> None:
        Pool.made.clear()
        for alias in "one", "two":
            found.get(alias, settings, "UTC", plan, wrapper)

    for _ in each_instruction(found.close_all, [relet.core, relet.backends], before):
        thread = Thread()
        thread(found.close_all)
        thread.end()
        assert all(pool.closed for pool in Pool.made)
        assert list(found) == []


def test_a_pool_that_other_code_has_closed_is_forgotten(db):
    backend_pid(db)
    closed = db._runner.find_pool()
    closed.pool.close()
    db.close()
    backend_pid(db)
    assert [handle for handle in pools if handle.alias == "default"] == [db._runner.find_pool()]
    assert db._runner.find_pool() is not closed
    assert [row.alias for row in relet.pools().rows].count("default") == 1
