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
from sqlalchemy.pool import Pool, QueuePool

from relet.adapters.drivers.default import Driver
from relet.adapters.queue_pool.lean_queue_pool import LEAN, LeanQueuePool
from relet.core import PooledConnection
from relet.core.background import in_background
from relet.core.fork import at_fork, keep_for_good

from .queue_pool import QueuePoolAdapter


class DjDbConnPoolAdapter(Driver, QueuePoolAdapter):
    """The pool that django-db-connection-pool's ``pool_container`` has for the alias.

    It is put there if there is none: other code that looks for it finds it. Whatever else
    somebody has put there is used, as django-db-connection-pool does.
    """

    options_setting: ClassVar[tuple[str, ...]] = ("POOL_OPTIONS",)
    pool_keys: ClassVar[Sequence[str]] = ()

    def _make_pool(self) -> Pool:
        _forget_after_forks()
        if self.config.options is False:
            return super()._make_pool()
        arguments = self._arguments(self.config.options)[1]
        self.health_checks = arguments["pre_ping"]
        # Its lock, if it was left taken by an interrupt, would stop all that use it.
        pool, self.adopted = in_background(partial(self._find_or_put, arguments))
        return pool

    def _find_or_put(self, arguments: Mapping[str, Any]) -> tuple[Pool, bool]:
        """Return the container's pool, and whether it is somebody else's."""
        alias = self.config.alias
        with pool_container.lock:
            present: Pool | None = pool_container[alias] if pool_container.has(alias) else None
            # One of relet's is of another adapter, whose settings have changed since.
            if present is not None and present not in _OWN:
                return present, True
            # It pings for others who connect(); leases are pinged by their wrapper.
            made = _POOL_CLASS(self._creator(), dialect=_dialect(self.dbapi), **arguments)
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
        return _POOL_CLASS, {**pool_container.pool_default_params, **given}

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
        # It pings by default.
        return {"POOL_SIZE": size, "MAX_OVERFLOW": 0, "TIMEOUT": timeout, "PRE_PING": False}

    def _setting_path(self, key: str) -> str:
        return super()._setting_path(key.upper())

    def _remember(self, entry: Any) -> PooledConnection:
        connection = super()._remember(entry)
        if self.adopted:
            # Opened by whoever made the pool.
            connection.raw.autocommit = True
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


#: The pools that were made here.
_OWN: weakref.WeakSet[Pool] = weakref.WeakSet()
_POOL_CLASS: type[QueuePool] = LeanQueuePool if LEAN else QueuePool


def _known(key: object) -> bool:
    """Whether django-db-connection-pool does not ignore *key*."""
    return (
        isinstance(key, str)
        and key == key.upper()
        and key.lower() in pool_container.pool_default_params
    )


def _cure(key: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(key).upper(), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"it knows {', '.join(map(repr, known))}."


def _dialect(dbapi: Any) -> Any:
    """Return what SQLAlchemy pings by, as django-db-connection-pool has it."""
    name = dbapi.__name__
    module = import_module(f"sqlalchemy.dialects.postgresql.{name}")
    return getattr(module, f"PGDialect_{name}")(dbapi=dbapi)


def _forget_parents_pools() -> None:
    """In a child: have no pools of the parent's. Its lock may have been held, too."""
    keep_for_good(dict(pool_container))
    pool_container.clear()
    PoolContainer.lock = threading.Lock()


@cache
def _forget_after_forks() -> None:
    at_fork(after_in_child=_forget_parents_pools)
