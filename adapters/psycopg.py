"""psycopg_pool.ConnectionPool.

https://www.psycopg.org/psycopg3/docs/api/pool.html
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any, ClassVar, Literal, NoReturn

import psycopg
import psycopg_pool

from relet.core import ConfigurationError, PoolAdapter, PoolConfig, PooledConnection, PoolStats
from relet.core.lease import TransactionStatus
from relet.core.policy import check_keys

Connection = psycopg.Connection[Any]
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


class PsycopgAdapter(PoolAdapter[Connection]):
    """A `psycopg_pool.ConnectionPool`, or a `NullConnectionPool` where pooling is off."""

    lifetime_enforced: ClassVar[Literal["checkin", "checkout", "never"]] = "checkin"
    has_threads = True

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        self._opening = threading.Lock()
        self._opened = False
        self._in_use: set[PooledConnection] = set()
        self._pool = _make_pool(config)
        # Looked up once: both are called for every statement.
        self._getconn, self._putconn = self._pool.getconn, self._pool.putconn

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
    def native(self) -> Pool:
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
            if error := self._try_to_connect():
                raise error
            self._pool.open()
            self._opened = True

    def checkout(self, timeout: float | None = None) -> PooledConnection:
        try:
            raw = self._getconn(timeout)
        except psycopg.OperationalError as error:
            self._explain(error)
        except BaseException as error:
            _leave_queue(self._pool, error)
            raise
        try:
            connection: PooledConnection = raw.relet  # type: ignore[attr-defined]
        except AttributeError:
            connection = raw.relet = PooledConnection(raw, monotonic())  # type: ignore[attr-defined]
        self._in_use.add(connection)
        return connection

    def checkin(self, connection: PooledConnection) -> None:
        connection.proven_at = monotonic()
        self._in_use.discard(connection)
        self._putconn(connection.raw)

    def discard(self, connection: PooledConnection) -> None:
        self._in_use.discard(connection)
        connection.raw.close()
        self._putconn(connection.raw)

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

    def ping(self, raw: Connection) -> bool:
        try:
            psycopg_pool.ConnectionPool.check_connection(raw)
        except psycopg.Error:
            return False
        return self.transaction_status(raw) == TransactionStatus.IDLE

    def _try_to_connect(self) -> psycopg.OperationalError | None:
        pool = self._pool
        try:
            conninfo = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
            # No context or cursor_factory here: only whether the server lets us in counts.
            pool.connection_class.connect(conninfo or "", **dict(self.config.connect)).close()
        except psycopg.OperationalError as error:
            return type(error)(
                f"DATABASES[{self.config.alias!r}]: cannot connect: {str(error).strip()}\n"
                "Check HOST, PORT, NAME, USER and PASSWORD, and that the server runs and has "
                "connections left."
            )
        return None

    def _explain(self, error: psycopg.OperationalError) -> NoReturn:
        """Raise *error* again, saying whose pool it was and what can be done."""
        prefix = f"DATABASES[{self.config.alias!r}]: {error}. "
        stats = self.stats()
        if isinstance(error, psycopg_pool.TooManyRequests):
            raise psycopg_pool.TooManyRequests(
                f"{prefix}Raise OPTIONS['pool']['max_waiting'] ({self._pool.max_waiting}), or "
                f"'max_size' ({stats.max_size}) to have fewer wait."
            ) from error
        if isinstance(error, psycopg_pool.PoolTimeout):
            # Nobody holds them all, so none could be opened: say why.
            if stats.in_use < (stats.max_size or stats.in_use + 1) and (
                refused := self._try_to_connect()
            ):
                raise refused from error
            raise psycopg_pool.PoolTimeout(
                f"{prefix}{stats.in_use} of {stats.max_size} connections are leased and "
                f"{stats.waiting} threads wait. Look for what holds leases (transactions left "
                "open, server-side cursors not closed), or raise OPTIONS['pool']['max_size'] "
                "or ['timeout']."
            ) from error
        raise error


def _make_pool(config: PoolConfig) -> Pool:
    if config.options is False:
        return psycopg_pool.NullConnectionPool(
            kwargs=dict(config.connect),
            open=False,
            min_size=0,
            max_size=0,
            num_workers=1,
            name=f"relet-{config.alias}",
            configure=config.configure,
        )
    options = dict(config.options)
    own, theirs = config.configure, options.pop("configure", None)

    def configure(raw: Connection) -> None:
        own(raw)
        if theirs is not None:
            theirs(raw)

    return psycopg_pool.ConnectionPool(
        kwargs=dict(config.connect),
        open=False,
        configure=configure,
        **{"name": f"relet-{config.alias}", **options},
    )


def _leave_queue(pool: Pool, error: BaseException) -> None:
    """Give up what *error* left behind on its way out of ``getconn()``.

    psycopg_pool (to 3.3 at least) cleans up after an `Exception` only. A
    KeyboardInterrupt, SystemExit or GreenletExit that strikes while a thread waits
    leaves its place in the queue: the next connection given back is given to
    nobody, and the pool is one smaller for good. The place, or the connection, is
    a local of the frames that the exception has passed.
    """
    traceback = error.__traceback__
    place = raw = None
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__") == psycopg_pool.ConnectionPool.__module__:
            place = frame.f_locals.get("pos", place)
            raw = frame.f_locals.get("conn", raw)
        traceback = traceback.tb_next
    if raw is None and place is not None and not place.fail(psycopg_pool.PoolTimeout("interrupted")):
        raw = place.conn
    if isinstance(raw, psycopg.Connection):
        raw._pool = pool
        pool.putconn(raw)
