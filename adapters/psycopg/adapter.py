"""psycopg_pool.ConnectionPool.

https://www.psycopg.org/psycopg3/docs/api/pool.html
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar, Literal, NoReturn

import psycopg
import psycopg_pool
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from relet.core import ConfigurationError, PoolAdapter, PoolConfig, PooledConnection, PoolStats
from relet.core.policy import check_keys
from relet.core.status import TransactionStatus

from . import lean_pool
from .unpooled import Unpooled

Connection = psycopg.Connection[Any]
Pool = psycopg_pool.ConnectionPool[Connection]

_POOL_OPTIONS = [
    name
    for name, parameter in inspect.signature(psycopg_pool.ConnectionPool).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]
#: What a connection hands on to whoever asks next: handlers, and notifications not asked for.
_HANDED_ON = ("_notice_handlers", "_notify_handlers", "_notifies_backlog")
#: A true boolean, in text and in binary.
_TRUE = (b"t", b"\x01")
_RESERVED = {
    "kwargs": "connection parameters belong in DATABASES[alias] and its OPTIONS",
    "open": "the pool is opened with its first lease",
    "close_returns": "relet closes connections to throw them away",
}


class PsycopgAdapter(PoolAdapter[Connection]):
    """A `psycopg_pool.ConnectionPool`; `Unpooled` where pooling is off."""

    lifetime_enforced: ClassVar[Literal["checkin", "checkout", "never"]] = "checkin"
    has_threads = True

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self._opening = threading.Lock()
        self._opened = False
        self._in_use: set[PooledConnection] = set()
        self._pool = _make_pool(config)
        self.pooled = config.options is not False
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
        for key, why in _RESERVED.items():
            if key in options:
                raise ConfigurationError(f"{key!r} cannot be set: {why}.")
        check_keys(options, [name for name in _POOL_OPTIONS if name not in _RESERVED])
        try:
            # Closed pools start no thread and make no connection: the pool itself
            # is the judge of its values.
            psycopg_pool.ConnectionPool(open=False, **options)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{error}.") from error

    @property
    def native(self) -> Pool | Unpooled:
        return self._pool

    def open(self) -> None:
        if self._opened:
            return
        with self._opening:
            if self._opened:
                return
            # The pool connects in threads of its own and keeps what goes wrong
            # there to its log; whoever waits learns after `timeout` that there was
            # no connection, never that the password is wrong. Ask once, directly.
            if isinstance(self._pool, psycopg_pool.ConnectionPool):
                if error := self._try_to_connect(self._pool):
                    raise error
                self._pool.open()
            self._opened = True

    def checkout(self, timeout: float | None = None) -> PooledConnection:
        try:
            raw = self._take(timeout)
        except psycopg.OperationalError as error:
            self._explain(error)
        try:
            connection: PooledConnection = raw.relet  # type: ignore[attr-defined]
        except AttributeError:
            connection = raw.relet = PooledConnection(raw, monotonic())  # type: ignore[attr-defined]
        else:
            connection.raw = raw
        self._in_use.add(connection)
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
                raw.close()
                self._pool.putconn(raw)
            raise

    def discard(self, connection: PooledConnection) -> None:
        self._in_use.discard(connection)
        raw, connection.raw = connection.raw, None
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

    def transaction_status(self, raw: Connection) -> int:
        return raw.pgconn.transaction_status

    def run(self, raw: Connection, sql: str) -> list[tuple[Any, ...]]:
        # Whatever cursor and row factories are set. Several statements cannot be prepared.
        cursor = psycopg.Cursor(raw, row_factory=tuple_row)
        cursor.execute(sql, prepare=False)
        return cursor.fetchall() if cursor.description else []

    def settings(self, raw: Connection) -> object:
        return (
            *(raw.isolation_level, raw.read_only, raw.deferrable),
            *(raw.cursor_factory, raw.row_factory, raw.prepare_threshold, raw.prepared_max),
            # Not public, but nothing else tells: a handler would be called for others.
            *(tuple(getattr(raw, name, None) or ()) for name in _HANDED_ON),
        )

    @classmethod
    def text(cls, query: Any) -> str:
        if isinstance(query, (str, bytes)):
            return super().text(query)
        if isinstance(query, psycopg.sql.Composable):
            query = query.as_string(None)
        return str(query)

    def truths(self, cursor: psycopg.Cursor[Any]) -> Sequence[bool] | None:
        result = cursor.pgresult
        if result is None or result.ntuples != 1:
            return None
        return [result.get_value(0, column) in _TRUE for column in range(result.nfields)]

    def ping(self, raw: Connection) -> bool:
        try:
            psycopg_pool.ConnectionPool.check_connection(raw)
        except psycopg.Error:
            return False
        return self.transaction_status(raw) == TransactionStatus.IDLE

    def _try_to_connect(self, pool: Pool) -> psycopg.Error | None:
        """Connect and disconnect; return what went wrong."""
        try:
            conninfo = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
            with pool.connection_class.connect(conninfo or "", **self.config.connect) as raw:
                self.config.configure(raw)
        except psycopg.Error as error:
            return self._refused(error)
        return None

    def _refused(self, error: psycopg.Error) -> psycopg.Error:
        return type(error)(
            f"DATABASES[{self.config.alias!r}]: cannot connect: {str(error).strip()}\n"
            "Check HOST, PORT, NAME, USER, PASSWORD and OPTIONS, and that the server runs and "
            "has connections left."
        )

    def _explain(self, error: psycopg.OperationalError) -> NoReturn:
        """Raise *error* again, saying whose pool it was and what can be done."""
        pool, stats = self._pool, self.stats()
        prefix = f"DATABASES[{self.config.alias!r}]: {error}. "
        if isinstance(pool, Unpooled):
            raise self._refused(error) from error
        if isinstance(error, psycopg_pool.TooManyRequests):
            raise psycopg_pool.TooManyRequests(
                f"{prefix}Raise OPTIONS['pool']['max_waiting'] ({pool.max_waiting}), or "
                f"'max_size' ({stats.max_size}) to have fewer wait."
            ) from error
        if isinstance(error, PoolTimeout):
            # Nobody holds them all, so none could be opened: say why.
            if stats.in_use < pool.max_size and (refused := self._try_to_connect(pool)):
                raise refused from error
            raise PoolTimeout(
                f"{prefix}{stats.in_use} of {stats.max_size} connections are leased and "
                f"{stats.waiting} threads wait. Look for what holds leases (transactions left "
                "open, server-side cursors not closed), or raise OPTIONS['pool']['max_size'] "
                "or ['timeout']."
            ) from error
        raise error


def _make_pool(config: PoolConfig) -> Pool | Unpooled:
    if config.options is False:
        return Unpooled(config)
    options = dict(config.options)
    own, theirs = config.configure, options.pop("configure", None)

    def configure(raw: Connection) -> None:
        own(raw)
        if theirs is not None:
            theirs(raw)

    return (lean_pool.LeanPool if lean_pool.LEAN else psycopg_pool.ConnectionPool)(
        kwargs=dict(config.connect),
        open=False,
        configure=configure,
        **{"name": f"relet-{config.alias}", **options},
    )
