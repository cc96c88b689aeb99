"""psycopg_pool.ConnectionPool.

https://www.psycopg.org/psycopg3/docs/api/pool.html
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar, Literal, NoReturn

import psycopg
import psycopg_pool
from psycopg_pool import PoolTimeout

from relet.adapters.drivers.psycopg import Psycopg
from relet.adapters.lending import lend, restored
from relet.adapters.opening import MIN_WAIT
from relet.adapters.permits import Permits
from relet.adapters.slots import SlotAdapter
from relet.core import ConfigurationError, PoolConfig, PoolStats
from relet.core.background import BackgroundCall
from relet.core.policy import check_function, check_keys, check_number

from .callbacks import Callbacks, Refused
from .lean_pool import Failed, LeanPool
from .unpooled import Unpooled

#: The key of the attempt in `_attempts`.
_FIRST = "first"

_POOL_OPTIONS = [
    name
    for name, parameter in inspect.signature(psycopg_pool.ConnectionPool).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]
_WHOLE_NUMBERS = ("min_size", "max_size", "max_waiting", "num_workers")
_SECONDS = ("timeout", "max_lifetime", "max_idle", "reconnect_timeout")
_FUNCTIONS = ("configure", "check", "reset", "reconnect_failed")
_RESERVED = {
    "policy": "it belongs in OPTIONS['policy'], not in OPTIONS['pool']",
    "kwargs": "connection parameters belong in DATABASES[alias] and its OPTIONS",
    "open": "relet opens the pool with its first lease",
    "close_returns": "relet relies on it to discard connections",
}


class PsycopgAdapter(Psycopg, SlotAdapter):
    """A `psycopg_pool.ConnectionPool`, or `Unpooled` if pooling is off."""

    pool_keys: ClassVar[Sequence[str]] = [name for name in _POOL_OPTIONS if name not in _RESERVED]
    timeout_error: ClassVar[type[Exception] | None] = PoolTimeout

    def __init__(self, config: PoolConfig) -> None:
        super().__init__(config)
        if config.budget is not None:
            self.permits = Permits(config.budget, self)
            self.config = config = self.permits.config(config)
        self._callbacks = Callbacks(config)
        self._pool = pool = _make_pool(config, self._callbacks)
        if isinstance(pool, LeanPool):
            if self.permits is not None:
                pool.share_budget(self.permits)
            self.fair_queue = pool
            adapter = weakref.ref(self)  # a cycle would delay its collection
            pool.lend = lambda raw: _lend(adapter(), raw)
            pool.normalize = lambda raw, lent: _normalize(adapter(), raw, lent)
        self._opened = isinstance(pool, Unpooled)
        #: The attempt to open the pool that is under way, if any, at one key.
        self._attempts: dict[str, BackgroundCall] = {}
        #: How often threads have waited for it, how long, and what is called then.
        self._waits, self._wait_s = 0, 0.0
        self._watchers: tuple[Callable[[object], object], ...] = (_ignore, _ignore)
        # Looked up once, because they are called for every statement.
        self._take: Callable[[Any, float | None], None] = self._pool.checkout_into
        self._give: Callable[[Any], None] = self._pool.checkin_from
        if isinstance(pool, LeanPool) and pool.checks:
            self._take = pool.checkout_checked_into

    @classmethod
    def check_connect(cls, parameters: Mapping[str, Any]) -> None:
        if "conninfo" in parameters:
            raise ConfigurationError(
                "'conninfo' is an argument that the pool passes itself. Put what is in it into "
                "NAME, USER, PASSWORD, HOST and PORT, or into OPTIONS by its own name."
            )
        super().check_connect(parameters)

    @classmethod
    def check_options(cls, options: Mapping[str, Any] | Literal[False]) -> None:
        if options is False:
            return
        check_keys(options, cls.pool_keys, _RESERVED)
        for key, value in options.items():
            if key in _SECONDS or (key in _WHOLE_NUMBERS and (key, value) != ("max_size", None)):
                check_number(key, value, whole=key in _WHOLE_NUMBERS)
            elif key in _FUNCTIONS:
                check_function(key, value)
        least = cls.min_size_of(options)
        if "min_size" not in options and (options.get("max_size") or least) < least:
            raise ConfigurationError(
                f"'max_size' is {options['max_size']}, but 'min_size' is {least} by default; set "
                "'min_size', too."
            )
        try:
            # The pool checks its own values. A closed pool starts no thread and no connection.
            psycopg_pool.ConnectionPool(open=False, **options)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{error}.") from error

    @classmethod
    def can_share_budget(cls, options: Mapping[str, Any] | Literal[False]) -> bool:
        return options is not False

    @classmethod
    def min_size_of(cls, options: Mapping[str, Any] | Literal[False]) -> int:
        if options is False:
            return 0
        default = inspect.signature(psycopg_pool.ConnectionPool).parameters["min_size"].default
        return int(options.get("min_size", default))

    @classmethod
    def options_for(cls, *, size: int, timeout: float) -> dict[str, Any]:
        return {"min_size": 1, "max_size": size, "timeout": timeout}

    @property
    def native(self) -> LeanPool | Unpooled:
        return self._pool

    def open(self) -> None:
        if self._opened:
            return
        if self.closed:
            raise self._was_closed()
        # All threads wait for the same attempt, so at most one connection is opened beside the
        # pool, however many threads there are and however long it takes.
        attempt = self._attempts.setdefault(_FIRST, BackgroundCall(self._reach))
        attempt.start()
        seconds = max(self._pool.timeout, MIN_WAIT)  # type: ignore[union-attr]
        if not self._await(attempt, seconds):
            raise self.cannot_connect(_no_answer(seconds))
        if self.closed:
            raise self._was_closed()
        if attempt.error is not None:
            self._fail(attempt.error)

    def _await(self, attempt: BackgroundCall, seconds: float) -> bool:
        """Wait for the first connection. This counts as a wait in the queue of the pool does."""
        began, ended = self._watchers
        wait, since = object(), monotonic()
        try:
            began(wait)
            return attempt.wait(seconds)
        finally:
            ended(wait)
            self._waits += 1
            self._wait_s += monotonic() - since

    def watch_waits(
        self, began: Callable[[object], object], ended: Callable[[object], object]
    ) -> None:
        super().watch_waits(began, ended)
        self._watchers = began, ended

    def _reach(self) -> None:
        """Open the pool, in a thread in which no exception from outside is raised."""
        try:
            self._pool.reach()  # type: ignore[union-attr]
            self._opened = not self.closed
        finally:
            self._attempts.pop(_FIRST, None)  # so that the next call tries again
            if self.closed:  # meanwhile
                self._pool.close()

    # The next two are the hot path.

    def checkout_into(self, lease: Any, timeout: float | None = None) -> None:
        try:
            self._take(lease, timeout)
        except psycopg.OperationalError as error:
            self._explain(error)

    def checkin_from(self, lease: Any) -> None:
        self._give(lease)

    def discard_from(self, lease: Any) -> None:
        self._pool.discard_from(lease)

    def close(self) -> None:
        self.closed = True
        self._pool.close()
        for attempt in list(self._attempts.values()):
            attempt.abandon()

    def stats(self) -> PoolStats:
        stats = self._pool.get_stats()
        return PoolStats(
            min_size=self._pool.min_size,
            max_size=self._pool.max_size or None,
            size=stats["pool_size"],
            idle=stats["pool_available"],
            in_use=self._pool.in_use,
            waiting=stats["requests_waiting"],
            checkouts=stats.get("requests_num", 0),
            waits=stats.get("requests_queued", 0) + self._waits,
            wait_ms=stats.get("requests_wait_ms", 0) + int(1000 * self._wait_s),
        )

    def _was_closed(self) -> Exception:
        return psycopg.OperationalError(f"DATABASES[{self.config.alias!r}]: the pool was closed.")

    def _fail(self, error: BaseException) -> NoReturn:
        """Raise the error that connecting raised in another thread."""
        cause = error.__cause__
        if isinstance(error, Failed) and cause is not None:
            self._fail(cause)
        if isinstance(error, Refused) and cause is not None:
            raise self._refused(error, cause) if isinstance(cause, psycopg.Error) else cause
        raise self.cannot_connect(error) if isinstance(error, psycopg.Error) else error

    def _refused(self, error: Refused, cause: psycopg.Error) -> Exception:
        """Return *cause*, which a callback of the options raised, with the name of the callback."""
        refused = type(cause)(
            f"DATABASES[{self.config.alias!r}]['OPTIONS']['pool'][{error.option!r}] refuses each "
            f"new connection: {str(cause).strip()}\nFix that function, or what it checks."
        )
        refused.__cause__ = cause
        return refused

    def _explain(self, error: psycopg.OperationalError) -> NoReturn:
        """Raise *error* with the alias of the pool and a remedy."""
        pool, stats = self._pool, self.stats()
        prefix = f"DATABASES[{self.config.alias!r}]: {error}. "
        if isinstance(pool, Unpooled):
            raise self.cannot_connect(error) from error
        if isinstance(error, (Failed, Refused)):
            self._fail(error)
        if isinstance(error, psycopg_pool.TooManyRequests):
            raise psycopg_pool.TooManyRequests(
                f"{prefix}Raise OPTIONS['pool']['max_waiting'] ({pool.max_waiting}), or "
                f"'max_size' ({stats.max_size}) so that fewer threads wait."
            ) from error
        if isinstance(error, PoolTimeout):
            said = f"{error}"
            # The pool is not exhausted, so no connection could be opened: say why.
            if stats.in_use < pool.max_size:
                if (failure := pool.failure or self._callbacks.refused) is not None:
                    self._fail(failure)
                asks = self.permits is not None and self.permits.asking
                if not asks and (connecting := len(pool.connecting)):
                    said += (
                        f", because the server has not answered; {connecting} connections are "
                        "being opened"
                    )
            cure = "raise OPTIONS['pool']['max_size'] or ['timeout']"
            raise self.exhausted(PoolTimeout, said, cure) from error
        raise error


def _lend(adapter: PsycopgAdapter | None, raw: Any) -> None:
    """Prepare a connection for other code, which has it by ``getconn()``."""
    if adapter is not None:
        lend(adapter, raw, raw.relet)


def _normalize(adapter: PsycopgAdapter | None, raw: Any, lent: bool) -> bool:
    """Prepare a connection for leases that came back; return whether that worked."""
    if raw.autocommit is not True:
        raw.autocommit = True
    if adapter is None:
        return True
    if lent:
        return restored(adapter, raw, raw.relet)
    return adapter.is_as_it_was(raw, raw.relet)


def _ignore(wait: object) -> None:
    """What is called when threads wait, if nobody watches them."""


def _no_answer(seconds: float) -> Exception:
    return psycopg.errors.ConnectionTimeout(f"the server has not answered within {seconds:.2f} sec")


def _make_pool(config: PoolConfig, callbacks: Callbacks) -> LeanPool | Unpooled:
    if config.options is False:
        return Unpooled(config)
    given: dict[str, Any] = {"name": f"relet-{config.alias}", **config.options}
    given["kwargs"] = lambda: Psycopg.arguments(config.parameters())
    given.update(callbacks.options, open=False)
    return LeanPool(**given)
