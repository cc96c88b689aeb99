"""django-db-connection-pool's container of pools.

https://github.com/altairbow/django-db-connection-pool
"""

from __future__ import annotations

import difflib
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from typing import Any, ClassVar, Literal

from dj_db_conn_pool.core import PoolContainer, pool_container
from sqlalchemy.pool import Pool

from relet.adapters.drivers.default import Driver
from relet.adapters.queue_pool.lean_queue_pool import LeanQueuePool
from relet.core import PooledConnection
from relet.core.background import in_background
from relet.core.fork import at_fork, keep_for_good

from .queue_pool import QueuePoolAdapter


class DjDbConnPoolAdapter(Driver, QueuePoolAdapter):
    """The pool that django-db-connection-pool's ``pool_container`` has for the alias.

    If there is none, relet puts one there, so that other code finds it. A pool that other code has
    put there is used, as django-db-connection-pool does.
    """

    options_setting: ClassVar[tuple[str, ...]] = ("POOL_OPTIONS",)
    pool_keys: ClassVar[Sequence[str]] = ()

    def _make_pool(self) -> Pool:
        _forget_after_forks()
        if self.config.options is False:
            return super()._make_pool()
        arguments = self._arguments(self.config.options)[1]
        self.health_checks = arguments["pre_ping"]
        # An interrupt could leave the container's lock held, which would block everybody.
        pool, self.adopted = in_background(partial(self._find_or_put, arguments))
        return pool

    def _find_or_put(self, arguments: Mapping[str, Any]) -> tuple[Pool, bool]:
        """Return the container's pool, and whether other code made it."""
        alias = self.config.alias
        with pool_container.lock:
            present: Pool | None = pool_container[alias] if pool_container.has(alias) else None
            # A pool of relet's belongs to an older adapter, whose settings have changed.
            if present is not None and present not in _OWN:
                return present, True
            # The pool pings for code that calls connect(); the wrapper pings for leases.
            made = LeanQueuePool(self._creator(), dialect=_dialect(self.dbapi), **arguments)
            _OWN.add(made)
            pool_container.put(alias, made)
            return made, False

    @classmethod
    def _arguments(
        cls, options: Mapping[str, Any] | Literal[False]
    ) -> tuple[type[Pool], dict[str, Any]]:
        if options is False:
            return super()._arguments(options)
        given = {key.lower(): value for key, value in options.items() if _known(key)}
        return LeanQueuePool, {**pool_container.pool_default_params, **given}

    @classmethod
    def check_options(cls, options: Mapping[str, Any] | Literal[False]) -> None:
        if options is False:
            return
        pool_class, arguments = cls._arguments(options)
        cls._check_arguments(pool_class, arguments, str.upper)

    @classmethod
    def option_warnings(cls, options: Mapping[str, Any]) -> list[str]:
        known = [key.upper() for key in pool_container.pool_default_params]
        return [
            f"{key!r} is ignored, as django-db-connection-pool ignores it; {_cure(key, known)}"
            for key in options
            if not _known(key)
        ]

    @classmethod
    def options_for(cls, *, size: int, timeout: float) -> dict[str, Any]:
        # The pool pings by default.
        return {"POOL_SIZE": size, "MAX_OVERFLOW": 0, "TIMEOUT": timeout, "PRE_PING": False}

    def _setting_path(self, key: str) -> str:
        return super()._setting_path(key.upper())

    def _remember(self, entry: Any) -> PooledConnection:
        connection = super()._remember(entry)
        if self.adopted:
            # Other code has opened the connection.
            self.adopt(connection.raw, self.config.connect)
            self.config.configure(connection.raw)
        return connection

    def close(self) -> None:
        super().close()
        in_background(self._take_out)

    def _take_out(self) -> None:
        alias = self.config.alias
        with pool_container.lock:
            own = not self.adopted and pool_container.has(alias)
            if own and pool_container[alias] is self._pool:
                del pool_container[alias]


#: The pools that relet made.
_OWN: weakref.WeakSet[Pool] = weakref.WeakSet()


def _known(key: object) -> bool:
    """Whether django-db-connection-pool accepts *key*, which it otherwise ignores."""
    return (
        isinstance(key, str)
        and key == key.upper()
        and key.lower() in pool_container.pool_default_params
    )


def _cure(key: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(key).upper(), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"it knows {', '.join(map(repr, known))}."


def _dialect(dbapi: Any) -> Any:
    """Return the dialect by which SQLAlchemy pings, as django-db-connection-pool does."""
    name = dbapi.__name__
    module = import_module(f"sqlalchemy.dialects.postgresql.{name}")
    return getattr(module, f"PGDialect_{name}")(dbapi=dbapi)


def _forget_parents_pools() -> None:
    """In a child process: drop the parent's pools, and its lock, which may have been held."""
    keep_for_good(dict(pool_container))
    pool_container.clear()
    PoolContainer.lock = threading.Lock()


@cache
def _forget_after_forks() -> None:
    at_fork(after_in_child=_forget_parents_pools)
