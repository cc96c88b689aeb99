"""psycopg_pool.ConnectionPool.

https://www.psycopg.org/psycopg3/docs/api/pool.html
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, ClassVar, Literal, NoReturn

import psycopg
import psycopg_pool
from psycopg_pool import PoolTimeout

from relet.adapters.drivers.psycopg import Connection, Psycopg
from relet.core import ConfigurationError, PoolAdapter, PoolConfig, PooledConnection, PoolStats
from relet.core.policy import check_keys

from . import lean_pool
from .unpooled import Unpooled

Pool = psycopg_pool.ConnectionPool[Connection]

_POOL_OPTIONS = [
    name
    for name, parameter in inspect.signature(psycopg_pool.ConnectionPool).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]
_RESERVED = {
    "kwargs": "connection parameters belong in DATABASES[alias] and its OPTIONS",
    "open": "the pool is opened with its first lease",
    "close_returns": "relet closes connections to throw them away",
}


class PsycopgAdapter(Psycopg, PoolAdapter[Connection]):
    """A `psycopg_pool.ConnectionPool`; `Unpooled` where pooling is off."""

    lifetime_enforced: ClassVar[Literal["checkin", "checkout", "never"]] = "checkin"
    has_threads = True
    timeout_error: ClassVar[type[Exception] | None] = PoolTimeout

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self._opening = threading.Lock()
        self._opened = False
        self._in_use: set[PooledConnection | None] = set()
        self._pool = _make_pool(config)
        # Looked up once: they are called for every statement.
        self._take: Callable[[float | None], Connection]
        self._give: Callable[[Connection, float], None]
        if isinstance(self._pool, lean_pool.LeanPool):
            self._take, self._give = self._pool.take, self._pool.give
        else:
            putconn = self._pool.putconn
            self._take, self._give = self._pool.getconn, lambda raw, now: putconn(raw)

    @classmethod
    def check_options(cls, options: Mapping[str, Any] | Literal[False]) -> None:
        if options is False:
            return
        check_keys(options, [name for name in _POOL_OPTIONS if name not in _RESERVED], _RESERVED)
        try:
            # Closed pools start no thread and make no connection: the pool itself
            # is the judge of its values.
            psycopg_pool.ConnectionPool(open=False, **options)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{error}.") from error

    @classmethod
    def options_for(cls, *, size: int, timeout: float) -> dict[str, Any]:
        return {"min_size": 1, "max_size": size, "timeout": timeout}

    @property
    def native(self) -> Pool | Unpooled:
        return self._pool

    def open(self) -> None:
        if self._opened:
            return
        with self._opening:
            if self._opened:
                return
            if self.closed:
                raise self._was_closed()
            # The pool connects in threads of its own and keeps what goes wrong
            # there to its log; whoever waits learns after `timeout` that there was
            # no connection, never that the password is wrong. Ask once, directly.
            if isinstance(self._pool, psycopg_pool.ConnectionPool):
                if error := self._try_to_connect(self._pool):
                    raise error
                self._pool.open()
                if self.closed:  # meanwhile: close() has found it closed still
                    self._pool.close()
                    raise self._was_closed()
            self._opened = True

    def checkout(self, timeout: float | None = None) -> PooledConnection:
        raw = connection = None
        try:
            raw = self._take(timeout)
            try:
                connection = raw.relet  # type: ignore[attr-defined]
            except AttributeError:
                connection = raw.relet = PooledConnection(raw, monotonic())  # type: ignore[attr-defined]
            else:
                connection.raw = raw
            self._in_use.add(connection)
        except psycopg.OperationalError as error:
            self._explain(error)
        except BaseException:
            # KeyboardInterrupt strikes anywhere.
            self._in_use.discard(connection)
            if raw is not None:
                self._put_away(raw)
            raise
        return connection

    def checkin(self, connection: PooledConnection) -> None:
        connection.proven_at = now = monotonic()
        self._in_use.discard(connection)
        raw, connection.raw = connection.raw, None  # no reference loop in the pool
        try:
            self._give(raw, now)
        except BaseException:
            # KeyboardInterrupt strikes anywhere; `_pool` is set until the pool has it back.
            if raw._pool is self._pool:
                self._put_away(raw)
            raise

    def discard(self, connection: PooledConnection) -> None:
        self._in_use.discard(connection)
        raw, connection.raw = connection.raw, None
        self._put_away(raw)

    def _put_away(self, raw: Connection) -> None:
        raw.close()
        self._pool.putconn(raw)

    def close(self) -> None:
        self.closed = True
        self._pool.close()

    def stats(self) -> PoolStats:
        stats = self._pool.get_stats()
        return PoolStats(
            min_size=self._pool.min_size,
            max_size=self._pool.max_size or None,
            size=stats["pool_size"],
            idle=stats["pool_available"],
            in_use=len(self._in_use),
            waiting=stats["requests_waiting"],
            checkouts=stats.get("requests_num", 0),
            waits=stats.get("requests_queued", 0),
            wait_ms=stats.get("requests_wait_ms", 0),
        )

    def _was_closed(self) -> Exception:
        return psycopg.OperationalError(f"DATABASES[{self.config.alias!r}]: the pool was closed.")

    def _try_to_connect(self, pool: Pool) -> Exception | None:
        """Connect and disconnect; return what went wrong."""
        try:
            conninfo = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
            parameters = {**self.config.parameters(), "autocommit": True}
            with pool.connection_class.connect(conninfo or "", **parameters) as raw:
                self.config.configure(raw)
        except psycopg.Error as error:
            return self.cannot_connect(error)
        return None

    def _explain(self, error: psycopg.OperationalError) -> NoReturn:
        """Raise *error* again, saying whose pool it was and what can be done."""
        pool, stats = self._pool, self.stats()
        prefix = f"DATABASES[{self.config.alias!r}]: {error}. "
        if isinstance(pool, Unpooled):
            raise self.cannot_connect(error) from error
        if isinstance(error, psycopg_pool.TooManyRequests):
            raise psycopg_pool.TooManyRequests(
                f"{prefix}Raise OPTIONS['pool']['max_waiting'] ({pool.max_waiting}), or "
                f"'max_size' ({stats.max_size}) to have fewer wait."
            ) from error
        if isinstance(error, PoolTimeout):
            # Nobody holds them all, so none could be opened: say why.
            if stats.in_use < pool.max_size and (refused := self._try_to_connect(pool)):
                raise refused from error
            cure = "raise OPTIONS['pool']['max_size'] or ['timeout']"
            raise self.exhausted(PoolTimeout, f"{error}", cure) from error
        raise error


def _make_pool(config: PoolConfig) -> Pool | Unpooled:
    if config.options is False:
        return Unpooled(config)
    options = dict(config.options)
    own, theirs = config.configure, options.pop("configure", None)

    def configure(raw: Connection) -> None:
        try:
            own(raw)
            if theirs is not None:
                theirs(raw)
        except BaseException:
            # The pool would leave it open until it is collected.
            raw.close()
            raise

    return (lean_pool.LeanPool if lean_pool.LEAN else psycopg_pool.ConnectionPool)(
        kwargs=lambda: {**config.parameters(), "autocommit": True},
        open=False,
        configure=configure,
        **{"name": f"relet-{config.alias}", **options},
    )
