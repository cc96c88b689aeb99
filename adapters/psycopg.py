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


class LeanPool(psycopg_pool.ConnectionPool[Connection]):
    """A `ConnectionPool` that makes less ado where there is nothing to decide.

    A lease is a `getconn()` and a `putconn()` for every statement, and most find a
    connection ready and nobody waiting. Then what they do is to take it off a deque
    and to put it back; the rest, mostly log calls and look-ups, is a fifth of the
    CPU of a ``SELECT 1``. These two do that much, under the pool's own lock, and
    leave all else to the pool. They rely on its insides, see `LEAN`.
    """

    def take(self) -> Connection | None:
        """Return a connection that is ready; None if there is none, or it must be checked."""
        if self._check is not None:
            return None
        with self._lock:
            ready = self._pool
            if not ready or self._closed:
                return None
            raw: Connection = ready.popleft()
            if len(ready) < self._nconns_min:
                self._nconns_min = len(ready)
            self._stats["requests_num"] += 1
        raw._pool = self
        return raw

    def give(self, raw: Connection, now: float) -> bool:
        """Put an idle connection back; False if somebody waits or it is not to be kept."""
        if self._reset is not None or raw._expire_at <= now or raw._created_at <= self._drained_at:
            return False
        with self._lock:
            if self._waiting or self._closed:
                return False
            raw._pool = None
            self._pool.append(raw)
        return True


#: Whether this psycopg_pool is one that `LeanPool` has been read against.
LEAN = psycopg_pool.__version__.split(".")[:2] in (["3", "2"], ["3", "3"])


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
        lean = self._pool if isinstance(self._pool, LeanPool) else None
        # Looked up once: they are called for every statement.
        self._take: Callable[[], Connection | None] = lean.take if lean else lambda: None
        self._give: Callable[[Connection, float], bool] = (
            lean.give if lean else lambda raw, now: False
        )

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
        raw = self._take()
        if raw is None:
            raw = self._wait(timeout)
        try:
            connection: PooledConnection = raw.relet  # type: ignore[attr-defined]
        except AttributeError:
            connection = raw.relet = PooledConnection(raw, monotonic())  # type: ignore[attr-defined]
        else:
            connection.raw = raw
        self._in_use.add(connection)
        return connection

    def _wait(self, timeout: float | None) -> Connection:
        try:
            return self._pool.getconn(timeout)
        except psycopg.OperationalError as error:
            self._explain(error)
        except BaseException as error:
            if isinstance(self._pool, psycopg_pool.ConnectionPool):
                _leave_queue(self._pool, error)
            raise

    def checkin(self, connection: PooledConnection) -> None:
        connection.proven_at = now = monotonic()
        self._in_use.discard(connection)
        raw, connection.raw = connection.raw, None  # no reference loop in the pool
        try:
            if not self._give(raw, now):
                self._pool.putconn(raw)
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
        if isinstance(error, psycopg_pool.PoolTimeout):
            # Nobody holds them all, so none could be opened: say why.
            if stats.in_use < pool.max_size and (refused := self._try_to_connect(pool)):
                raise refused from error
            raise psycopg_pool.PoolTimeout(
                f"{prefix}{stats.in_use} of {stats.max_size} connections are leased and "
                f"{stats.waiting} threads wait. Look for what holds leases (transactions left "
                "open, server-side cursors not closed), or raise OPTIONS['pool']['max_size'] "
                "or ['timeout']."
            ) from error
        raise error


class Unpooled:
    """In place of a pool where there is to be none: connects, and disconnects.

    psycopg_pool's NullConnectionPool would do, but for the threads it starts, which
    somebody would have to stop for each wrapper that goes away.
    """

    min_size = max_size = max_waiting = 0

    def __init__(self, config: PoolConfig) -> None:
        self._connect, self._configure = config.connect, config.configure

    def getconn(self, timeout: float | None = None) -> Connection:
        raw: Connection = psycopg.connect(**self._connect)
        try:
            self._configure(raw)
        except BaseException:
            raw.close()
            raise
        return raw

    def putconn(self, raw: Connection) -> None:
        raw.close()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def get_stats(self) -> dict[str, int]:
        return dict.fromkeys(("pool_size", "pool_available", "requests_waiting"), 0)


def _make_pool(config: PoolConfig) -> Pool | Unpooled:
    if config.options is False:
        return Unpooled(config)
    options = dict(config.options)
    own, theirs = config.configure, options.pop("configure", None)

    def configure(raw: Connection) -> None:
        own(raw)
        if theirs is not None:
            theirs(raw)

    return (LeanPool if LEAN else psycopg_pool.ConnectionPool)(
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
    if (
        raw is None
        and place is not None
        and not place.fail(psycopg_pool.PoolTimeout("interrupted"))
    ):
        raw = place.conn
    if isinstance(raw, psycopg.Connection):
        raw._pool = pool
        pool.putconn(raw)
