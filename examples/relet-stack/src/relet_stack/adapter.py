"""The adapter: relet's interface to a pool, implemented for this one."""

from functools import partial
from time import monotonic

import psycopg

from relet.adapters.drivers.psycopg import Psycopg
from relet.adapters.opening import opened
from relet.adapters.semaphore import FairSemaphore, SemaphoreClosed
from relet.core import ConfigurationError, PoolAdapter, PooledConnection, PoolStats

from .pool import StackPool

DEFAULTS = {"size": 4, "timeout": 30.0, "max_lifetime": 3600.0}
#: For OPTIONS["pool"] = False: no limit, and no connection is put back.
NO_POOL = {"size": None, "timeout": 0.0, "max_lifetime": 0.0}


class StackAdapter(Psycopg, PoolAdapter[psycopg.Connection]):
    pool_keys = tuple(DEFAULTS)

    # Options.

    @classmethod
    def check_options(cls, options):
        if options is False:
            return
        for key, value in options.items():
            if key not in DEFAULTS:
                raise ConfigurationError(f"unknown {key!r}; known are {', '.join(DEFAULTS)}.")
            if not isinstance(value, (int, float)) or value < 0 or (key == "size" and value < 1):
                raise ConfigurationError(f"{key!r} cannot be {value!r}.")

    @classmethod
    def options_for(cls, *, size, timeout):
        return {"size": size, "timeout": timeout}

    def __init__(self, config):
        super().__init__(config)
        unpooled = config.options is False
        self._options = NO_POOL if unpooled else {**DEFAULTS, **config.options}
        self._semaphore = self.fair_queue = FairSemaphore(self._options["size"])
        self._pool = StackPool(partial(opened, self.connect, config), self._options["max_lifetime"])

    @property
    def native(self):
        return self._pool

    # Life.

    def open(self):
        """Do nothing: connections are opened on demand."""

    def close(self):
        self.closed = True
        self._semaphore.close()
        self._pool.close()

    # Leases.

    def checkout(self, timeout=None):
        seconds = self._options["timeout"] if timeout is None else timeout
        try:
            acquired = self._semaphore.acquire(seconds)
        except SemaphoreClosed as error:
            raise psycopg.OperationalError(f"DATABASES[{self.config.alias!r}]: {error}.") from error
        if not acquired:
            problem = f"couldn't get a connection after {seconds:.2f} sec"
            cure = "raise OPTIONS['pool']['size'] or ['timeout']"
            raise self.exhausted(psycopg.OperationalError, problem, cure)
        try:
            entry = self._pool.pop()
        except BaseException as error:
            self._semaphore.release()
            if isinstance(error, psycopg.Error):
                raise self.cannot_connect(error) from error
            raise
        if entry.pooled is None:
            entry.pooled = PooledConnection(entry.raw, monotonic(), entry)
        entry.pooled.raw, entry.pooled.entry = entry.raw, entry
        return entry.pooled

    def checkin(self, connection):
        entry, connection.entry, connection.raw = connection.entry, None, None
        connection.last_used_at = monotonic()
        try:
            self._pool.push(entry)
        finally:
            self._semaphore.release()

    def discard(self, connection):
        entry, connection.entry, connection.raw = connection.entry, None, None
        try:
            entry.raw.close()
        finally:
            self._semaphore.release()

    def stats(self):
        semaphore, idle = self._semaphore, len(self._pool)
        return PoolStats(
            min_size=0,
            max_size=semaphore.size,
            size=semaphore.in_use + idle,
            idle=idle,
            in_use=semaphore.in_use,
            waiting=semaphore.waiting,
            checkouts=semaphore.entries,
            waits=semaphore.waits,
            wait_ms=semaphore.wait_ms,
        )
