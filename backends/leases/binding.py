"""Binding: finds the pool for a wrapper's settings, or makes it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from relet.backends.config.budget import pool_budget
from relet.backends.config.copying import copy_settings
from relet.backends.config.credentials import Parameters
from relet.backends.config.observe import observe_options
from relet.backends.config.options import (
    check_health_checks,
    check_max_age,
    check_tag,
    pool_options,
    release_policy,
)
from relet.backends.config.prepare import prepare_options
from relet.backends.observe import routes, signals
from relet.backends.observe.observer import PoolObserver
from relet.backends.plans.declared import give_book
from relet.backends.pools import MakePool, PoolHandle, pools
from relet.core import Event, PoolAdapter, PoolConfig, PooledConnection, ReleasePolicy

from . import lifetimes
from .definitions import PoolDefinitions
from .host import Host


def find_pool(host: Host) -> PoolHandle:
    """Return the pool for the settings of *host*; make it if it does not exist."""
    return pools.get(
        host.alias, host.settings_dict, host.timezone_name, partial(_plan_pool, host), host
    )


def definitions_of(database: tuple[Any, ...]) -> list[PoolDefinitions]:
    """Return the definitions of all pools of *database*; see `PoolHandle.database`."""
    return [handle.pool.definitions for handle in pools if handle.database == database]


def _expire_definitions(using: str, **kwargs: Any) -> None:
    """Have the definitions of the database *using* read again. A receiver of ``post_migrate``."""
    for database in {handle.database for handle in pools if handle.alias == using}:
        for definitions in definitions_of(database):
            definitions.expire()


def _plan_pool(host: Host) -> MakePool:
    """Check the settings, import the modules they name, and return a function to make the pool."""
    if sys.is_finalizing():
        # Nothing can be imported any more, and no thread started.
        raise host.Database.InterfaceError(
            f"DATABASES[{host.alias!r}]: the interpreter is exiting, so no pool can be opened. "
            "Query before that, such as in a function registered with atexit, not in __del__()."
        )
    # Not at the top: it imports Django's models.
    from django.db.models.signals import post_migrate

    post_migrate.connect(_expire_definitions, dispatch_uid="relet.definitions")
    alias, settings, adapter_class = host.alias, host.settings_dict, host.adapter_class
    check_max_age(alias, settings)
    check_health_checks(alias, settings)
    check_tag(alias, settings)
    options = pool_options(alias, settings, adapter_class)
    policy = release_policy(alias, settings, adapter_class)
    observe = observe_options(alias, settings)
    prepare = prepare_options(alias, settings, adapter_class)
    budget = pool_budget(alias, settings, adapter_class)
    definitions = PoolDefinitions(
        policy,
        pooled=adapter_class.is_pooling(options),
        late=bool(options) and "configure" in options,
    )
    configure = ConfigureConnection(type(host), copy_settings(settings), alias, definitions)
    config = PoolConfig(
        alias=alias,
        connect=host.get_connection_params(),
        options=options,
        configure=configure,
        ask=Parameters(type(host), settings, alias).ask,
        budget=budget,
    )
    observer = None
    if observe is not None or settings["OPTIONS"].get("tag"):
        routes.install()
    if observe is not None:
        if observe.signal is not None:
            signals.watch(observe.signal)
        observer = PoolObserver(alias, with_stacks=observe.stacks)
        config = observer.config(config)

    def make() -> tuple[PoolAdapter[Any], ReleasePolicy]:
        pool = adapter_class(config)
        pool.max_size = pool.stats().max_size
        pool.fairness = policy.fairness
        # A weak reference: the pool must not keep itself alive.
        configure.find_pool = found = weakref.ref(pool)
        pool.definitions = definitions
        pool.describe_holders = lambda: lifetimes.holders_of(found())
        if observer is not None:
            observer.watch(pool)
        give_book(pool, prepare)
        return pool, policy

    return make


class ConfigureConnection:
    """Configures a new connection of a pool, in the thread that opened it.

    Django does so with a method of a wrapper that has the connection, and a wrapper belongs to one
    thread. So this makes a temporary wrapper for each connection.
    """

    def __init__(
        self,
        wrapper_class: Any,
        settings: dict[str, Any],
        alias: str,
        definitions: PoolDefinitions,
    ) -> None:
        self._make_wrapper = partial(wrapper_class, settings, alias)
        self._definitions = definitions
        #: Returns the pool, or None if it is gone.
        self.find_pool: Callable[[], PoolAdapter[Any] | None] = lambda: None

    def __call__(self, raw: Any) -> None:
        wrapper = self._make_wrapper()
        runner = wrapper._runner
        lease = runner.lease
        lease.send(Event.CONNECT)
        lease.connection = PooledConnection(raw, monotonic())
        lease.pins[lease] = None
        runner.initializing = raw
        try:
            wrapper._configure_connection(raw)
        finally:
            lease.pins.clear()
            lease.send(Event.FORK)
            lease.connection = None
        pool = self.find_pool()
        if pool is not None and not self._definitions.late:
            # A statement that needs them waits for the thread that reads them.
            self._definitions.compare(pool, raw, wait=False)
