"""QueuePoolAdapter: the base of adapters of SQLAlchemy's pools, for any driver."""

from __future__ import annotations

import importlib
import inspect
import os
import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from logging import DEBUG
from time import monotonic
from typing import Any, ClassVar, Literal

from sqlalchemy import exc
from sqlalchemy import pool as sqlalchemy_pool
from sqlalchemy.pool import NullPool, Pool, QueuePool

from relet.adapters.lending import lend, restored
from relet.adapters.opening import forget_frames, opened
from relet.adapters.permits import Permits
from relet.adapters.slots import SlotAdapter
from relet.core import ConfigurationError, PoolConfig, PooledConnection, PoolStats
from relet.core.policy import check_boolean, check_keys, check_number
from relet.core.status import TransactionStatus

from .lean_queue_pool import REMEMBERED, CannotConnect, LeanQueuePool, PoolClosed

_RESERVED = {
    "policy": "it belongs in OPTIONS['policy'], not in OPTIONS['pool']",
    "creator": "connection parameters belong in DATABASES[alias] and its OPTIONS",
    "dialect": "Django has its own dialect",
    "reset_on_return": "relet itself checks that connections are clean before they go back",
}
_REFUSED = {
    "SingletonThreadPool": "it keeps a connection for each thread, which leases are meant "
    "to avoid, and closes other threads' connections, even in use, when there are too many",
    "StaticPool": "it hands the same connection to all threads at the same time",
    "AssertionPool": "it raises an AssertionError where a thread would have to wait; use a "
    "QueuePool with a pool_size of 1 and a max_overflow of 0",
    "AsyncAdaptedQueuePool": "it is for asyncio; Django's connections are synchronous",
}
#: The least values of options. A pool would accept smaller ones, and fail later.
_NUMBERS = {"pool_size": 0, "max_overflow": -1, "timeout": 0, "recycle": -1}
_OPTIONS = ("recycle", "echo", "logging_name", "events", "pre_ping")
_QUEUE_OPTIONS = ("pool_size", "max_overflow", "timeout", "use_lifo", *_OPTIONS)


class QueuePoolAdapter(SlotAdapter):
    """A pool of SQLAlchemy's. Mix a driver in.

    It is a `LeanQueuePool`, unless the options name another class. Connections of another class
    come with a proxy, and how threads wait is up to that class. Listeners to the events
    ``checkout``, ``checkin`` and ``reset`` need the proxy, too; add them before the pool is opened.
    """

    pool_keys: ClassVar[Sequence[str]] = ["class", *_QUEUE_OPTIONS]

    #: The driver's module, for its exceptions.
    dbapi: ClassVar[Any]

    #: Whether other code made the pool.
    adopted = False

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self._in_use: set[PooledConnection] = set()
        self._checkouts = 0
        self._opened = False
        if config.budget is not None:
            self.permits = Permits(config.budget, self)
            self.config = self.permits.config(config)
        self._pool = self._make_pool()
        self._lean: LeanQueuePool | None = None
        if isinstance(self._pool, LeanQueuePool) and not self.adopted:
            self._lean = self.fair_queue = self._pool
            adapter = weakref.ref(self)  # a cycle would delay its collection
            self._pool.lend = lambda entry: _lend_entry(adapter(), entry)
            self._pool.normalize = lambda entry: _normalize_entry(adapter(), entry)
            if self.permits is not None:
                self._pool.share_budget(self.permits)

    @staticmethod
    @abstractmethod
    def connect(parameters: Mapping[str, Any]) -> Any:
        """Open a connection, in autocommit."""

    def _make_pool(self) -> Pool:
        options = self.config.options
        pool_class, arguments = self._arguments(options)
        self.health_checks = bool(options and options.get("pre_ping"))
        return pool_class(self._creator(), reset_on_return=None, **arguments)

    def _creator(self) -> Callable[[], Any]:
        """Return the function that opens connections. It does not refer to this adapter."""
        connect = self.connect
        if self.dbapi.__name__ == "psycopg2":
            return partial(opened, lambda told: connect(_with_connect_timeout(told)), self.config)
        return partial(opened, connect, self.config)

    @classmethod
    def _arguments(
        cls, options: Mapping[str, Any] | Literal[False]
    ) -> tuple[type[Pool], dict[str, Any]]:
        """Return the class of the pool, and its keyword arguments."""
        if options is False:
            return NullPool, {}
        arguments = dict(options)
        # The wrapper pings, only after idle time; the pool would ping at each checkout.
        arguments.pop("pre_ping", None)
        return _pool_class(arguments.pop("class", QueuePool)), arguments

    @classmethod
    def check_options(cls, options: Mapping[str, Any] | Literal[False]) -> None:
        if options is False:
            return
        pool_class, arguments = cls._arguments(options)
        known: Sequence[str] = list(options)  # a custom class checks its own options
        if pool_class in (LeanQueuePool, QueuePool):
            known = cls.pool_keys
        elif pool_class is NullPool:
            known = ["class", *_OPTIONS]
        check_keys(options, known, _RESERVED)
        check_boolean("pre_ping", options.get("pre_ping"))
        cls._check_arguments(pool_class, arguments)

    @classmethod
    def _check_arguments(
        cls,
        pool_class: type[Pool],
        arguments: Mapping[str, Any],
        key_name: Callable[[str], str] = str,
    ) -> None:
        """Raise `ConfigurationError` for wrong values.

        :param key_name: returns how a key is written in the settings.
        """
        for key, least in _NUMBERS.items():
            value = arguments.get(key, least)
            if key == "timeout" and value is None:
                continue  # no limit
            whole = key in ("pool_size", "max_overflow")
            unless = ", or None for no limit" if key == "timeout" else ""
            check_number(key_name(key), value, whole=whole, least=least, unless=unless)
        for key in "use_lifo", "echo", "pre_ping":
            if (value := arguments.get(key)) != "debug" or key != "echo":
                check_boolean(key_name(key), value)
        try:
            # The pool checks its own arguments. This opens no connection.
            pool_class(lambda: None, **arguments)  # type: ignore[arg-type]
        except (TypeError, ValueError, exc.SQLAlchemyError) as error:
            raise ConfigurationError(f"{error}.") from error

    @classmethod
    def options_for(cls, *, size: int, timeout: float) -> dict[str, Any]:
        return {"pool_size": size, "max_overflow": 0, "timeout": timeout}

    @classmethod
    def is_pooling(cls, options: Mapping[str, Any] | Literal[False]) -> bool:
        return not issubclass(cls._arguments(options)[0], NullPool)

    @classmethod
    def can_share_budget(cls, options: Mapping[str, Any] | Literal[False]) -> bool:
        return cls._arguments(options)[0] is LeanQueuePool

    @property
    def native(self) -> Pool:
        return self._pool

    def open(self) -> None:
        if self._opened:
            return  # leases rely on the choice that was made
        events: Any = self._pool.dispatch
        if events.checkout or events.checkin or events.reset:
            self._lean = None
        self._opened = True

    # The next two are the hot path.

    def checkout_into(self, lease: Any, timeout: float | None = None) -> None:
        if (lean := self._lean) is None:
            self._checkout_proxy_into(lease)
            return
        try:
            lean.checkout_into(lease, timeout)
            if lean.logger.isEnabledFor(DEBUG):
                lean.log_checkout(lease.connection)
            return
        except (CannotConnect, PoolClosed, exc.TimeoutError) as failed:
            error = failed
        raise self._explain(error)

    def checkin_from(self, lease: Any) -> None:
        if self.keeps_notices:
            self.drop_notices(lease.connection.raw)
        if (lean := self._lean) is None:
            self._checkin_proxy_from(lease)
        else:
            if lean.logged:
                lean.log_checkin(lease.connection)
            lean.checkin_from(lease)

    def discard_from(self, lease: Any) -> None:
        raw = lease.connection.raw
        broken = raw is not None and self.transaction_status(raw) == TransactionStatus.UNKNOWN
        if self._lean is not None:
            self._lean.discard_from(lease, broken=broken)
        else:
            self._discard_proxy_from(lease, broken)

    def close(self) -> None:
        self.closed = True
        if isinstance(self._pool, LeanQueuePool):
            self._pool.close()
        else:
            _close_idle(self._pool)

    def stats(self) -> PoolStats:
        pool: Any = self._pool
        queue = isinstance(pool, QueuePool)
        limited = queue and pool._max_overflow > -1
        lean = isinstance(pool, LeanQueuePool)
        in_use = len(pool.leased) if lean else len(self._in_use)
        idle = pool.checkedin() if queue else 0
        return PoolStats(
            min_size=0,
            max_size=pool.size() + pool._max_overflow if limited else None,
            size=in_use + idle,
            idle=idle,
            in_use=in_use,
            waiting=pool.waiting if lean else 0,
            checkouts=pool.checkouts if lean else self._checkouts,
            waits=pool.waits if lean else 0,
            wait_ms=pool.wait_ms if lean else 0,
            max_idle=(pool.size() or None) if queue else None,
        )

    # Entries with a proxy. SQLAlchemy itself is responsible for interrupts.

    def _checkout_proxy_into(self, lease: Any) -> None:
        entry: Any = None
        try:
            if self.closed:
                raise PoolClosed("the pool is closed")
            self._checkouts += 1
            entry = self._pool.connect()
            # Other code may have had it last, and used it in another way.
            _normalize(self, entry.dbapi_connection)
            connection = entry.info.get(REMEMBERED) or self._remember(entry)
            connection.raw, connection.entry = entry.dbapi_connection, entry
            self._in_use.add(connection)
            lease.connection = connection
        except BaseException as error:
            if entry is not None and lease.connection is None:
                self._in_use.discard(entry.info.get(REMEMBERED))
                entry.invalidate()
            forget_frames(error)
            if isinstance(error, (exc.SQLAlchemyError, self.dbapi.Error)):
                raise self._explain(error) from error
            raise

    def _remember(self, entry: Any) -> PooledConnection:
        connection = PooledConnection(entry.dbapi_connection, monotonic(), entry)
        entry.info[REMEMBERED] = connection
        return connection

    def _checkin_proxy_from(self, lease: Any) -> None:
        connection = lease.connection
        entry, connection.last_used_at = connection.entry, monotonic()
        try:
            entry.close()
            if self.closed:
                _close_idle(self._pool)
        except BaseException:
            if not entry.is_valid:  # the pool has it back
                self._clear_lease(lease)
            raise
        self._clear_lease(lease)

    def _discard_proxy_from(self, lease: Any, broken: bool) -> None:
        entry: Any = lease.connection.entry
        if entry is not None:
            if broken:
                self._pool._invalidate(entry)
            else:
                entry.invalidate()
        self._clear_lease(lease)

    def _clear_lease(self, lease: Any) -> None:
        connection = lease.connection
        self._in_use.discard(connection)
        connection.raw = connection.entry = lease.connection = None

    # Not on the hot path.

    def _setting_path(self, key: str) -> str:
        """Return where the pool's option *key* is in the settings."""
        first, *others = self.options_setting
        return first + "".join(f"[{name!r}]" for name in (*others, key))

    def _explain(self, error: Exception) -> BaseException:
        """Return the error to raise for *error*, with the alias of the pool and a remedy."""
        explained: BaseException
        if isinstance(error, CannotConnect):
            cause = error.__cause__
            if not isinstance(cause, self.dbapi.Error):
                return cause  # type: ignore[return-value]
            error = cause
        if isinstance(error, self.dbapi.Error):
            explained = self.cannot_connect(error)
        elif isinstance(error, exc.TimeoutError):
            explained = self._timeout_error(error)
        else:
            explained = self.dbapi.OperationalError(f"DATABASES[{self.config.alias!r}]: {error}.")
        explained.__cause__ = error
        return explained

    def _timeout_error(self, error: Exception) -> Exception:
        said = f"{error}"
        if (pool := self._lean) is not None:
            failure, opening, stats = pool.failure, len(pool.opening), self.stats()
            # The pool is not exhausted, so no connection could be opened: say why.
            if isinstance(failure, self.dbapi.Error):
                if stats.max_size is None or stats.in_use < stats.max_size:
                    return self.cannot_connect(failure)
            elif opening and not (self.permits is not None and self.permits.asking):
                said += (
                    f", because the server has not answered; {opening} connections are being opened"
                )
        keys = map(self._setting_path, ("pool_size", "max_overflow", "timeout"))
        return self.exhausted(self.dbapi.OperationalError, said, f"raise {', '.join(keys)}")


def _with_connect_timeout(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *parameters*, with psycopg 3's default of ``connect_timeout`` if it is not set.

    psycopg2 would wait forever for a silent server, and the pool for psycopg2.
    """
    told = {"connect_timeout", "dsn", "service"} & parameters.keys()
    if told or {"PGCONNECT_TIMEOUT", "PGSERVICE"} & os.environ.keys():
        return parameters
    return {**parameters, "connect_timeout": 130}


def _lend_entry(adapter: QueuePoolAdapter | None, entry: Any) -> None:
    """Prepare an entry for other code, which has it by ``connect()``."""
    if adapter is not None:
        lend(adapter, entry.dbapi_connection, entry.info[REMEMBERED])


def _normalize_entry(adapter: QueuePoolAdapter | None, entry: Any) -> bool:
    """Prepare an entry for leases that came back by ``close()``; return whether that worked."""
    raw = entry.dbapi_connection
    if adapter is not None and adapter.is_blocked(raw):
        return False  # the next call of the driver, such as ROLLBACK, would hang
    _normalize(adapter, raw)
    remembered = entry.info.get(REMEMBERED)
    if adapter is None or remembered is None:
        return False  # SQLAlchemy has reconnected: nobody knows what the session was
    if adapter.keeps_notices:
        adapter.drop_notices(raw)
    if remembered.raw is not None:  # a lease had it, with a proxy
        return adapter.is_as_it_was(raw, remembered)
    return restored(adapter, raw, remembered)


def _normalize(adapter: QueuePoolAdapter | None, raw: Any) -> None:
    """Prepare a connection for leases that other code may have used."""
    if adapter is None:
        raise PoolClosed("the pool is gone")
    if adapter.transaction_status(raw) != TransactionStatus.IDLE:
        raw.rollback()
        if adapter.transaction_status(raw) != TransactionStatus.IDLE:
            # In autocommit, psycopg2 ignores transactions that it did not begin.
            adapter.execute_internal(raw, "ROLLBACK")
    if raw.autocommit is not True:
        raw.autocommit = True


def _close_idle(pool: Pool) -> None:
    """Close idle connections, as ``dispose()`` does, which would also lose count of the others."""
    if not isinstance(pool, QueuePool):
        pool.dispose()
        return
    queue: Any = pool._pool
    while True:
        with queue.mutex:
            if not queue.queue:
                return
            entry = queue.queue.popleft()
        entry.close()
        pool._dec_overflow()


def _pool_class(given: object) -> type[Pool]:
    """Return the class that ``OPTIONS["pool"]["class"]`` names."""
    found = given
    if isinstance(given, str):
        module, _, name = given.rpartition(".")
        try:
            found = getattr(importlib.import_module(module) if module else sqlalchemy_pool, name)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"'class': {given!r} cannot be imported: {error}.") from error
    if not (inspect.isclass(found) and issubclass(found, Pool)):
        raise ConfigurationError(
            f"'class' is {given!r}; it must be a pool class of SQLAlchemy, its name, such as "
            "'NullPool', or the dotted path of a subclass."
        )
    for name, why in _REFUSED.items():
        if issubclass(found, getattr(sqlalchemy_pool, name)):
            raise ConfigurationError(f"'class' cannot be {name}: {why}.")
    return LeanQueuePool if found is QueuePool else found
