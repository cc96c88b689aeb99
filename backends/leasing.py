"""Leasing: feeds a wrapper's lease with events and performs the actions it returns.

`relet.core.lease` decides; this file does. `wrapper` lays Django's API over it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from relet.core import (
    Action,
    Event,
    Lease,
    PoolAdapter,
    PoolConfig,
    PooledConnection,
    ReleasePolicy,
    State,
    policies,
)
from relet.core.lease import TABLES
from relet.core.reads import only_reads
from relet.core.status import TransactionStatus

from . import holders, lifetimes, session_state
from .bases import WrapperBase
from .credentials import Credentials
from .options import check_max_age, pool_options, release_policy
from .pools import MakePool, OpenPool, copied, pools

if TYPE_CHECKING:
    from .cursor import LeasedCursor

logger = logging.getLogger("relet")

# Module constants: looking up an Enum's member costs more than using it.
STATEMENT, CONNECT, ENDED, CLOSE = Event.STATEMENT, Event.CONNECT, Event.ENDED, Event.CLOSE
UNAVAILABLE = Event.UNAVAILABLE
NOTHING, CHECKOUT, CHECKIN = Action.NOTHING, Action.CHECKOUT, Action.CHECKIN
IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION

_NOT_SHARED = nullcontext()
_NO_STAMP = object()

#: What Django's connect() resets. A lease that begins inside an atomic block may be
#: of a connection that is new, and has to be introduced as if outside of it.
_DJANGO_STATE = (
    "atomic_blocks",
    "autocommit",
    "closed_in_transaction",
    "commit_on_exit",
    "errors_occurred",
    "in_atomic_block",
    "needs_rollback",
    "rollback_exc",
    "run_commit_hooks_on_set_autocommit_on",
    "run_on_commit",
    "savepoint_ids",
    "savepoint_state",
    "_closed",
    "_lease",
    "_pending_savepoints",
)


class Doubt(Enum):
    """Whether a connection that is taken from the pool works."""

    NONE = "it was in use a moment ago"
    SMALL = "the server says so, if it has ended the session"
    GREAT = "it is asked"


class Leasing(WrapperBase):
    """The part of the wrapper that has a lease. Not thread-safe but for `_guard`."""

    adapter_class: ClassVar[type[PoolAdapter[Any]]]
    #: The Django backend that it is built on, and that of the adapter's driver.
    plain_backend: ClassVar[type[WrapperBase]]
    driver_backend: ClassVar[type[WrapperBase]]

    _lease: Lease
    #: The policy of the lease, or of the last one; and what it was chosen from.
    _policy: ReleasePolicy
    _stamp: object
    _assigned: object
    _overrides: object
    #: Held for each use while the wrapper is shared between threads; else None.
    _guard: threading.RLock | None
    #: SAVEPOINTs of atomic blocks that were entered while there was no connection.
    _pending_savepoints: list[str]
    #: The new connection that is being introduced to Django.
    _introducing: Any
    #: The settings that it was given meanwhile.
    _configured: set[str | None]
    #: The time zone that the pool's connections load timestamps in.
    _pool_timezone: Any
    #: Whether whoever looks at `connection` is known to do nothing to its session.
    _trusted = False
    #: Whether connections are pinged that were idle.
    _health_checks: bool
    #: For how many seconds after its last use a connection is taken to work.
    _trusted_for: float
    #: Whether Django is to find the state of a wrapper that has not connected yet.
    _fresh = True
    #: Whether this process was forked inside a transaction that is its parent's.
    _forked_inside = False
    #: Whether close() has been called since the settings were last looked at.
    _closed: bool
    #: A weak reference to this, made once.
    ref: weakref.ref[Leasing]
    #: The pool and what it was made from.
    _entry: OpenPool | None

    def _init_lease(self) -> None:
        self._policy = ReleasePolicy()
        self._stamp = self._assigned = self._overrides = None
        self._lease = Lease(self.alias)
        self._guard = None
        self._pending_savepoints = []
        self._introducing = None
        self._configured = set()
        self._pool_timezone = None
        self._health_checks = False
        self._trusted_for = self._policy.check_idle
        self._closed = True
        self._entry = None
        self.ref = weakref.ref(self)
        lifetimes.watch(self, self._lease)

    # Statements: the hot path.

    def _begin(self, cursor: LeasedCursor) -> Any:
        """*cursor* is about to run its statement: return the driver's connection for it."""
        lease = self._lease
        if self._closed or lease.pool.closed:  # type: ignore[union-attr]
            self._reopen()
        try:
            if lease.send(STATEMENT) is CHECKOUT:
                self._checkout(lease, cursor)
        except BaseException:
            # An interrupt may strike before _checkout() has begun.
            if lease.connection is None and lease.state is State.RUNNING:
                lease.send(UNAVAILABLE)
            raise
        return lease.connection.raw  # type: ignore[union-attr]

    def _end(self, cursor: LeasedCursor) -> None:
        """The statement that *cursor* ran has ended, well or not."""
        lease = self._lease
        connection, pool = lease.connection, lease.pool
        if connection is None or pool is None:
            return  # close() came while it ran
        try:
            status = pool.transaction_status(connection.raw)
            action = lease.report(status, self.in_atomic_block)
            if action is CHECKIN:
                self._checkin(lease, connection, pool)
            else:
                if action is not NOTHING:
                    self._perform(action, cursor)
                if lease.connection is not None:
                    lease.ran = cursor._sql
                    if lease.place is None:
                        holders.note(self, lease, pool)
        except BaseException:
            self._give_up(lease)
            raise

    def _checkout(self, lease: Lease, cursor: LeasedCursor | None = None) -> None:
        pool: PoolAdapter[Any] = lease.pool  # type: ignore[assignment]
        if policies.stamp is not self._stamp:
            self._look_at_policies()
        try:
            if pool.kept and holders.waits_for_itself(pool):
                raise self._in_its_own_way(pool)
            lease.connection = connection = pool.checkout()
            lease.since = now = monotonic()
            proven_at = connection.proven_at
            if proven_at < pool.broken_at or now - proven_at > self._trusted_for:
                self._prove(lease, pool, cursor)
            if not lease.connection.announced:
                self._introduce(lease)
            if not self.autocommit:
                self._begin_transaction(lease)
        except BaseException:
            failed, lease.connection = lease.connection, None
            lease.send(UNAVAILABLE)
            if failed is not None and failed.raw is not None:  # it was not discarded yet
                pool.discard(failed)
            raise

    def _checkin(self, lease: Lease, connection: PooledConnection, pool: PoolAdapter[Any]) -> None:
        if not self.autocommit:
            try:
                connection.raw.autocommit = True
            except self.Database.Error:
                self._discard(lease)
                return
        if lease.place is not None:
            holders.forget(lease, pool)
        pool.checkin(connection)
        lease.connection = None

    # Everything else is off the hot path.

    def _in_its_own_way(self, pool: PoolAdapter[Any]) -> Exception:
        """Return the error of a thread that waits for what it has itself."""
        return pool.exhausted(
            pool.timeout_error or self.Database.OperationalError,
            "this thread has all connections itself, and would wait for ever",
            "have it take its second connection after the first is given back",
        )

    def _ensure_connection(self) -> None:
        with self._trusting():
            self.ensure_connection()

    @contextmanager
    def _trusting(self) -> Iterator[None]:
        """Django looks at `connection` meanwhile, and does nothing to its session."""
        before, self._trusted = self._trusted, True
        try:
            yield
        finally:
            self._trusted = before

    def _perform(self, action: Action, cursor: LeasedCursor | None = None) -> None:
        lease = self._lease
        try:
            if action is Action.CHECKIN:
                self._checkin(lease, *self._leased(lease))
            elif action is Action.CHECKOUT:
                self._checkout(lease)
            elif action is Action.DISCARD:
                self._discard(lease)
            elif action is Action.RESET_THEN_CHECKIN:
                self._reset_then_checkin(lease)
            elif action is Action.PIN_CURSOR and cursor is not None:
                cursor.keep()
        except BaseException:
            self._give_up(lease)
            raise

    def _give_up(self, lease: Lease) -> None:
        """Discard, if the lease has ended and its action has not: interrupts strike anywhere."""
        connection, pool = lease.connection, lease.pool
        if lease.state is State.RESTING and connection is not None and pool is not None:
            if connection.raw is not None:  # the pool has not taken it
                pool.discard(connection)
            holders.forget(lease, pool)
            lease.connection = None
            lease.clean()

    def _settle(self) -> None:
        """Something that may have kept the lease is gone: see whether it ends."""
        lease = self._lease
        if (connection := lease.connection) is None:
            return
        status = lease.pool.transaction_status(connection.raw)  # type: ignore[union-attr]
        self._perform(lease.report(status, self.in_atomic_block))

    def _discard(self, lease: Lease) -> None:
        connection, pool = self._leased(lease)
        lease.pins.clear()
        holders.forget(lease, pool)
        if pool.transaction_status(connection.raw) == TransactionStatus.UNKNOWN:
            pool.broken_at = monotonic()
        pool.discard(connection)
        lease.connection = None
        lease.clean()

    def _reset_then_checkin(self, lease: Lease) -> None:
        connection, pool = self._leased(lease)
        raw = connection.raw
        try:
            for open_cursor in lease.pins.values():
                if open_cursor is not None:
                    open_cursor.close()
            if pool.transaction_status(raw) not in (IDLE, TransactionStatus.UNKNOWN):
                _end(pool, raw, "ROLLBACK")
        except self.Database.Error:
            logger.debug("DATABASES[%r]: cannot be reset, discarded", self.alias, exc_info=True)
            self._discard(lease)
            return
        lease.pins.clear()
        if pool.transaction_status(raw) == IDLE and self._undo(lease):
            lease.clean()
            self._checkin(lease, connection, pool)
        else:
            self._discard(lease)

    def _undo(self, lease: Lease) -> bool:
        """Undo session state, in one round trip; return whether the session is as it was."""
        if lease.session is None or not lease.session.left:
            return True
        connection, pool = self._leased(lease)
        try:
            if not self.autocommit:
                connection.raw.autocommit = True
            return session_state.undo(pool, connection, lease.session.left)
        except (self.Database.Error, UnicodeError):  # of a client_encoding that has not all of it
            logger.debug("DATABASES[%r]: session not restored", self.alias, exc_info=True)
            return False

    @staticmethod
    def _leased(lease: Lease) -> tuple[PooledConnection, PoolAdapter[Any]]:
        connection, pool = lease.connection, lease.pool
        assert connection is not None and pool is not None
        return connection, pool

    def _status(self) -> int:
        """Return the driver's transaction status, of the connection that is leased."""
        connection, pool = self._leased(self._lease)
        return pool.transaction_status(connection.raw)

    def _begin_transaction(self, lease: Lease) -> None:
        """The lease begins inside a transaction that Django has begun already."""
        connection, pool = self._leased(lease)
        raw = connection.raw
        raw.autocommit = False
        if self._pending_savepoints:
            # One round trip for all; in queries_log they stand where they were made.
            sql = "; ".join(map(self.ops.savepoint_create_sql, self._pending_savepoints))
            pool.run(raw, sql)
            self._pending_savepoints = []

    def _prove(self, lease: Lease, pool: PoolAdapter[Any], cursor: LeasedCursor | None) -> None:
        """Replace the connection just taken by the first that works.

        One that was in use a moment ago is taken to work, unless another of the
        same pool was found broken since.
        """
        connection = self._leased(lease)[0]
        while (doubt := self._doubt(connection, pool, cursor)) is not Doubt.NONE:
            if doubt is Doubt.SMALL and pool.silent(connection.raw):
                break
            if pool.ping(connection.raw):
                connection.proven_at = monotonic()
                break
            pool.broken_at = monotonic()
            pool.discard(connection)
            lease.connection = None
            lease.connection = connection = pool.checkout()

    def _doubt(
        self, connection: PooledConnection, pool: PoolAdapter[Any], cursor: LeasedCursor | None
    ) -> Doubt:
        """Return how much there is to doubt that *connection*, just taken, works."""
        if connection.proven_at < pool.broken_at:
            return Doubt.GREAT
        if monotonic() - connection.proven_at > self._policy.check_idle:
            return Doubt.GREAT if self._health_checks else Doubt.SMALL
        # What only reads may go elsewhere, as long as nothing of it has been sent.
        retried = self._policy.retry == "reads" and self.autocommit and cursor is not None
        reads = retried and only_reads(self.adapter_class.text(cursor._sql))  # type: ignore[union-attr]
        return Doubt.SMALL if reads else Doubt.NONE

    def _introduce(self, outer: Lease) -> None:
        """Run Django's connect() for a new connection, in a lease of its own.

        So backends that do something to new connections do it, the server's version
        is checked, and ``connection_created`` is sent, once. Its receivers run
        queries in autocommit, whatever the wrapper was about to do: what they SET is
        to outlive the transaction that the connection happened to be opened for.
        """
        connection, pool = self._leased(outer)
        state = {name: getattr(self, name) for name in _DJANGO_STATE}
        inner = Lease(self.alias)
        inner.pool, inner.connection, inner.since = pool, connection, outer.since
        inner.pins[inner] = None
        inner.send(CONNECT)
        self._configured = set()
        try:
            self._introducing = connection.raw
            self._pending_savepoints = []
            self._closed = False
            self._lease = inner
            self.connect()
            if pool.transaction_status(connection.raw) != IDLE:
                _end(pool, connection.raw, "COMMIT")
            connection.raw.autocommit = True
        finally:
            # In one step, and first, so that no interrupt strikes in the middle.
            self.__dict__.update(state, _introducing=None)
            holders.forget(inner, pool)
        if pool.pooled:
            connection.baseline = session_state.read_baseline(
                pool, connection.raw, self._configured
            )
        connection.announced = True

    # Policies.

    def _next_policy(self) -> ReleasePolicy:
        """Return the policy of the next lease."""
        return policies.from_code(self.alias) or release_policy(
            self.alias, self.settings_dict, self.adapter_class
        )

    def _look_at_policies(self) -> None:
        """A lease begins: choose its policy, if it may be another than the last one's."""
        if (
            policies.overrides.get() is not self._overrides
            or policies.assigned is not self._assigned
        ):
            self._choose_policy()

    def _choose_policy(self) -> None:
        # With no stamp, overrides are in use, and each lease looks for them.
        self._stamp = policies.stamp or _NO_STAMP
        self._overrides, self._assigned = policies.overrides.get(), policies.assigned
        settings_policy = self._entry.policy  # type: ignore[union-attr]
        self._policy = policy = policies.from_code(self.alias) or settings_policy
        # Each statement may be one that is to be repeated; what was just used is never idle.
        self._trusted_for = policy.check_idle if policy.retry == "never" else -1.0
        self._lease.table = TABLES[policy.release]

    # What wrapper and cursor use.

    def _begin_session(self) -> None:
        """What Django's connect() does to the wrapper itself."""
        if self._fresh:
            self._fresh = False
            self.in_atomic_block = False
            self.savepoint_ids = []
            self.atomic_blocks = []
            self.needs_rollback = False
            self.closed_in_transaction = False
            self.errors_occurred = False
            self._forked_inside = False
            self.run_on_commit = []
            self.autocommit = self.settings_dict["AUTOCOMMIT"]

    def _open_lease(self) -> None:
        """Read the settings, find the pool, and take a connection until the next statement."""
        lease = self._lease
        with self._exclusive():
            if lease.connection is None and (self._closed or lease.pool.closed):  # type: ignore[union-attr]
                self.check_settings()
                entry = self._find_pool()
                entry.pool.open()
                self._entry = entry
                lease.pool = entry.pool
                self._choose_policy()
                self._pool_timezone = self.timezone
                self._look_at_health_checks(entry.pool)
                self._closed = False
            self._perform(lease.send(CONNECT))
            if lease.place is None and lease.pool is not None:
                holders.note(self, lease, lease.pool)

    def _reopen(self) -> None:
        """The first statement after close(), or after the pool was closed."""
        entry = self._entry
        if (
            entry is not None
            and not self.in_atomic_block
            and entry.serves(self.alias, self.settings_dict, self.timezone_name)
        ):
            self._begin_session()
            self._lease.pool = entry.pool
            self._look_at_health_checks(entry.pool)
            self._closed = False
        else:
            # As in Django, through connect().
            self._ensure_connection()

    def _look_at_health_checks(self, pool: PoolAdapter[Any]) -> None:
        self._health_checks = self.settings_dict["CONN_HEALTH_CHECKS"] or pool.health_checks

    def _find_pool(self) -> OpenPool:
        return pools.get(self.alias, self.settings_dict, self.timezone_name, self._plan_pool, self)

    def _plan_pool(self) -> MakePool:
        """Look at the settings, and at what they name; return what makes the pool then."""
        alias, settings = self.alias, self.settings_dict
        check_max_age(alias, settings)
        options = pool_options(alias, settings, self.adapter_class)
        policy = release_policy(alias, settings, self.adapter_class)
        config = PoolConfig(
            alias=alias,
            connect=self.get_connection_params(),
            options=options,
            configure=_Configure(type(self), copied(settings), alias),
            ask=Credentials(alias, settings).ask,
        )

        def make() -> tuple[PoolAdapter[Any], ReleasePolicy]:
            pool = self.adapter_class(config)
            pool.max_size = pool.stats().max_size
            # Of the pool alone, which is no longer needed when it is gone.
            found = weakref.ref(pool)
            pool.holders = lambda: lifetimes.holders_of(found())
            return pool, policy

        return make

    def _close_lease(self) -> None:
        with self._exclusive():
            if self._lease.connection is not None:
                self._perform(self._lease.send(CLOSE))
            self._closed = True
            # The lease outlives a wrapper that is dropped; its pool need not.
            self._lease.pool = None
        self._pending_savepoints = []

    def _end_transaction(self) -> None:
        with self._exclusive():
            self._pending_savepoints = []
            self._lease.send(ENDED)
            self._settle()

    def _pin(self, pin: object) -> Any:
        """Keep the lease until *pin* is given to `_unpin`; return the driver's connection.

        What is put at ``lease.pins[pin]`` is closed when the lease is ended before that.
        """
        with self._exclusive():
            lease = self._lease
            if lease.connection is None:
                self._ensure_connection()
            lease.pins.setdefault(pin)
            return lease.connection.raw  # type: ignore[union-attr]

    def _unpin(self, pin: object) -> None:
        with self._exclusive():
            lease = self._lease
            if pin in lease.pins:
                del lease.pins[pin]
                if not lease.pins:
                    self._settle()

    def _exclusive(self) -> AbstractContextManager[object]:
        return _NOT_SHARED if self._guard is None else self._guard


def _end(pool: PoolAdapter[Any], raw: Any, sql: str) -> None:
    """End whatever transaction is open on *raw*, a raw ``BEGIN``'s too."""
    getattr(raw, sql.lower())()
    # psycopg2 in autocommit does nothing about one that it has not begun.
    if pool.transaction_status(raw) in (IN_TRANSACTION, TransactionStatus.IN_ERROR):
        pool.run(raw, sql)


class _Configure:
    """Configures a new connection of a pool, in whatever thread has opened it.

    Django's way to do so is a method of a wrapper that has that connection, and a
    wrapper belongs to one thread.
    """

    def __init__(self, wrapper_class: type[Leasing], settings: dict[str, Any], alias: str) -> None:
        self._make_wrapper = partial(wrapper_class, settings, alias)

    def __call__(self, raw: Any) -> None:
        wrapper = self._make_wrapper()
        lease = wrapper._lease
        lease.send(CONNECT)
        lease.connection = PooledConnection(raw, monotonic())
        lease.pins[lease] = None
        wrapper._introducing = raw
        try:
            wrapper._configure_connection(raw)
        finally:
            lease.pins.clear()
            lease.send(Event.FORK)
            lease.connection = None
