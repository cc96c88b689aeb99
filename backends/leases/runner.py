"""LeaseRunner: runs each statement of a wrapper on a leased connection.

`relet.core.lease` decides when a lease ends. The runner sends it events and performs the actions
that it returns. Cursors know only the runner: ``cursor -> runner -> lease, pool``.
"""

from __future__ import annotations

import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import monotonic
from types import ModuleType
from typing import Any, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

from relet.backends.config.options import OptionError, release_policy
from relet.backends.pools import PoolHandle, pools
from relet.backends.temporarily import temporarily
from relet.core import (
    Action,
    ConfigurationError,
    Event,
    Facts,
    IllegalEvent,
    Lease,
    PoolAdapter,
    PooledConnection,
    ReleasePolicy,
    State,
)
from relet.core.catalogue.memo import UNREAD, CatalogueMemo
from relet.core.session.ledger import SessionLedger
from relet.core.sql.effects import Change, Control, Effects, Kind, Move, nameless
from relet.core.sql.fingerprint import unparsed
from relet.core.sql.readonly import only_reads
from relet.core.sql.transactions import only_prepares
from relet.core.status import TransactionStatus

from . import (
    binding,
    ending,
    first_use,
    guards,
    health,
    holders,
    lifetimes,
    session_rules,
    session_tracking,
    standby,
    sync_threads,
)
from .definitions import PoolDefinitions
from .host import Host
from .messages import Messages
from .notes import Note, Notes
from .policies import policies
from .policy_choice import PolicyChoice
from .session_tracking import Statement
from .transfer import Transfer

Result = TypeVar("Result")

# Module constants, because looking up an Enum member is slow on the hot path.
STATEMENT, ENDED, CLOSE, UNAVAILABLE = Event.STATEMENT, Event.ENDED, Event.CLOSE, Event.UNAVAILABLE
NOTHING, CHECKOUT, CHECKIN = Action.NOTHING, Action.CHECKOUT, Action.CHECKIN
PIN_CURSOR = Action.PIN_CURSOR
#: Kinds of state that are settings, or may be.
_SETTINGS = frozenset({Kind.SETTING, Kind.ROLE, Kind.DYNAMIC, Kind.UNKNOWN})
RELEASED, RUNNING = State.RELEASED, (State.RUNNING, State.RUNNING_IN_TRANSACTION)

_NOT_SHARED = nullcontext()


def _audits() -> ModuleType:
    """Return the module of audits, which a process that audits nothing does not import."""
    from . import audit

    return audit


#: The memo of a wrapper that has no pool yet.
_UNBOUND = CatalogueMemo(stale=True)

#: Django's own `ensure_connection`. None while it is unknown, because a tool had replaced it before
#: this module was imported.
default_ensure = guards.default_ensure_connection(BaseDatabaseWrapper.ensure_connection)


class LeaseRunner:
    """The lease of one wrapper, and everything that is done with it.

    Only the owner of the lease, which is one thread, sends it events. Others leave notes for the
    owner; see `leave`. While a wrapper is shared, each of its threads is the owner while it holds
    `share_lock`.

    :ivar host: the wrapper; see `Host`.
    :ivar drivers_cursors: whether cursors are made by the driver's own backend.
    :ivar plain_cursors: whether ``connection.cursor()`` makes the same cursors.
    :ivar closed: whether close() was called since the settings were last read.
    :ivar detour: whether statements must leave the hot path, because there are notes or the
        wrapper is shared, or because there may be an open transfer.
    :ivar effects: the memo of the pool; see `relet.core.sql.classifier.Memo`.
    :ivar initializing: the new connection that is being initialized, or None.
    :ivar internal_access: whether the reader of ``connection`` leaves its session unchanged.
    :ivar on_the_way: whether a connection is being taken for a statement, which itself records its
        lease if that outlasts it.
    """

    lease_class: type[Lease] = Lease
    #: The names of settings that relet itself changes in transactions.
    own_settings: frozenset[str] = frozenset()

    def __init__(self, host: Host) -> None:
        # Weak, or a wrapper that is dropped would wait for the garbage collector. Cursors, and all
        # else that is handed out, keep their wrapper themselves.
        self.find_host: Callable[[], Any] = weakref.ref(host)
        self.host_class = type(host)
        self.Database = host.Database
        self.thread = host._thread_ident
        self.drivers_cursors = host.makes_drivers_cursors
        self.plain_cursors = host.makes_plain_cursors
        self.tells_facts = host.tells_facts
        self.lease = self.lease_class(host.alias, thread=self.thread)
        self.closed = True
        self.detour = False
        self.notes = Notes()
        #: Held for each use while the wrapper is shared between threads. None if it is not shared.
        self.share_lock: threading.RLock | None = None
        self.messages = Messages()
        self.choice = PolicyChoice()
        self.handle: PoolHandle | None = None
        self.effects = _UNBOUND
        #: Whether the lease was taken to judge a statement that has not begun.
        self.prepared = False
        #: Whether the open transaction has defined something that other transactions do not see, or
        #: does not see what others have defined.
        self.redefined = False
        #: Whether another transaction was defining something when the statement was judged.
        self.doubted = False
        self.initializing: Any = None
        #: Names of the settings that were made on `initializing`.
        self.configured: set[str | None] = set()
        self.internal_access = self.on_the_way = False
        #: SAVEPOINTs of atomic blocks that were entered while there was no connection.
        self.pending_savepoints: list[str] = []
        #: The blocks that hold a connection, oldest first.
        self.holds: dict[object, None] = {}
        #: The time zone in which the pool's connections load timestamps.
        self.pool_timezone: Any = None
        #: Whether to ping connections that were idle.
        self._health_checks = False
        self.ref = weakref.ref(self)
        self._on_dropped = partial(_dropped, self.ref)
        lifetimes.watch(self, self.lease)

    @property
    def host(self) -> Host:
        """The wrapper, as far as leases need it."""
        host: Host = self.find_host()
        return host

    # Statements: the hot path.
    #
    # A signal handler or a gevent timeout may raise an exception at any instruction. So callers
    # call `begin` and `end` in one `try` block and `failed` if anything is raised in it. `failed`
    # finds out from the lease how far the statement came.

    def begin(self, sql: object) -> Any:
        """Begin the statement *sql*; return the driver's connection to run it on."""
        lease = self.lease
        if self.closed or lease.pool.closed:  # type: ignore[union-attr]
            self._reopen()
        action = lease.send(STATEMENT)
        lease.sql = sql
        if action is CHECKOUT:
            if self.host_class.ensure_connection is default_ensure:
                self.checkout(lease)
            else:
                self._ask_guard(lease, sql)
        elif lease.connection is None and lease.state is State.RUNNING:
            # A finalizer ended the lease between two instructions, or an interrupt its beginning.
            lease.send(CLOSE)
            return self.begin(sql)
        return lease.connection.raw  # type: ignore[union-attr]

    def end(self) -> Action:
        """End the statement, whether it succeeded or not; return the action that was performed.

        PIN_CURSOR is left to the cursor, which then calls `pinned`.
        """
        lease = self.lease
        connection, pool = lease.connection, lease.pool
        if connection is None or pool is None:
            return NOTHING  # close() was called while the statement ran
        status = pool.transaction_status(connection.raw)
        action = lease.report(status, self.find_host().in_atomic_block)
        if action is CHECKIN:
            self.checkin(lease, connection, pool)
            return action
        if action is PIN_CURSOR:
            return action
        if action is not NOTHING:
            self.perform(action, ran=True)
            if action is Action.AUDIT_THEN_PIN_CURSOR:
                return PIN_CURSOR
        if lease.call_site is None and lease.connection is not None:
            holders.record_holder(lease, pool)
        if self.notes:
            self.act_on_notes()
        return action

    def pinned(self) -> None:
        """Finish a statement after the cursor has pinned the lease, as `end` told it to."""
        lease = self.lease
        if lease.call_site is None and lease.connection is not None and lease.pool is not None:
            holders.record_holder(lease, lease.pool)
        if self.notes:
            self.act_on_notes()

    def failed(self, error: BaseException) -> Action:
        """End the statement after *error* was raised in `begin`, in `end` or in between."""
        if isinstance(error, IllegalEvent) and not error.heard:
            error.heard = True
            return NOTHING  # this statement has not begun, because another one is running
        lease = self.lease
        if lease.connection is None:
            if lease.state in RUNNING:
                lease.send(CLOSE)
        elif lease.state is RELEASED:
            ending.discard_after_interrupt(lease)
        elif lease.state in RUNNING:
            try:
                if standby.is_refused_by_one(error, lease):
                    standby.replace_connections(lease, self.messages)
                    self.perform(lease.report(TransactionStatus.UNKNOWN, self.host.in_atomic_block))
                    self.pinned()
                    self.tell()
                    return NOTHING
                if session_rules.sqlstate(error) == session_rules.SYNTAX_ERROR:
                    self._hide_statement(lease)
                return self.end()
            except BaseException:
                ending.discard_after_interrupt(lease)
                raise
        return NOTHING

    def _hide_statement(self, lease: Lease) -> None:
        """Show no more of the statement of *lease* than that it could not be parsed."""
        if lease.sql is not None and lease.pool is not None:
            lease.sql = unparsed(lease.pool.sql_text(lease.sql))

    def checkout(self, lease: Lease) -> None:
        """Take a connection for *lease* and bring it into the state that the wrapper expects.

        :raises Error: Django's database errors; there is no connection, or none came free in time.
        """
        pool: PoolAdapter[Any] = lease.pool  # type: ignore[assignment]
        choice = self.choice
        if policies.stamp is not choice.stamp:
            choice.refresh(lease, self.handle.policy)  # type: ignore[union-attr]
        if lease.connection is not None:
            # A nested statement while the lease is being ended, such as a log handler's. Waiting
            # for a second connection could deadlock.
            lease.send(CLOSE)
            raise IllegalEvent(lease.alias, "being ended", STATEMENT.value)
        try:
            if pool.long_leases and holders.would_deadlock(pool):
                raise self._deadlock_error(pool)
            pool.checkout_into(lease)
            connection: Any = lease.connection
            lease.leased_at = now = monotonic()
            last_used_at = connection.last_used_at
            if last_used_at < pool.broken_at or now - last_used_at > choice.trusted_for:
                self._validate(lease, pool)
                connection = lease.connection
            if not connection.initialized:
                self.initialize_connection(lease)
            if not self.find_host().autocommit:
                self.begin_transaction(lease)
        except BaseException as error:
            if lease.connection is not None:
                pool.discard_from(lease)
            lease.send(UNAVAILABLE)
            lifetimes.block_if_exiting()
            if isinstance(error, ConfigurationError):  # such as in a service file
                raise OptionError(lease.alias, "'OPTIONS'", error, "relet.E005") from error
            # Not every caller is a cursor of Django, which would wrap the error.
            with self.host.wrap_database_errors:
                raise

    def checkin(self, lease: Lease, connection: PooledConnection, pool: PoolAdapter[Any]) -> None:
        """Return the connection to the pool. It has no open transaction and no session state."""
        # Ask the driver, because an interrupt may have kept it from following the wrapper.
        if connection.raw.autocommit is not True:
            try:
                connection.raw.autocommit = True
            except self.Database.Error:
                ending.discard(lease)
                return
        if lease.call_site is not None:
            holders.clear_holder(lease, pool)
        lease.sql = None  # it may be large
        pool.checkin_from(lease)

    # How a lease begins. From here on, nothing is on the hot path.

    def _ask_guard(self, lease: Lease, sql: object) -> None:
        """Check out if the tool that replaced Django's `ensure_connection` allows it."""
        global default_ensure
        if default_ensure is None:
            default_ensure = guards.default_ensure_connection(self.host_class.ensure_connection)
        lease.send(UNAVAILABLE)
        self._connect_on_the_way()
        action = lease.send(STATEMENT)
        lease.sql = sql
        if action is CHECKOUT:
            self.checkout(lease)

    def ensure_connection(self) -> None:
        """Take a connection through Django's `ensure_connection`."""
        # It reads `connection` but does nothing to the session.
        temporarily(self, self.host.ensure_connection, internal_access=True)

    def _connect_on_the_way(self) -> None:
        """Take a connection for a statement, in the same way."""
        temporarily(self, self.ensure_connection, on_the_way=True)

    def _deadlock_error(self, pool: PoolAdapter[Any]) -> Exception:
        return pool.exhausted(
            pool.timeout_error or self.Database.OperationalError,
            "this thread already holds every connection, so waiting for another would deadlock",
            "give one back before taking the next",
        )

    def _validate(self, lease: Lease, pool: PoolAdapter[Any]) -> None:
        policy, sql = self.choice.policy, lease.sql
        # A statement that only reads may move to another connection until it has been sent.
        retried = policy.retry == "reads" and self.host.autocommit and sql is not None
        health.validate(
            lease,
            pool,
            policy.check_idle,
            pings=self._health_checks,
            may_retry=retried and only_reads(pool.sql_text(sql)),
        )
        if self.choice.audit_mode and lease.connection is not None:
            lease.audit = None
            if lease.connection.initialized:
                _audits().begin(self, lease)

    def initialize_connection(self, lease: Lease) -> None:
        """Let Django initialize the new connection of *lease*."""
        first_use.initialize_connection(self, lease)
        if self.choice.audit_mode:
            _audits().begin(self, lease)

    def begin_transaction(self, lease: Lease) -> None:
        """Begin on the connection the transaction that Django has begun on the wrapper."""
        connection, pool = ending.leased(lease)
        if pool.definitions.memo.stale and not self.redefined:
            # Before, because the transaction's first query takes its snapshot, and ends the time
            # for SET TRANSACTION.
            with self.host.wrap_database_errors:
                pool.definitions.compare(pool, connection.raw)
        connection.raw.autocommit = False
        if self.pending_savepoints:
            # All in one round trip. They were logged when Django made them.
            sql = "; ".join(map(self.host.ops.savepoint_create_sql, self.pending_savepoints))
            pool.execute_internal(connection.raw, sql)
            self.pending_savepoints = []

    def _reopen(self) -> None:
        """Find the pool again, for the first statement after close() or after the pool closed."""
        handle, host = self.handle, self.host
        if (
            handle is not None
            and not host.in_atomic_block
            and handle.serves(host.alias, host.settings_dict, host.timezone_name)
        ):
            host.begin_session()
            self.lease.pool = handle.pool
            if handle.pool.definitions.is_due(monotonic()):
                handle.pool.definitions.compare_soon(handle.pool)
            self._read_health_checks(handle.pool)
            self.closed = False
        else:
            # As in Django, which calls connect().
            self._connect_on_the_way()

    def _read_health_checks(self, pool: PoolAdapter[Any]) -> None:
        self._health_checks = self.host.settings_dict["CONN_HEALTH_CHECKS"] or pool.health_checks

    def open(self) -> None:
        """Read the settings, find the pool, and take a connection for the next statement."""
        lease = self.lease
        with self.exclusive():
            if lease.connection is not None:
                return
            if self.closed or lease.pool.closed:  # type: ignore[union-attr]
                self.host.check_settings()
                handle = self.find_pool()
                handle.pool.open()
                self.handle = handle
                lease.pool = handle.pool
                self.effects = handle.pool.definitions.memo
                self.choice.choose(lease, handle.policy)
                self.pool_timezone = self.host.timezone
                self._read_health_checks(handle.pool)
                self.closed = False
            self._take_connection(lease)

    def find_pool(self) -> PoolHandle:
        """Return the pool for the wrapper's settings; make it if it does not exist."""
        return binding.find_pool(self.host)

    def _take_connection(self, lease: Lease) -> None:
        """Lease a connection until the next statement has ended."""
        pin = object()
        try:
            if lease.state not in (RELEASED, *RUNNING):
                lease.send(CLOSE)  # the beginning of the previous lease was interrupted
            lease.send(STATEMENT)
            lease.sql = None
            self.checkout(lease)
            lease.pins[pin] = None
            self._end_call(lease, pin)
            if lease.call_site is None and lease.pool is not None and not self.on_the_way:
                holders.record_holder(lease, lease.pool)
        except BaseException as error:
            lease.pins.pop(pin, None)
            self.failed(error)
            raise

    # How a lease ends.

    def perform(self, action: Action, *, ran: bool = False) -> None:
        """Perform *action*, which the lease has returned.

        :param ran: whether a statement has just run.
        """
        lease = self.lease
        try:
            if action is CHECKIN:
                self.checkin(lease, *ending.leased(lease))
            elif action is Action.DISCARD:
                ending.discard(lease)
            elif action is Action.RESET_THEN_CHECKIN:
                self._reset_then_checkin(lease, ran=ran)
            elif action is not NOTHING:
                self._audit(action, lease, ran=ran)
        except BaseException:
            ending.discard_after_interrupt(lease)
            raise

    def _audit(self, action: Action, lease: Lease, *, ran: bool) -> None:
        """Perform *action* of a lease whose session state is audited."""
        if action is Action.AUDIT_THEN_CHECKIN:
            if _audits().lease_ends(self, lease, ran=ran):
                self._restore_then_checkin(lease)
            else:
                self.checkin(lease, *ending.leased(lease))
            self.choice.audit_ended(lease)
        elif ran:
            _audits().statement_ended(self, lease)
        else:
            _audits().transaction_ended(self, lease)
        self.tell()

    def _reset_then_checkin(self, lease: Lease, *, ran: bool = False) -> None:
        if self.is_busy():
            # A COPY, a stream() or a call of the driver is under way, so nothing can be sent.
            ending.discard(lease)
            return
        try:
            ending.close_what_is_open(lease)
        except self.Database.Error as error:
            self.messages.debug(lease.alias, "connection could not be reset, discarded", error)
            ending.discard(lease)
            return
        lease.pins.clear()
        if lease.audit is not None and self.status() == TransactionStatus.IDLE:
            _audits().lease_ends(self, lease, ran=ran)
        self._restore_then_checkin(lease)

    def _restore_then_checkin(self, lease: Lease) -> None:
        connection, pool = ending.leased(lease)
        if self.status() == TransactionStatus.IDLE and self.undo(lease):
            lease.clean()
            self.checkin(lease, connection, pool)
        else:
            ending.discard(lease)

    def undo(self, lease: Lease) -> bool:
        """Undo session state in one round trip; return whether the session is restored."""
        try:
            return ending.undo(lease)
        # UnicodeError: the client_encoding lacks a character of the statement.
        except (self.Database.Error, UnicodeError) as error:
            self.messages.debug(lease.alias, "session could not be restored", error)
            return False

    def reevaluate(self) -> None:
        """End the lease unless something still keeps it."""
        lease = self.lease
        if lease.connection is None:
            return
        try:
            self.perform(lease.report(self.status(), self.host.in_atomic_block))
        except BaseException:
            ending.discard_after_interrupt(lease)
            raise

    def transaction_ended(self) -> None:
        """Report the end of Django's transaction. Its commit or rollback may have failed."""
        with self.exclusive():
            self.pending_savepoints = []
            self._follow_definitions()
            pool = self.lease.pool
            if pool is not None and pool.plans is not None:
                self._settle_plans(pool.plans)
            self.lease.send(ENDED)
            self.reevaluate()
            if self.notes:
                self.act_on_notes()

    def close(self) -> None:
        """End the lease, even if it is pinned."""
        lease = self.lease
        with self.exclusive():
            try:
                action = lease.send(CLOSE)
                if lease.connection is not None:
                    self.perform(action)
            except BaseException:
                ending.discard_after_interrupt(lease)
                raise
            finally:
                self.closed = True
                self._follow_definitions()
                if lease.connection is None:
                    # A lease outlives a dropped wrapper and must not keep the pool alive.
                    lease.pool = None
        self.pending_savepoints = []

    # Requests from outside the owner's statements.

    def leave(self, note: Note) -> None:
        """Let the owner act on *note*, now or after the running statement.

        This is for other threads, for signal handlers, and for the garbage collector, which may
        close a cursor at any instruction.
        """
        self.notes.add(note)
        # Set after adding, because `act_on_notes` clears it before it reads the notes.
        self.detour = True
        lock = self.share_lock
        if lock is None:
            if self.is_idle_here():
                self.act_on_notes()
            elif not self.is_owner():
                # The owner may have no statement to run for a long time.
                sync_threads.call_soon(partial(_act_on_notes, self.ref))
        elif lock.acquire(blocking=False):
            try:
                if self.is_idle():
                    self.act_on_notes()
            finally:
                lock.release()

    def act_on_notes(self) -> None:
        """Act on the notes of others. Only the owner calls this, between statements."""
        if self.initializing is not None:
            return  # `lease` is the temporary one of the initialization
        self.detour = self.share_lock is not None or bool(self._open_transfers())
        self.notes.act(self)

    def act_on_notes_here(self) -> None:
        """Act on the notes of others if this thread is the owner and runs nothing."""
        if self.notes and self.is_idle_here():
            self.act_on_notes()

    def is_owner(self) -> bool:
        """Whether this thread may use the lease, now or after another thread."""
        return self.share_lock is not None or self.thread == get_ident()

    def is_idle_here(self) -> bool:
        """Whether this thread may send events to the lease now."""
        return self.is_owner() and self.is_idle()

    def is_idle(self) -> bool:
        """Whether no statement is running and the lease is neither beginning nor ending."""
        lease = self.lease
        if lease.state in RUNNING:
            return False
        return (lease.state is RELEASED) == (lease.connection is None)

    def exclusive(self) -> AbstractContextManager[object]:
        """Return a context manager that excludes other threads of a shared wrapper."""
        return _NOT_SHARED if self.share_lock is None else self.share_lock

    def share(self, shared: bool) -> None:
        """Let several threads use the wrapper from now on, or only its own.

        :param shared: whether several threads may use it.
        """
        self.lease.shared = shared
        if not shared:
            self.share_lock = None
            self.lease.thread = self.thread  # another one may have used it last
            self.detour = bool(self.notes or self._open_transfers())
            return
        if self.share_lock is None:
            self.share_lock = threading.RLock()
        self.detour = True

    def cut_off(self) -> None:
        """Shut the connection's socket down during a call of the driver, which then fails.

        The socket is closed only after that call. If it were closed now, another connection could
        get the same file descriptor, and the driver would wait on it.
        """
        lease = self.lease
        connection, _ = ending.leased(lease)
        # Pinned, because the call may still succeed and would return the connection to the pool.
        lease.pins[connection] = None
        lifetimes.shut_down_socket(connection.raw)
        # Not `leave`: the lease looks idle if the caller uses the driver's connection or a COPY.
        self.notes.add(partial(_close_cut_off, connection))
        self.detour = True

    def forked(self) -> None:
        """Drop everything that belongs to the parent. Called in a forked child."""
        self.closed, self.handle = True, None
        self.effects, self.redefined, self.doubted = _UNBOUND, False, False
        self.pending_savepoints = []
        if self.share_lock is not None:
            self.share_lock = threading.RLock()

    # Other uses of the leased connection.

    def call(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """Call *function*, which uses the leased connection without `execute()`.

        Meanwhile the lease is in the state of a running statement, so that nothing else uses it.

        :raises ProgrammingError: a transfer is open.
        """
        with self.exclusive():
            self.refuse_during_transfer()
            return self.call_for_transfer(function, *arguments, **options)

    def call_for_transfer(
        self, function: Callable[..., Result], *arguments: Any, **options: Any
    ) -> Result:
        """Do `call` for a transfer, which is open and goes on."""
        lease = self.lease
        with self.exclusive():
            if (
                lease.connection is None
                or not self.is_owner()
                or (lease.state in RUNNING and not self.is_blocked())
            ):
                return function(*arguments, **options)
            pin = object()
            try:
                lease.pins[pin] = None
                lease.send(STATEMENT)
                result = function(*arguments, **options)
                self._end_call(lease, pin)
            except BaseException as error:
                if not isinstance(error, self.Database.Error):
                    self.mark_dirty()  # an interrupt: *function* may have done anything
                elif standby.is_refused_by_one(error, lease):
                    standby.replace_connections(lease, self.messages)
                elif session_rules.sqlstate(error) == session_rules.SYNTAX_ERROR:
                    self._hide_statement(lease)
                self._end_call(lease, pin)
                if self.notes and self.is_idle():
                    self.act_on_notes()
                raise
            return result

    def _end_call(self, lease: Lease, pin: object) -> None:
        """Take the lease out of the running state after `call`, and remove *pin*."""
        if lease.connection is not None and pin in lease.pins and lease.state in RUNNING:
            # This never ends the lease, because of the pin.
            lease.report(self.status(), self.host.in_atomic_block)
        lease.pins.pop(pin, None)

    def is_blocked(self) -> bool:
        """Whether a call of the driver would deadlock, because another call is under way."""
        connection, pool = self.lease.connection, self.lease.pool
        return connection is not None and pool is not None and pool.is_blocked(connection.raw)

    def is_busy(self) -> bool:
        """Whether a driver's call, a COPY or a stream() is under way, so nothing can be sent."""
        return self.status() == TransactionStatus.ACTIVE or self.is_blocked()

    def status(self) -> int:
        """Return the transaction status of the leased connection.

        It is UNKNOWN if there is no connection, because a signal handler has called close().
        """
        connection, pool = self.lease.connection, self.lease.pool
        if connection is None or pool is None:
            return TransactionStatus.UNKNOWN
        return pool.transaction_status(connection.raw)

    def mark_dirty(self) -> None:
        """Record that code which relet cannot see may have changed the session."""
        lease = self.lease
        if self.initializing is None and lease.connection is not None:
            if lease.session is None:
                lease.session = SessionLedger()
            lease.session.mark_dirty()
            if lease.pool is not None and lease.pool.plans is not None:
                changes = [Change(Kind.UNKNOWN, None)]
                raw = lease.connection.raw
                lease.pool.plans.changed(raw, changes, in_transaction=True)

    def check_driver_state(self) -> None:
        """Mark the lease dirty if the state of the driver's connection was changed."""
        connection, pool = self.lease.connection, self.lease.pool
        if connection is None or pool is None:
            return
        if not pool.is_as_it_was(connection.raw, connection):
            self.mark_dirty()

    def lend(self) -> Any:
        """Return the driver's connection to a caller who may do anything with it."""
        if self.lease.connection is None:
            self.ensure_connection()
        self.mark_dirty()
        return self.lease.connection.raw  # type: ignore[union-attr]

    def make_cursor(self, name: str | None = None) -> Any:
        """Return a driver's cursor made by the backend's `create_cursor`."""
        make = partial(self.host.create_cursor, name)
        cursor = temporarily(self, make, internal_access=True)
        if not self.drivers_cursors and getattr(cursor, "statusmessage", None) is not None:
            # The backend has run an unknown statement on it.
            self.mark_dirty()
        return cursor

    def facts(self) -> Facts:
        """Return facts about connections of this pool. Lease one if they are not known yet."""
        if (facts := self.facts_if_known()) is None:
            self.host.validate_thread_sharing()
            pin = object()
            self.pin(pin)
            self.unpin(pin)
            facts = self.facts_if_known()
        return facts  # type: ignore[return-value]

    def facts_if_known(self) -> Facts | None:
        """Return facts about connections of this pool, or None if they are not known yet."""
        if (handle := self.handle) is None:
            # Another wrapper may have opened the pool.
            key = self.host.alias, self.host.settings_dict, self.host.timezone_name
            handle = next((each for each in pools if each.serves(*key)), None)
        return None if handle is None else handle.pool.known_facts

    # Pins.

    def pin(self, pin: object) -> Any:
        """Keep the lease until ``unpin(pin)``; return the driver's connection.

        If the lease ends before that, the object at ``lease.pins[pin]`` is closed.

        :param pin: any hashable object, such as the result of `pin_for`.
        """
        with self.exclusive():
            lease = self.lease
            if lease.connection is None:
                self.ensure_connection()
            lease.pins.setdefault(pin)
            if lease.call_site is None and lease.pool is not None:
                # It was taken on the way to a statement, and outlasts that now.
                holders.record_holder(lease, lease.pool)
            return lease.connection.raw  # type: ignore[union-attr]

    def pin_for(self, keeper: Any) -> weakref.ref[Any]:
        """Return a pin that ends when *keeper*, such as a cursor, is dropped."""
        pin = weakref.ref(keeper, self._on_dropped)
        hash(pin)  # caches the hash, which cannot be computed once the keeper is gone
        return pin

    def unpin(self, pin: object) -> None:
        """Remove *pin* and close its object. Removing the last pin may end the lease."""
        if not self.is_idle_here():
            if pin in self.lease.pins:
                self.leave(lambda runner: runner.unpin_here(pin))
            return
        self.unpin_here(pin)
        if self.notes:
            self.act_on_notes()

    def unpin_here(self, pin: object) -> None:
        """Do `unpin` now. Only the owner calls this, between statements."""
        with self.exclusive():
            lease = self.lease
            if (open_cursor := lease.pins.get(pin)) is not None:
                self._close_cursor(open_cursor)
            if pin in lease.pins:
                del lease.pins[pin]
                if not lease.pins:
                    self.reevaluate()

    def _close_cursor(self, open_cursor: Any) -> None:
        """Close a cursor or transfer that was left open. If that fails, mark the lease dirty."""
        try:
            if isinstance(open_cursor, Transfer):
                open_cursor.close()
                return
            if self.status() in (TransactionStatus.ACTIVE, TransactionStatus.IN_ERROR):
                # CLOSE would fail now, and a cursor WITH HOLD outlives the transaction.
                self.mark_dirty()
            if self.status() != TransactionStatus.ACTIVE:
                self.call(open_cursor.close)
        except self.Database.Error as error:
            self.mark_dirty()
            self.messages.debug(self.lease.alias, "cursor could not be closed", error)

    def _open_transfers(self) -> list[object]:
        """Return the pins of transfers that are open."""
        pins = list(self.lease.pins.items())
        return [pin for pin, one in pins if isinstance(one, Transfer) and not one.ended]

    def refuse_during_transfer(self) -> None:
        """Raise an error if a transfer is open, because the driver would wait for it forever.

        :raises ProgrammingError: a transfer is open.
        """
        if self.detour and self.is_idle() and self._open_transfers():
            raise self.Database.ProgrammingError(
                f"DATABASES[{self.lease.alias!r}]: a stream() or copy() is still open on this "
                "connection, so nothing else can run on it. Read it to its end or close it first."
            )

    def look_at_transfers(self) -> None:
        """Act on the notes of others, one of which may end a transfer that is open."""
        if self.detour and self._open_transfers():
            self.act_on_notes_here()

    def end_transfers(self) -> None:
        """End the transfers that this thread has left open, so that it can roll back."""
        if self.share_lock is None:  # else another thread may be in the middle of it
            for pin in self._open_transfers():
                self.unpin_here(pin)

    def transfer(self, sql: object) -> None:
        """Record that a COPY or a stream() of *sql* begins on the leased connection."""
        self.lease.sql = sql
        if self.lease.audit is not None:
            _audits().transfer_begins(self, self.lease)

    def end_transfer(self, transfer: Transfer, pin: object, error: BaseException | None) -> None:
        """End a transfer that was dropped. No caller is left to get its errors, so log them."""
        try:
            transfer.end(error)
        except self.Database.Error as raised:
            text = "stream() or copy() could not be ended"
            self.messages.debug(self.lease.alias, text, raised)
        finally:
            self.unpin_here(pin)

    # Session state.

    def effects_of(self, query: Any) -> Effects | None:
        """Return the effects of *query* on its session, or None if it has none.

        This may take a lease for the statement. If that does not begin, call `drop_prepared`.
        """
        self.prepared = False
        text = query if query.__class__ is str else self.host_class.adapter_class.sql_text(query)
        effects = self.effects[text]
        return self._judge(text) if effects is UNREAD else effects

    def _judge(self, text: str) -> Effects | None:
        """Return the effects of *text*; find the pool and read the definitions before."""
        if self.initializing is not None:
            return self.effects.judge_alone(text)
        self.doubted = False
        self._follow_definitions()
        self.prepared = self.lease.connection is None
        if self.closed or self.lease.pool is None or self.lease.pool.closed:
            self._reopen()
        memo, pool = self.effects, self.lease.pool
        effects = memo.judge(text)
        if pool is None or only_prepares(text):
            return effects
        # To define one thing after the other, none has to be known.
        defines = effects is not None and effects.redefines and memo.temporary is not None
        if memo.stale and not defines:
            self._read_definitions(pool)
            effects = memo.judge(text)
        self._tell_problem(pool)
        if (memo.stale and not defines) or pool.definitions.is_defined_by_others(self.ref):
            self.doubted = True
            return effects or UNREAD
        return effects

    def _judge_again(self, effects: Effects, text: str) -> Effects:
        """Return the *effects* of *text*, which has run while others were defining something.

        It may have waited until they were ready. Or the definitions could not be read.
        """
        self.doubted = False
        steps: tuple[Change, ...] = (Change(Kind.UNKNOWN, None),)
        connection, pool = ending.leased(self.lease)
        if self.status() in (TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION):
            with self.host.wrap_database_errors:
                old = pool.definitions.compare(pool, connection.raw, tentative=self.redefined)
            if old:
                self.redefined = True  # it may not see what has changed
            elif not self.effects.stale:
                again = self.effects.judge(text)
                steps = nameless(again.steps) if again is not None else ()
        return effects._replace(steps=(*effects.steps, *steps))

    def drop_prepared(self) -> None:
        """End a lease that was taken to judge a statement which then did not begin."""
        if self.prepared and self.lease.connection is not None and self.is_idle():
            self.prepared = False
            self.reevaluate()

    def _read_definitions(self, pool: PoolAdapter[Any]) -> None:
        if self.lease.connection is None:
            self._connect_on_the_way()  # which may read them, if it opens the connection
        if not self.effects.stale or self.is_busy() or self.lease.connection is None:
            return
        if self.status() not in (TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION):
            return
        with self.host.wrap_database_errors:
            self.redefined |= self.call(
                partial(pool.definitions.compare, tentative=self.redefined),
                pool,
                self.lease.connection.raw,
            )

    def _tell_problem(self, pool: PoolAdapter[Any]) -> None:
        """Log why the definitions could not be read, once."""
        if problem := pool.definitions.take_problem():
            self.messages.warning(
                "DATABASES[%r]: what functions and triggers leave in their session cannot be seen, "
                "because their definitions cannot be read: %s",
                self.lease.alias,
                problem,
            )
            self.tell()

    def _follow_definitions(self) -> None:
        """Have the definitions read again after a transaction that has changed some."""
        if self.redefined and self.status() in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
            self.redefined = False
            for definitions in self._definitions():
                definitions.finish(self.ref)

    def _definitions(self) -> list[PoolDefinitions]:
        """Return the definitions of the database, of each of its pools."""
        return [] if self.handle is None else binding.definitions_of(self.handle.database)

    def known_effects(self, query: Any) -> Effects | None:
        """Return the effects of *query*, which has run. Unlike `effects_of`, this only looks."""
        text = query if query.__class__ is str else self.host_class.adapter_class.sql_text(query)
        effects = self.effects[text]
        return self.effects.judge(text) if effects is UNREAD else effects

    def tracks(self, effects: Effects, sql: Any, params: object) -> bool:
        """Whether the statement was tracked instead of run; see `ReplayingRunner`."""
        return False

    def expect(self, effects: Effects, sql: Any, params: object) -> None:
        """Check a statement with *effects* before it runs.

        :raises SessionStateError: the policy forbids the session state that it would leave.
        """
        if self.initializing is not None:
            return
        lease, text = self.lease, self.host_class.adapter_class.sql_text(sql)
        if effects.reads_sequence and (lease.connection is None or self.prepared):
            session_rules.warn_of_sequence(lease.alias, effects, text)
        if lease.session is None or not lease.session.holds:
            policy = self.choice.policy if lease.connection is not None else self._next_policy()
            session_rules.refuse(lease.alias, policy, effects.resolve(params, None), text)
        if effects.redefines:
            self.redefined = True
            for definitions in self._definitions():
                definitions.begin(self.ref)

    def _next_policy(self) -> ReleasePolicy:
        """Return the policy of the next lease."""
        host = self.host
        return policies.from_code(host.alias) or release_policy(
            host.alias, host.settings_dict, host.adapter_class
        )

    def account(
        self,
        effects: Effects,
        sql: Any,
        params: object,
        driver: Any,
        before: int,
        error: BaseException | None = None,
    ) -> None:
        """Record the session state that a statement with *effects* has left.

        :param driver: the driver's cursor if it may have a result, else None.
        :param before: the transaction status before the statement.
        :param error: the error that the statement raised, if any.
        """
        if self.initializing is not None:
            self.configured.update(session_rules.settings_made(effects.resolve(params, None)))
            if effects.redefines:
                for definitions in self._definitions():
                    definitions.expire()
        else:
            if self.doubted and self.lease.connection is not None:
                effects = self._judge_again(effects, self.host_class.adapter_class.sql_text(sql))
            ran = Statement(effects, sql, params, driver, before, error)
            session_tracking.account(self.lease, self.choice.policy, self.messages, ran)
            self._tell_plans(effects, params)
            if self.lease.pool is not None and (
                effects.redefines or (self.redefined and any(map(_rolls_back, effects.steps)))
            ):
                self.lease.pool.definitions.expire()
            self._follow_definitions()

    def _tell_plans(self, effects: Effects, params: object) -> None:
        """Tell those who prepare targets what a statement with *effects* has changed."""
        connection, pool = self.lease.connection, self.lease.pool
        if connection is None or pool is None or pool.plans is None:
            return
        in_transaction = self.status() != TransactionStatus.IDLE
        steps = effects.resolve(params, None)
        pool.plans.changed(connection.raw, steps, in_transaction=in_transaction)
        self._look_at_settings()

    def _settle_plans(self, plans: Any) -> None:
        """Let targets be prepared again that were in doubt until the transaction's end."""
        connection = self.lease.connection
        if connection is not None and self.status() == TransactionStatus.IDLE:
            self._look_at_settings()
            plans.transaction_ended(connection.raw)

    def _look_at_settings(self) -> None:
        """Let targets be prepared again once the session has no settings of this lease any more."""
        lease = self.lease
        connection, pool, policy = lease.connection, lease.pool, self.choice.policy
        if (
            connection is not None
            and pool is not None
            and pool.plans is not None
            and policy.state_mode(Kind.SETTING) != "ignore"
            and (lease.session is None or _SETTINGS.isdisjoint(lease.session.left))
        ):
            pool.plans.restored(connection.raw)

    def end_with_state(self, end: Callable[[], object], *, committing: bool) -> None:
        """Call *end*, the driver's commit or rollback, and update the session state.

        :param committing: whether *end* is the commit.
        """
        # COMMIT of a failed transaction rolls it back without an error.
        committing &= self.status() != TransactionStatus.IN_ERROR
        try:
            self.call(end)
            session_tracking.transaction_ended(self.lease, self.messages, committed=committing)
            self._look_at_settings()
        except BaseException as error:
            # Only an error from the server proves that the transaction was not committed.
            failed = isinstance(error, self.Database.Error) and session_rules.sqlstate(error)
            committed = False if failed else None
            session_tracking.transaction_ended(self.lease, self.messages, committed=committed)
            raise

    def tell(self) -> None:
        """Log the pending messages, unless a statement or transaction is under way."""
        if (
            self.messages
            and self.host.autocommit
            and not self.host.in_atomic_block
            and self.initializing is None
            and self.is_idle_here()
        ):
            self.messages.log()

    # Blocks: `hold` and `policies.override`.

    def hold(self, block: object) -> None:
        """Keep one connection, from the next statement until ``release_hold(block)``."""
        with self.exclusive():
            self.holds[block] = None
            self._count_holds()

    def _count_holds(self) -> None:
        """Copy the number of holds to the session ledger."""
        lease = self.lease
        if lease.session is None and self.holds:
            lease.session = SessionLedger()
        if lease.session is not None:
            lease.session.holds = len(self.holds)

    def release_hold(self, block: object) -> None:
        """End the `hold` of *block*. The last one undoes session state and ends the lease."""
        with self.exclusive():
            lease = self.lease
            self.holds.pop(block, None)
            held = lease.session is not None and lease.session.holds > 0
            self._count_holds()
            if lease.session is None or self.holds:
                return
            if lease.connection is None:
                lease.session = None
            elif held:
                # SQL functions may have changed the session, which relet cannot see.
                lease.session.mark_dirty()
                self.reevaluate()
                self._undo_in_place()

    def _undo_in_place(self) -> None:
        """Undo session state now, if only its release mode keeps the lease."""
        lease = self.lease
        session = lease.session
        if (
            lease.connection is None
            or session is None
            or session.keeps_lease
            or self.host.in_atomic_block
            or not self.host.autocommit
            or self.status() != TransactionStatus.IDLE
            or (lease.pins and self.choice.policy.release != "cursor")
            or any(open_cursor is not None for open_cursor in lease.pins.values())
        ):
            return
        if self.undo(lease):
            lease.clean()
        else:
            lease.pins.clear()
            self.perform(lease.send(Event.LOST))

    # The audit of a test.

    def begin_audit(self, mode: str) -> None:
        """Audit the lease that there is, if there is one, until it ends."""
        with self.exclusive():
            lease = self.lease
            if lease.connection is not None and lease.audit is None and self.is_idle():
                self.choice.audit(lease, mode)
                _audits().begin_in_between(self, lease)

    def report_audit(self) -> None:
        """Report what the audit of the present lease has found, although the lease goes on."""
        with self.exclusive():
            if self.lease.connection is not None and self.is_idle():
                _audits().report_in_test(self, self.lease)

    def on_override_exit(self, policy: object) -> None:
        """Choose the policy again after leaving a block that overrode it with *policy*."""
        with self.exclusive():
            if self.lease.connection is not None and self.choice.policy is policy:
                self.choice.choose(self.lease, self.handle.policy)  # type: ignore[union-attr]
                self.reevaluate()


def _rolls_back(step: object) -> bool:
    return isinstance(step, Move) and step.control is Control.ROLLBACK_TO


def _close_cut_off(connection: PooledConnection, runner: LeaseRunner) -> None:
    """Close after a call that `cut_off` interrupted has returned."""
    lease = runner.lease
    if lease.connection is connection:
        lease.send(CLOSE)
        ending.discard(lease)
        runner.host.close()


def _act_on_notes(find: weakref.ref[LeaseRunner]) -> None:
    """Act on the notes if this thread is the owner and runs nothing."""
    if (runner := find()) is not None:
        runner.act_on_notes_here()
        runner.tell()


def _dropped(find: weakref.ref[LeaseRunner], pin: weakref.ref[Any]) -> None:
    """Remove *pin* after its keeper was collected without being closed."""
    if (runner := find()) is not None:
        runner.unpin(pin)
