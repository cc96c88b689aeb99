"""Leasing: feeds a wrapper's lease with events and performs the actions it returns.

`relet.core.lease` decides; this file does. `wrapper` lays Django's API over it.
"""

from __future__ import annotations

import threading
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from enum import Enum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

from relet.backends.config.credentials import Parameters
from relet.backends.config.options import (
    check_health_checks,
    check_max_age,
    pool_options,
    release_policy,
)
from relet.backends.pools import MakePool, PoolHandle, copy_settings, pools
from relet.backends.temporarily import temporarily
from relet.backends.typing import WrapperBase
from relet.backends.wrapper.transfers import Transfer
from relet.core import (
    Action,
    Event,
    Facts,
    IllegalEvent,
    Lease,
    PoolAdapter,
    PoolConfig,
    PooledConnection,
    ReleasePolicy,
    State,
)
from relet.core.lease import TABLES
from relet.core.session.ledger import SessionLedger
from relet.core.sql.readonly import only_reads
from relet.core.status import TransactionStatus

from . import guards, holders, lifetimes
from . import session_rules as session_state
from .messages import Messages
from .policies import Overriding, policies

if TYPE_CHECKING:
    from relet.backends.wrapper.cursor import LeasedCursor

Result = TypeVar("Result")

Note = Callable[[Any], object]
"""What the owner of a lease is asked to do: takes the wrapper. Done twice, it is as done once."""

# Module constants: looking up an Enum's member costs more than using it.
STATEMENT, CONNECT, ENDED, CLOSE = Event.STATEMENT, Event.CONNECT, Event.ENDED, Event.CLOSE
UNAVAILABLE = Event.UNAVAILABLE
NOTHING, CHECKOUT, CHECKIN = Action.NOTHING, Action.CHECKOUT, Action.CHECKIN
IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION
RELEASED, RUNNING = State.RELEASED, (State.RUNNING, State.RUNNING_IN_TRANSACTION)

_NOT_SHARED = nullcontext()
_NO_STAMP = object()

#: Django's own; None until it is seen, if somebody had replaced it when this was imported.
djangos_ensure = guards.djangos(BaseDatabaseWrapper.ensure_connection)

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
    """The part of the wrapper that has a lease, which its owner alone moves: one thread.

    Others leave notes, see `_leave`. While a wrapper is shared, all its threads are its owner, one
    at a time: each use is under `_guard`.
    """

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
    #: The block that it is of, if it is a block's.
    _overriding: Overriding | None
    #: Held for each use while the wrapper is shared between threads; else None.
    _guard: threading.RLock | None
    #: What others have asked the owner to do, in order.
    _notes: deque[Note]
    #: Whether a statement is to take the long way: there are notes, or the wrapper is shared.
    _detour: bool
    #: Told to the log when no statement is under way.
    _messages: Messages
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
    #: To be called with a pin whose cursor is gone.
    _on_dropped: Callable[[weakref.ref[Any]], None]
    #: The pool and what it was made from.
    _handle: PoolHandle | None

    def _init_lease(self) -> None:
        self._policy = ReleasePolicy()
        self._stamp = self._assigned = self._overrides = None
        self._overriding = None
        self._lease = Lease(self.alias)
        self._guard = None
        self._notes = deque()
        self._detour = False
        self._messages = Messages()
        self._pending_savepoints = []
        self._introducing = None
        self._configured = set()
        self._pool_timezone = None
        self._health_checks = False
        self._trusted_for = self._policy.check_idle
        self._closed = True
        self._handle = None
        self.ref = weakref.ref(self)
        self._on_dropped = partial(_dropped, self.ref)
        lifetimes.watch(self, self._lease)

    # Statements: the hot path.
    #
    # An exception may be raised by anybody at any instruction: a signal handler, a timeout of
    # gevent's. So whoever calls `_begin` does so inside of a `try` that ends with `_end`, and calls
    # `_failed` when anything is raised in it. That looks at how far the lease has come.

    def _begin(self, cursor: LeasedCursor) -> Any:
        """*cursor* is about to run its statement: return the driver's connection for it."""
        lease = self._lease
        if self._closed or lease.pool.closed:  # type: ignore[union-attr]
            self._reopen()
        if lease.send(STATEMENT) is CHECKOUT:
            if type(self).ensure_connection is djangos_ensure:
                self._checkout(lease, cursor)
            else:
                self._ask_guard(lease, cursor)
        elif lease.connection is None and lease.state is State.RUNNING:
            # A finalizer has ended it between two instructions; or an interrupt its beginning.
            lease.send(CLOSE)
            return self._begin(cursor)
        return lease.connection.raw  # type: ignore[union-attr]

    def _end(self, cursor: LeasedCursor | None) -> None:
        """The statement that *cursor* ran has ended, well or not."""
        lease = self._lease
        connection, pool = lease.connection, lease.pool
        if connection is None or pool is None:
            return  # close() came while it ran
        status = pool.transaction_status(connection.raw)
        action = lease.report(status, self.in_atomic_block)
        if action is CHECKIN:
            self._checkin(lease, connection, pool)
            return
        if action is not NOTHING:
            self._perform(action, cursor)
        if lease.connection is not None:
            if cursor is not None:
                lease.ran = cursor._sql
            if lease.place is None:
                holders.note(self, lease, pool)
        if self._notes:
            self._act_on_notes()

    def _failed(self, cursor: LeasedCursor | None, error: BaseException) -> None:
        """*error* was raised between `_begin` and the end of `_end`: end the statement."""
        if isinstance(error, IllegalEvent) and not error.heard:
            error.heard = True
            return  # it has not begun: another one is under way
        lease = self._lease
        if lease.connection is None:
            if lease.state in RUNNING:
                lease.send(CLOSE)
        elif lease.state is RELEASED:
            self._give_up(lease)
        elif lease.state in RUNNING:
            try:
                self._end(cursor)
            except BaseException:
                self._give_up(lease)
                raise

    def _checkout(self, lease: Lease, cursor: LeasedCursor | None = None) -> None:
        pool: PoolAdapter[Any] = lease.pool  # type: ignore[assignment]
        if policies.stamp is not self._stamp:
            self._look_at_policies()
        if lease.connection is not None:
            # From a log handler, say, while the lease is being ended: it would wait for itself.
            lease.send(CLOSE)
            raise IllegalEvent(self.alias, "being ended", STATEMENT.value)
        try:
            if pool.long_leases and holders.waits_for_itself(pool):
                raise self._in_its_own_way(pool)
            pool.checkout_into(lease)
            connection: Any = lease.connection
            lease.since = now = monotonic()
            last_used_at = connection.last_used_at
            if last_used_at < pool.broken_at or now - last_used_at > self._trusted_for:
                connection = self._prove(lease, pool, cursor)
            if not connection.initialized:
                self._introduce(lease)
            if not self.autocommit:
                self._begin_transaction(lease)
        except BaseException:
            if lease.connection is not None:
                pool.discard_from(lease)
            lease.send(UNAVAILABLE)
            lifetimes.rest_if_exiting()
            # Not everything that takes a connection is called by a cursor of Django's.
            with self.wrap_database_errors:
                raise

    def _checkin(self, lease: Lease, connection: PooledConnection, pool: PoolAdapter[Any]) -> None:
        # Asked of the driver, and not of this wrapper: an interrupt may have come between the two.
        if connection.raw.autocommit is not True:
            try:
                connection.raw.autocommit = True
            except self.Database.Error:
                self._discard(lease)
                return
        if lease.place is not None:
            holders.forget(lease, pool)
        pool.checkin_from(lease)

    # Everything else is off the hot path.

    def _ask_guard(self, lease: Lease, cursor: LeasedCursor) -> None:
        """Check out, if whatever stands in the place of Django's `ensure_connection` lets it."""
        global djangos_ensure
        if djangos_ensure is None:
            djangos_ensure = guards.djangos(type(self).ensure_connection)
        lease.send(UNAVAILABLE)
        self._ensure_connection()
        if lease.send(STATEMENT) is CHECKOUT:
            self._checkout(lease, cursor)

    # What others have to do with a lease.

    def _leave(self, note: Note) -> None:
        """Have the owner act on *note*, now or when the statement that is under way has ended.

        For whoever else has to do with a lease: another thread, the garbage collector, which may
        close a cursor in the middle of anything, the handler of a signal.
        """
        self._notes.append(note)
        # Last, for `_act_on_notes` takes it back before it looks at them.
        self._detour = True
        guard = self._guard
        if guard is None:
            if self._is_idle_here():
                self._act_on_notes()
        elif guard.acquire(blocking=False):
            try:
                if self._is_idle():
                    self._act_on_notes()
            finally:
                guard.release()

    def _is_idle_here(self) -> bool:
        """Whether this thread may move the lease at this moment."""
        return (self._guard is not None or self._thread_ident == get_ident()) and self._is_idle()

    def _is_idle(self) -> bool:
        """Whether nothing is under way: no statement, no beginning or end of the lease."""
        lease = self._lease
        if lease.state in RUNNING:
            return False
        return (lease.state is RELEASED) == (lease.connection is None)

    def _act_on_notes(self) -> None:
        """Do what others have asked for. The owner calls this, between statements."""
        if self._introducing is not None:
            return  # the lease is another one meanwhile
        self._detour = self._guard is not None
        notes = self._notes
        while notes:
            note = notes[0]
            try:
                note(self)
            except Exception:
                self._forget_note(note)
                raise
            self._forget_note(note)

    def _cut_off(self) -> None:
        """End the connection in the middle of a call of the driver's, which fails then.

        It is not closed before that: the number of its socket would be free, and could be another
        connection's when the driver looks at it again, and waits for that.
        """
        lease = self._lease
        connection, _ = self._leased(lease)
        lease.pins[connection] = None  # or it would be given back, if the call has ended well
        lifetimes.shut_down(connection.raw)
        # Not `_leave`, which would take the lease for idle where the caller has the driver's
        # connection itself, or a COPY.
        self._notes.append(partial(_close_what_is_cut, connection))
        self._detour = True

    def _forget_note(self, note: Note) -> None:
        with suppress(ValueError):  # a finalizer has come in between, and acted on it, too
            self._notes.remove(note)

    def _call(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """Call *function*, which uses the connection that is leased, beside `execute()`.

        Whoever else has to do with the lease meanwhile finds that a statement is under way.
        """
        lease = self._lease
        with self._exclusive():
            if (
                lease.connection is None
                or not (self._guard is not None or self._thread_ident == get_ident())
                or (lease.state in RUNNING and not self._is_blocked(lease))
            ):
                return function(*arguments, **options)
            pin = object()
            try:
                lease.pins[pin] = None
                lease.send(STATEMENT)
                result = function(*arguments, **options)
                self._returned(lease, pin)
            except BaseException as error:
                if not isinstance(error, self.Database.Error):
                    self._expose()  # from outside: nobody knows how far it came
                self._returned(lease, pin)
                if self._notes and self._is_idle():
                    self._act_on_notes()
                raise
            return result

    @staticmethod
    def _is_blocked(lease: Lease) -> bool:
        """Whether a call of the driver's would never return: another one is under way."""
        connection, pool = lease.connection, lease.pool
        return connection is not None and pool is not None and pool.is_blocked(connection.raw)

    def _is_busy(self) -> bool:
        """Whether nothing can be sent: a call of the driver's is under way, or a COPY, a stream."""
        return self._status() == TransactionStatus.ACTIVE or self._is_blocked(self._lease)

    def _returned(self, lease: Lease, pin: object) -> None:
        """What `_call` has called has returned."""
        if lease.connection is not None and pin in lease.pins and lease.state in RUNNING:
            # It cannot end: there is the pin.
            lease.report(self._status(), self.in_atomic_block)
        lease.pins.pop(pin, None)

    def _in_its_own_way(self, pool: PoolAdapter[Any]) -> Exception:
        """Return the error of a thread that waits for what it has itself."""
        return pool.exhausted(
            pool.timeout_error or self.Database.OperationalError,
            "this thread has all connections itself, and would wait for ever",
            "have it take its second connection after the first is given back",
        )

    def _ensure_connection(self) -> None:
        # Django looks at `connection` meanwhile, and does nothing to its session.
        temporarily(self, self.ensure_connection, _trusted=True)

    def _perform(self, action: Action, cursor: LeasedCursor | None = None) -> None:
        lease = self._lease
        try:
            if action is Action.CHECKIN:
                self._checkin(lease, *self._leased(lease))
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
        """Discard, if the lease has ended and its action has not: an exception came between."""
        pool = lease.pool
        if lease.state is RELEASED and lease.connection is not None and pool is not None:
            lease.pins.clear()
            holders.forget(lease, pool)
            pool.discard_from(lease)
            lease.clean()

    def _settle(self) -> None:
        """Something that may have kept the lease is gone: see whether it ends."""
        lease = self._lease
        if (connection := lease.connection) is None:
            return
        try:
            status = lease.pool.transaction_status(connection.raw)  # type: ignore[union-attr]
            self._perform(lease.report(status, self.in_atomic_block))
        except BaseException:
            self._give_up(lease)
            raise

    def _discard(self, lease: Lease) -> None:
        connection, pool = self._leased(lease)
        lease.pins.clear()
        holders.forget(lease, pool)
        if pool.transaction_status(connection.raw) == TransactionStatus.UNKNOWN:
            pool.broken_at = monotonic()
        pool.discard_from(lease)
        lease.clean()

    def _reset_then_checkin(self, lease: Lease) -> None:
        connection, pool = self._leased(lease)
        raw = connection.raw
        if self._is_busy():
            # COPY or stream(), perhaps in the middle of a call: nothing can be sent.
            self._discard(lease)
            return
        try:
            for open_cursor in lease.pins.values():
                if open_cursor is not None:
                    open_cursor.close()
            if pool.transaction_status(raw) not in (IDLE, TransactionStatus.UNKNOWN):
                _end(pool, raw, "ROLLBACK")
        except self.Database.Error as error:
            self._messages.debug(self.alias, "cannot be reset, discarded", error)
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
        session = lease.session
        if session is None or not session.left:
            return True
        connection, pool = self._leased(lease)
        try:
            return session_state.undo(pool, connection, session.left)
        # UnicodeError: of a client_encoding that has not all of it.
        except (self.Database.Error, UnicodeError) as error:
            self._messages.debug(self.alias, "session not restored", error)
            return False

    @staticmethod
    def _leased(lease: Lease) -> tuple[PooledConnection, PoolAdapter[Any]]:
        connection, pool = lease.connection, lease.pool
        assert connection is not None and pool is not None
        return connection, pool

    def _status(self) -> int:
        """Return the driver's transaction status, of the connection that is leased.

        It is UNKNOWN if there is none any more: a signal's handler has called close().
        """
        connection, pool = self._lease.connection, self._lease.pool
        if connection is None or pool is None:
            return TransactionStatus.UNKNOWN
        return pool.transaction_status(connection.raw)

    def _begin_transaction(self, lease: Lease) -> None:
        """The lease begins inside a transaction that Django has begun already."""
        connection, pool = self._leased(lease)
        raw = connection.raw
        raw.autocommit = False
        if self._pending_savepoints:
            # One round trip for all; in queries_log they stand where they were made.
            sql = "; ".join(map(self.ops.savepoint_create_sql, self._pending_savepoints))
            pool.execute_internal(raw, sql)
            self._pending_savepoints = []

    def _prove(
        self, lease: Lease, pool: PoolAdapter[Any], cursor: LeasedCursor | None
    ) -> PooledConnection:
        """Replace the connection just taken by the first that works; return that.

        One that was in use a moment ago is taken to work, unless another of the
        same pool was found broken since.
        """
        connection = self._leased(lease)[0]
        while (doubt := self._doubt(connection, pool, cursor)) is not Doubt.NONE:
            if doubt is Doubt.SMALL and not pool.has_unread_data(connection.raw):
                break
            if pool.ping(connection.raw):
                connection.last_used_at = monotonic()
                break
            pool.broken_at = monotonic()
            pool.discard_from(lease)
            pool.checkout_into(lease)
            connection = self._leased(lease)[0]
        return connection

    def _doubt(
        self, connection: PooledConnection, pool: PoolAdapter[Any], cursor: LeasedCursor | None
    ) -> Doubt:
        """Return how much there is to doubt that *connection*, just taken, works."""
        if connection.last_used_at < pool.broken_at:
            return Doubt.GREAT
        if monotonic() - connection.last_used_at > self._policy.check_idle:
            return Doubt.GREAT if self._health_checks else Doubt.SMALL
        # What only reads may go elsewhere, as long as nothing of it has been sent.
        retried = self._policy.retry == "reads" and self.autocommit and cursor is not None
        reads = retried and only_reads(self.adapter_class.sql_text(cursor._sql))  # type: ignore[union-attr]
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
        # In one step, so that no interrupt strikes in the middle; and again, if one does before.
        restore = partial(self.__dict__.update, state, _introducing=None)
        try:
            self._introducing = connection.raw
            self._pending_savepoints = []
            self._closed = False
            self._lease = inner
            self.connect()
            if pool.transaction_status(connection.raw) != IDLE:
                _end(pool, connection.raw, "COMMIT")
            connection.raw.autocommit = True
            restore()
        except BaseException:
            restore()
            raise
        finally:
            holders.forget(inner, pool)
        if pool.pooled:
            connection.baseline = session_state.read_baseline(
                pool, connection.raw, self._configured
            )
        pool.told = pool.facts(connection.raw)
        connection.initialized = True

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
            or (self._overriding is not None and self._overriding.over)
        ):
            self._choose_policy()

    def _choose_policy(self) -> None:
        # With no stamp, overrides are in use, and each lease looks for them.
        self._stamp = policies.stamp or _NO_STAMP
        self._overrides, self._assigned = policies.overrides.get(), policies.assigned
        self._overriding = policies.overriding(self.alias)
        settings_policy = self._handle.policy  # type: ignore[union-attr]
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
            if lease.connection is not None:
                return
            if self._closed or lease.pool.closed:  # type: ignore[union-attr]
                self.check_settings()
                entry = self._find_pool()
                entry.pool.open()
                self._handle = entry
                lease.pool = entry.pool
                self._choose_policy()
                self._pool_timezone = self.timezone
                self._look_at_health_checks(entry.pool)
                self._closed = False
            self._take_connection(lease)

    def _take_connection(self, lease: Lease) -> None:
        """Take one that lasts until the next statement has ended."""
        pin = object()
        try:
            if lease.state not in (RELEASED, *RUNNING):
                lease.send(CLOSE)  # the beginning of the last one was interrupted
            lease.send(STATEMENT)
            self._checkout(lease)
            lease.pins[pin] = None
            self._returned(lease, pin)
            if lease.place is None and lease.pool is not None:
                holders.note(self, lease, lease.pool)
        except BaseException as error:
            lease.pins.pop(pin, None)
            self._failed(None, error)
            raise

    def _reopen(self) -> None:
        """The first statement after close(), or after the pool was closed."""
        entry = self._handle
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

    def _find_pool(self) -> PoolHandle:
        return pools.get(self.alias, self.settings_dict, self.timezone_name, self._plan_pool, self)

    def _plan_pool(self) -> MakePool:
        """Look at the settings, and at what they name; return what makes the pool then."""
        alias, settings = self.alias, self.settings_dict
        check_max_age(alias, settings)
        check_health_checks(alias, settings)
        options = pool_options(alias, settings, self.adapter_class)
        policy = release_policy(alias, settings, self.adapter_class)
        config = PoolConfig(
            alias=alias,
            connect=self.get_connection_params(),
            options=options,
            configure=_Configure(type(self), copy_settings(settings), alias),
            ask=Parameters(type(self), settings, alias).ask,
        )

        def make() -> tuple[PoolAdapter[Any], ReleasePolicy]:
            pool = self.adapter_class(config)
            pool.max_size = pool.stats().max_size
            # Of the pool alone, which is no longer needed when it is gone.
            found = weakref.ref(pool)
            pool.describe_holders = lambda: lifetimes.holders_of(found())
            return pool, policy

        return make

    def _close_lease(self) -> None:
        lease = self._lease
        with self._exclusive():
            try:
                action = lease.send(CLOSE)
                if lease.connection is not None:
                    self._perform(action)
            except BaseException:
                self._give_up(lease)
                raise
            finally:
                self._closed = True
                if lease.connection is None:
                    # The lease outlives a wrapper that is dropped; its pool need not.
                    lease.pool = None
        self._pending_savepoints = []

    def _end_transaction(self) -> None:
        with self._exclusive():
            self._pending_savepoints = []
            self._lease.send(ENDED)
            self._settle()
            if self._notes:
                self._act_on_notes()

    def _pin(self, pin: object) -> Any:
        """Keep the lease until *pin* is given to `_unpin`; return the driver's connection.

        What is put at ``lease.pins[pin]`` is closed when the lease is ended before that.

        :param pin: anything, such as what `_pin_of` returns.
        """
        with self._exclusive():
            lease = self._lease
            if lease.connection is None:
                self._ensure_connection()
            lease.pins.setdefault(pin)
            return lease.connection.raw  # type: ignore[union-attr]

    def _pin_of(self, keeper: Any) -> weakref.ref[Any]:
        """Return a pin that ends with *keeper*, a cursor, say, when that is dropped."""
        pin = weakref.ref(keeper, self._on_dropped)
        hash(pin)  # which is kept; when the keeper is gone it would have none
        return pin

    def _unpin(self, pin: object) -> None:
        """*pin* keeps the lease no longer. What is to be closed with it is closed."""
        if not self._is_idle_here():
            if pin in self._lease.pins:
                self._leave(lambda owner: owner._unpin_here(pin))
            return
        self._unpin_here(pin)
        if self._notes:
            self._act_on_notes()

    def _unpin_here(self, pin: object) -> None:
        with self._exclusive():
            lease = self._lease
            if (open_cursor := lease.pins.get(pin)) is not None:
                self._close_cursor(open_cursor)
            if pin in lease.pins:
                del lease.pins[pin]
                if not lease.pins:
                    self._settle()

    def _close_cursor(self, open_cursor: Any) -> None:
        """Close what somebody else has left open; where that fails, the driver's status tells."""
        try:
            if isinstance(open_cursor, Transfer):
                open_cursor.close()
                return
            if self._status() in (TransactionStatus.ACTIVE, TransactionStatus.IN_ERROR):
                # It cannot be closed now, and one WITH HOLD outlives the transaction.
                self._expose()
            if self._status() != TransactionStatus.ACTIVE:
                self._call(open_cursor.close)
        except self.Database.Error as error:
            self._expose()
            self._messages.debug(self.alias, "a cursor could not be closed", error)

    def _expose(self) -> None:
        """The driver's connection is handed out: of what is done with it, nobody knows."""
        lease = self._lease
        if self._introducing is None and lease.connection is not None:
            if lease.session is None:
                lease.session = SessionLedger()
            lease.session.dirty()

    def _lend(self) -> Any:
        """Hand out the driver's connection, to whoever uses it."""
        if self._lease.connection is None:
            self._ensure_connection()
        self._expose()
        return self._lease.connection.raw  # type: ignore[union-attr]

    def _facts(self) -> Facts:
        """Return what a connection tells of itself. To know it, one is taken, and given back."""
        if (facts := self._facts_if_known()) is None:
            self.validate_thread_sharing()
            pin = object()
            self._pin(pin)
            self._unpin(pin)
            facts = self._facts_if_known()
        return facts  # type: ignore[return-value]

    def _facts_if_known(self) -> Facts | None:
        return None if self._handle is None else self._handle.pool.told

    def _end_transfer(self, transfer: Transfer, pin: object, error: BaseException | None) -> None:
        """End what somebody else has left: its caller has heard of nothing that goes wrong."""
        try:
            transfer.end(error)
        except self.Database.Error as raised:
            self._messages.debug(self.alias, "stream() or copy() could not be ended", raised)
        finally:
            self._unpin_here(pin)

    def _exclusive(self) -> AbstractContextManager[object]:
        return _NOT_SHARED if self._guard is None else self._guard


def _end(pool: PoolAdapter[Any], raw: Any, sql: str) -> None:
    """End whatever transaction is open on *raw*, a raw ``BEGIN``'s too."""
    getattr(raw, sql.lower())()
    # psycopg2 in autocommit does nothing about one that it has not begun.
    if pool.transaction_status(raw) in (IN_TRANSACTION, TransactionStatus.IN_ERROR):
        pool.execute_internal(raw, sql)


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


def _close_what_is_cut(connection: PooledConnection, owner: Any) -> None:
    """A call was cut off, and has returned: do what `close` was to do."""
    lease = owner._lease
    if lease.connection is connection:
        lease.send(CLOSE)
        owner._discard(lease)
        owner.close()


def _dropped(find: weakref.ref[Leasing], pin: weakref.ref[Any]) -> None:
    """What has made *pin* is gone: whoever had it, forgot to close it."""
    if (owner := find()) is not None:
        owner._unpin(pin)
