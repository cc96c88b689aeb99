"""LeaseRunner: runs a wrapper's statements, each on a connection that it leases.

`relet.core.lease` decides when a lease ends; the runner feeds it with events and performs the
actions it returns. Cursors know the runner alone: ``cursor -> runner -> lease, pool``.
"""

from __future__ import annotations

import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper

from relet.backends.config.options import release_policy
from relet.backends.pools import PoolHandle
from relet.backends.temporarily import temporarily
from relet.core import (
    Action,
    Event,
    Facts,
    IllegalEvent,
    Lease,
    PoolAdapter,
    PooledConnection,
    ReleasePolicy,
    State,
)
from relet.core.session.ledger import SessionLedger
from relet.core.sql.effects import Effects
from relet.core.sql.readonly import only_reads
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
)
from .host import Host
from .messages import Messages
from .notes import Note, Notes
from .policies import policies
from .policy_choice import PolicyChoice
from .session_tracking import Statement
from .transfer import Transfer

Result = TypeVar("Result")

# Module constants: looking up an Enum's member costs more than using it.
STATEMENT, ENDED, CLOSE, UNAVAILABLE = Event.STATEMENT, Event.ENDED, Event.CLOSE, Event.UNAVAILABLE
NOTHING, CHECKOUT, CHECKIN = Action.NOTHING, Action.CHECKOUT, Action.CHECKIN
PIN_CURSOR = Action.PIN_CURSOR
RELEASED, RUNNING = State.RELEASED, (State.RUNNING, State.RUNNING_IN_TRANSACTION)

_NOT_SHARED = nullcontext()

#: Django's own; None until it is seen, if somebody had replaced it when this was imported.
djangos_ensure = guards.djangos(BaseDatabaseWrapper.ensure_connection)


class LeaseRunner:
    """Has the lease of one wrapper. The lease is moved by its owner alone: one thread.

    Others leave notes, see `leave`. While a wrapper is shared, all its threads are its owner, one
    at a time: each use is under `share_lock`.

    :ivar host: the wrapper, as far as leases need it.
    :ivar drivers_cursors: whether cursors are made as the driver's own backend makes them.
    :ivar plain_cursors: whether that is the connection's ``cursor()``, with nothing done to it.
    :ivar closed: whether close() was called since the settings were last read.
    :ivar detour: whether a statement takes the long way: there are notes, or the wrapper is shared.
    :ivar initializing: the new connection that is being initialized, if one is.
    :ivar internal_access: whether whoever looks at ``connection`` does nothing to its session.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.thread = host._thread_ident
        self.drivers_cursors = host.makes_drivers_cursors
        self.plain_cursors = host.makes_plain_cursors
        self.tells_facts = host.tells_facts
        self.lease = Lease(host.alias, thread=self.thread)
        self.closed = True
        self.detour = False
        self.notes = Notes()
        #: Held for each use while the wrapper is shared between threads; else None.
        self.share_lock: threading.RLock | None = None
        self.messages = Messages()
        self.choice = PolicyChoice()
        self.handle: PoolHandle | None = None
        self.initializing: Any = None
        #: The settings that `initializing` was given.
        self.configured: set[str | None] = set()
        self.internal_access = False
        #: SAVEPOINTs of atomic blocks that were entered while there was no connection.
        self.pending_savepoints: list[str] = []
        #: The blocks that hold a connection, in the order in which they began.
        self.holds: dict[object, None] = {}
        #: The time zone that the pool's connections load timestamps in.
        self.pool_timezone: Any = None
        #: Whether connections are pinged that were idle.
        self._health_checks = False
        #: A weak reference to this, made once.
        self.ref = weakref.ref(self)
        self._on_dropped = partial(_dropped, self.ref)
        lifetimes.watch(self, self.lease)

    # Statements: the hot path.
    #
    # An exception may be raised by anybody at any instruction: a signal handler, a timeout of
    # gevent's. So whoever calls `begin` does so inside of a `try` that ends with `end`, and calls
    # `failed` when anything is raised in it. That looks at how far the lease has come.

    def begin(self, sql: object) -> Any:
        """A statement is about to run: return the driver's connection for it."""
        lease = self.lease
        if self.closed or lease.pool.closed:  # type: ignore[union-attr]
            self._reopen()
        action = lease.send(STATEMENT)
        lease.sql = sql
        if action is CHECKOUT:
            if type(self.host).ensure_connection is djangos_ensure:
                self.checkout(lease)
            else:
                self._ask_guard(lease, sql)
        elif lease.connection is None and lease.state is State.RUNNING:
            # A finalizer has ended it between two instructions; or an interrupt its beginning.
            lease.send(CLOSE)
            return self.begin(sql)
        return lease.connection.raw  # type: ignore[union-attr]

    def end(self) -> Action:
        """The statement has ended, well or not. If PIN_CURSOR is returned, see `pinned`."""
        lease = self.lease
        connection, pool = lease.connection, lease.pool
        if connection is None or pool is None:
            return NOTHING  # close() came while it ran
        status = pool.transaction_status(connection.raw)
        action = lease.report(status, self.host.in_atomic_block)
        if action is CHECKIN:
            self.checkin(lease, connection, pool)
            return action
        if action is PIN_CURSOR:
            return action
        if action is not NOTHING:
            self.perform(action)
        if lease.call_site is None and lease.connection is not None:
            holders.record_holder(lease, pool)
        if self.notes:
            self.act_on_notes()
        return action

    def pinned(self) -> None:
        """The cursor has pinned the lease, as `end` has told it to."""
        lease = self.lease
        if lease.call_site is None and lease.connection is not None and lease.pool is not None:
            holders.record_holder(lease, lease.pool)
        if self.notes:
            self.act_on_notes()

    def failed(self, error: BaseException) -> Action:
        """*error* was raised between `begin` and the end of `end`: end the statement."""
        if isinstance(error, IllegalEvent) and not error.heard:
            error.heard = True
            return NOTHING  # it has not begun: another one is under way
        lease = self.lease
        if lease.connection is None:
            if lease.state in RUNNING:
                lease.send(CLOSE)
        elif lease.state is RELEASED:
            ending.discard_after_interrupt(lease)
        elif lease.state in RUNNING:
            try:
                return self.end()
            except BaseException:
                ending.discard_after_interrupt(lease)
                raise
        return NOTHING

    def checkout(self, lease: Lease) -> None:
        """Take a connection for *lease*, and make of it what the wrapper expects."""
        pool: PoolAdapter[Any] = lease.pool  # type: ignore[assignment]
        choice = self.choice
        if policies.stamp is not choice.stamp:
            choice.refresh(lease, self.handle.policy)  # type: ignore[union-attr]
        if lease.connection is not None:
            # From a log handler, say, while the lease is being ended: it would wait for itself.
            lease.send(CLOSE)
            raise IllegalEvent(lease.alias, "being ended", STATEMENT.value)
        try:
            if pool.long_leases and holders.waits_for_itself(pool):
                raise self._waits_for_itself(pool)
            pool.checkout_into(lease)
            connection: Any = lease.connection
            lease.leased_at = now = monotonic()
            last_used_at = connection.last_used_at
            if last_used_at < pool.broken_at or now - last_used_at > choice.trusted_for:
                self._validate(lease, pool)
                connection = lease.connection
            if not connection.initialized:
                self.initialize_connection(lease)
            if not self.host.autocommit:
                self.begin_transaction(lease)
        except BaseException:
            if lease.connection is not None:
                pool.discard_from(lease)
            lease.send(UNAVAILABLE)
            lifetimes.rest_if_exiting()
            # Not everything that takes a connection is called by a cursor of Django's.
            with self.host.wrap_database_errors:
                raise

    def checkin(self, lease: Lease, connection: PooledConnection, pool: PoolAdapter[Any]) -> None:
        """Give the connection back. No transaction is open, and nothing is left in the session."""
        # The driver is asked, because an interrupt may have kept it from what the wrapper says.
        if connection.raw.autocommit is not True:
            try:
                connection.raw.autocommit = True
            except self.host.Database.Error:
                ending.discard(lease)
                return
        if lease.call_site is not None:
            holders.clear_holder(lease, pool)
        pool.checkin_from(lease)

    # The rest is off the hot path: how a lease begins.

    def _ask_guard(self, lease: Lease, sql: object) -> None:
        """Check out, if whatever replaces Django's `ensure_connection` lets it."""
        global djangos_ensure
        if djangos_ensure is None:
            djangos_ensure = guards.djangos(type(self.host).ensure_connection)
        lease.send(UNAVAILABLE)
        self.ensure_connection()
        action = lease.send(STATEMENT)
        lease.sql = sql
        if action is CHECKOUT:
            self.checkout(lease)

    def ensure_connection(self) -> None:
        """Take a connection as Django does."""
        # Django looks at `connection` meanwhile, and does nothing to its session.
        temporarily(self, self.host.ensure_connection, internal_access=True)

    def _waits_for_itself(self, pool: PoolAdapter[Any]) -> Exception:
        return pool.exhausted(
            pool.timeout_error or self.host.Database.OperationalError,
            "this thread has all connections itself, and would wait for ever",
            "have it take its second connection after the first is given back",
        )

    def _validate(self, lease: Lease, pool: PoolAdapter[Any]) -> None:
        policy, sql = self.choice.policy, lease.sql
        # What only reads may go elsewhere, as long as nothing of it has been sent.
        retried = policy.retry == "reads" and self.host.autocommit and sql is not None
        health.validate(
            lease,
            pool,
            policy.check_idle,
            pings=self._health_checks,
            may_retry=retried and only_reads(pool.sql_text(sql)),
        )

    def initialize_connection(self, lease: Lease) -> None:
        """Have Django see the new connection of *lease*."""
        first_use.initialize_connection(self, lease)

    def begin_transaction(self, lease: Lease) -> None:
        """The lease begins inside a transaction that Django has begun already."""
        connection, pool = ending.leased(lease)
        connection.raw.autocommit = False
        if self.pending_savepoints:
            # One round trip for all; in queries_log they stand where they were made.
            sql = "; ".join(map(self.host.ops.savepoint_create_sql, self.pending_savepoints))
            pool.execute_internal(connection.raw, sql)
            self.pending_savepoints = []

    def _reopen(self) -> None:
        """The first statement after close(), or after the pool was closed."""
        handle, host = self.handle, self.host
        if (
            handle is not None
            and not host.in_atomic_block
            and handle.serves(host.alias, host.settings_dict, host.timezone_name)
        ):
            host.begin_session()
            self.lease.pool = handle.pool
            self._read_health_checks(handle.pool)
            self.closed = False
        else:
            # As in Django, through connect().
            self.ensure_connection()

    def _read_health_checks(self, pool: PoolAdapter[Any]) -> None:
        self._health_checks = self.host.settings_dict["CONN_HEALTH_CHECKS"] or pool.health_checks

    def open(self) -> None:
        """Read the settings, find the pool, and take a connection until the next statement."""
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
                self.choice.choose(lease, handle.policy)
                self.pool_timezone = self.host.timezone
                self._read_health_checks(handle.pool)
                self.closed = False
            self._take_connection(lease)

    def find_pool(self) -> PoolHandle:
        """Return the pool for the wrapper's settings; make it if there is none."""
        return binding.find_pool(self.host)

    def _take_connection(self, lease: Lease) -> None:
        """Take a connection that lasts until the next statement has ended."""
        pin = object()
        try:
            if lease.state not in (RELEASED, *RUNNING):
                lease.send(CLOSE)  # the beginning of the last one was interrupted
            lease.send(STATEMENT)
            lease.sql = None
            self.checkout(lease)
            lease.pins[pin] = None
            self._returned(lease, pin)
            if lease.call_site is None and lease.pool is not None:
                holders.record_holder(lease, lease.pool)
        except BaseException as error:
            lease.pins.pop(pin, None)
            self.failed(error)
            raise

    # How a lease ends.

    def perform(self, action: Action) -> None:
        """Do what the lease says that is to be done."""
        lease = self.lease
        try:
            if action is CHECKIN:
                self.checkin(lease, *ending.leased(lease))
            elif action is Action.DISCARD:
                ending.discard(lease)
            elif action is Action.RESET_THEN_CHECKIN:
                self._reset_then_checkin(lease)
        except BaseException:
            ending.discard_after_interrupt(lease)
            raise

    def _reset_then_checkin(self, lease: Lease) -> None:
        connection, pool = ending.leased(lease)
        if self.is_busy():
            # COPY or stream(), perhaps in the middle of a call: nothing can be sent.
            ending.discard(lease)
            return
        try:
            ending.close_what_is_open(lease)
        except self.host.Database.Error as error:
            self.messages.debug(lease.alias, "cannot be reset, discarded", error)
            ending.discard(lease)
            return
        lease.pins.clear()
        if self.status() == TransactionStatus.IDLE and self.undo(lease):
            lease.clean()
            self.checkin(lease, connection, pool)
        else:
            ending.discard(lease)

    def undo(self, lease: Lease) -> bool:
        """Undo session state, in one round trip; return whether the session is as it was."""
        try:
            return ending.undo(lease)
        # UnicodeError: a client_encoding that has not all of the statement's characters.
        except (self.host.Database.Error, UnicodeError) as error:
            self.messages.debug(lease.alias, "session not restored", error)
            return False

    def reevaluate(self) -> None:
        """Something that may have kept the lease is gone: see whether the lease ends."""
        lease = self.lease
        if lease.connection is None:
            return
        try:
            self.perform(lease.report(self.status(), self.host.in_atomic_block))
        except BaseException:
            ending.discard_after_interrupt(lease)
            raise

    def transaction_ended(self) -> None:
        """Django's commit or rollback was called, and may have failed."""
        with self.exclusive():
            self.pending_savepoints = []
            self.lease.send(ENDED)
            self.reevaluate()
            if self.notes:
                self.act_on_notes()

    def close(self) -> None:
        """End the lease, whatever keeps it."""
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
                if lease.connection is None:
                    # The lease outlives a wrapper that is dropped; its pool need not.
                    lease.pool = None
        self.pending_savepoints = []

    # What others have to do with a lease.

    def leave(self, note: Note) -> None:
        """Have the owner act on *note*, now or when the statement that is under way has ended.

        For whoever else has to do with a lease: another thread, the garbage collector, which may
        close a cursor in the middle of anything, the handler of a signal.
        """
        self.notes.add(note)
        # Last, because `act_on_notes` takes it back before it looks at them.
        self.detour = True
        lock = self.share_lock
        if lock is None:
            if self.is_idle_here():
                self.act_on_notes()
        elif lock.acquire(blocking=False):
            try:
                if self.is_idle():
                    self.act_on_notes()
            finally:
                lock.release()

    def act_on_notes(self) -> None:
        """Do what others have asked for. The owner calls this, between statements."""
        if self.initializing is not None:
            return  # the lease is another one meanwhile
        self.detour = self.share_lock is not None
        self.notes.act(self)

    def is_owner(self) -> bool:
        """Whether this thread may use the lease, now or when another has finished."""
        return self.share_lock is not None or self.thread == get_ident()

    def is_idle_here(self) -> bool:
        """Whether this thread may move the lease at this moment."""
        return self.is_owner() and self.is_idle()

    def is_idle(self) -> bool:
        """Whether nothing is under way: no statement, no beginning or end of the lease."""
        lease = self.lease
        if lease.state in RUNNING:
            return False
        return (lease.state is RELEASED) == (lease.connection is None)

    def exclusive(self) -> AbstractContextManager[object]:
        """Keep other threads of a shared wrapper out."""
        return _NOT_SHARED if self.share_lock is None else self.share_lock

    def share(self, shared: bool) -> None:
        """The wrapper may be used by several threads from now on, or by its own alone."""
        self.lease.shared = shared
        if not shared:
            self.share_lock = None
            self.detour = bool(self.notes)
            return
        if self.share_lock is None:
            self.share_lock = threading.RLock()
        self.detour = True

    def cut_off(self) -> None:
        """End the connection in the middle of a call of the driver's, which fails then.

        It is not closed before that: the number of its socket would be free, and could be another
        connection's when the driver looks at it again, and waits for that.
        """
        lease = self.lease
        connection, _ = ending.leased(lease)
        lease.pins[connection] = None  # or it would be given back, if the call has ended well
        lifetimes.shut_down(connection.raw)
        # Not `leave`, which would take the lease for idle where the caller has the driver's
        # connection itself, or a COPY.
        self.notes.add(partial(_close_what_is_cut, connection))
        self.detour = True

    def forked(self) -> None:
        """This process is a child: nothing of its parent's is used here."""
        self.closed, self.handle = True, None
        self.pending_savepoints = []
        if self.share_lock is not None:
            self.share_lock = threading.RLock()

    # Other uses of the connection that is leased.

    def call(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """Call *function*, which uses the connection that is leased, beside `execute()`.

        Whoever else has to do with the lease meanwhile finds that a statement is under way.
        """
        lease = self.lease
        with self.exclusive():
            if (
                lease.connection is None
                or not self.is_owner()
                or (lease.state in RUNNING and not self._is_blocked())
            ):
                return function(*arguments, **options)
            pin = object()
            try:
                lease.pins[pin] = None
                lease.send(STATEMENT)
                result = function(*arguments, **options)
                self._returned(lease, pin)
            except BaseException as error:
                if not isinstance(error, self.host.Database.Error):
                    self.mark_dirty()  # from outside: nobody knows how far it came
                self._returned(lease, pin)
                if self.notes and self.is_idle():
                    self.act_on_notes()
                raise
            return result

    def _returned(self, lease: Lease, pin: object) -> None:
        """What `call` has called has returned."""
        if lease.connection is not None and pin in lease.pins and lease.state in RUNNING:
            # It cannot end: there is the pin.
            lease.report(self.status(), self.host.in_atomic_block)
        lease.pins.pop(pin, None)

    def _is_blocked(self) -> bool:
        """Whether a call of the driver's would never return: another one is under way."""
        connection, pool = self.lease.connection, self.lease.pool
        return connection is not None and pool is not None and pool.is_blocked(connection.raw)

    def is_busy(self) -> bool:
        """Whether nothing can be sent: a call of the driver's is under way, or a COPY, a stream."""
        return self.status() == TransactionStatus.ACTIVE or self._is_blocked()

    def status(self) -> int:
        """Return the driver's transaction status, of the connection that is leased.

        It is UNKNOWN if there is none any more: a signal's handler has called close().
        """
        connection, pool = self.lease.connection, self.lease.pool
        if connection is None or pool is None:
            return TransactionStatus.UNKNOWN
        return pool.transaction_status(connection.raw)

    def mark_dirty(self) -> None:
        """The driver's connection is handed out: nobody knows what is done with it."""
        lease = self.lease
        if self.initializing is None and lease.connection is not None:
            if lease.session is None:
                lease.session = SessionLedger()
            lease.session.mark_dirty()

    def check_driver_state(self) -> None:
        """Mark the lease dirty if the driver's connection, to which something led, was changed."""
        connection, pool = self.lease.connection, self.lease.pool
        if connection is None or pool is None:
            return
        if not pool.is_as_it_was(connection.raw, connection):
            self.mark_dirty()

    def lend(self) -> Any:
        """Hand out the driver's connection, to whoever uses it."""
        if self.lease.connection is None:
            self.ensure_connection()
        self.mark_dirty()
        return self.lease.connection.raw  # type: ignore[union-attr]

    def make_cursor(self, name: str | None = None) -> Any:
        """Return a driver's cursor that Django, or the backend, makes."""
        make = partial(self.host.create_cursor, name)
        cursor = temporarily(self, make, internal_access=True)
        if not self.drivers_cursors and getattr(cursor, "statusmessage", None) is not None:
            # The backend ran something on it: nobody knows what.
            self.mark_dirty()
        return cursor

    def facts(self) -> Facts:
        """Return what a connection tells of itself. To know it, one is taken, and given back."""
        if (facts := self.facts_if_known()) is None:
            self.host.validate_thread_sharing()
            pin = object()
            self.pin(pin)
            self.unpin(pin)
            facts = self.facts_if_known()
        return facts  # type: ignore[return-value]

    def facts_if_known(self) -> Facts | None:
        """Return what a connection tells of itself, if one has been asked."""
        return None if self.handle is None else self.handle.pool.known_facts

    # Pins.

    def pin(self, pin: object) -> Any:
        """Keep the lease until *pin* is given to `unpin`; return the driver's connection.

        What is put at ``lease.pins[pin]`` is closed when the lease is ended before that.

        :param pin: anything, such as what `pin_for` returns.
        """
        with self.exclusive():
            lease = self.lease
            if lease.connection is None:
                self.ensure_connection()
            lease.pins.setdefault(pin)
            return lease.connection.raw  # type: ignore[union-attr]

    def pin_for(self, keeper: Any) -> weakref.ref[Any]:
        """Return a pin that ends when *keeper*, such as a cursor, is dropped."""
        pin = weakref.ref(keeper, self._on_dropped)
        hash(pin)  # which is kept; when the keeper is gone it would have none
        return pin

    def unpin(self, pin: object) -> None:
        """*pin* keeps the lease no longer. What is to be closed with it is closed."""
        if not self.is_idle_here():
            if pin in self.lease.pins:
                self.leave(lambda runner: runner.unpin_here(pin))
            return
        self.unpin_here(pin)
        if self.notes:
            self.act_on_notes()

    def unpin_here(self, pin: object) -> None:
        """Do what `unpin` does, in the owner's thread, while nothing is under way."""
        with self.exclusive():
            lease = self.lease
            if (open_cursor := lease.pins.get(pin)) is not None:
                self._close_cursor(open_cursor)
            if pin in lease.pins:
                del lease.pins[pin]
                if not lease.pins:
                    self.reevaluate()

    def _close_cursor(self, open_cursor: Any) -> None:
        """Close what somebody else has left open; where that fails, the driver's status tells."""
        try:
            if isinstance(open_cursor, Transfer):
                open_cursor.close()
                return
            if self.status() in (TransactionStatus.ACTIVE, TransactionStatus.IN_ERROR):
                # It cannot be closed now, and one WITH HOLD outlives the transaction.
                self.mark_dirty()
            if self.status() != TransactionStatus.ACTIVE:
                self.call(open_cursor.close)
        except self.host.Database.Error as error:
            self.mark_dirty()
            self.messages.debug(self.lease.alias, "a cursor could not be closed", error)

    def end_transfer(self, transfer: Transfer, pin: object, error: BaseException | None) -> None:
        """End what somebody else has left. Its caller is gone, so errors go to the log."""
        try:
            transfer.end(error)
        except self.host.Database.Error as raised:
            text = "stream() or copy() could not be ended"
            self.messages.debug(self.lease.alias, text, raised)
        finally:
            self.unpin_here(pin)

    # Session state.

    def effects_of(self, query: Any) -> Effects | None:
        """Return what *query* leaves in the session, if anything."""
        return session_tracking.effects_of(self.host.adapter_class, query)

    def tracks(self, effects: Effects, sql: Any, params: object) -> bool:
        """Whether a statement is tracked and not run; see `ReplayingRunner`."""
        return False

    def expect(self, effects: Effects, sql: Any, params: object) -> None:
        """A statement with *effects* is about to run: refuse it, or warn."""
        if self.initializing is not None:
            return
        lease, text = self.lease, self.host.adapter_class.sql_text(sql)
        if effects.reads_sequence and lease.connection is None:
            session_rules.warn_of_sequence(lease.alias, effects, text)
        if lease.session is None or not lease.session.holds:
            policy = self.choice.policy if lease.connection is not None else self._next_policy()
            session_rules.refuse(lease.alias, policy, effects.resolve(params, None), text)

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
        """A statement with *effects* has run: account for what it has left.

        :param driver: the driver's cursor, if it may have a result.
        :param before: the transaction status before.
        :param error: what the statement has raised.
        """
        if self.initializing is not None:
            self.configured.update(session_rules.settings_made(effects.resolve(params, None)))
        else:
            ran = Statement(effects, sql, params, driver, before, error)
            session_tracking.account(self.lease, self.choice.policy, self.messages, ran)

    def end_with_state(self, end: Callable[[], object], *, committing: bool) -> None:
        """Call *end*, the driver's commit or rollback, where there is session state."""
        # COMMIT rolls back what has failed, and does not say so.
        committing &= self.status() != TransactionStatus.IN_ERROR
        try:
            self.call(end)
            session_tracking.transaction_ended(self.lease, self.messages, committed=committing)
        except BaseException as error:
            # Only what the server itself says is known to have come before it was done.
            failed = isinstance(error, self.host.Database.Error) and session_rules.sqlstate(error)
            committed = False if failed else None
            session_tracking.transaction_ended(self.lease, self.messages, committed=committed)
            raise

    def tell(self) -> None:
        """Write the kept messages to the log, if nothing is under way."""
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
        """Keep one connection, from the next statement on, until `release_hold`."""
        with self.exclusive():
            self.holds[block] = None
            self._count_holds()

    def _count_holds(self) -> None:
        """Tell the session how many blocks hold a connection."""
        lease = self.lease
        if lease.session is None and self.holds:
            lease.session = SessionLedger()
        if lease.session is not None:
            lease.session.holds = len(self.holds)

    def release_hold(self, block: object) -> None:
        """End the `hold` of *block*; with the last, undo session state and end the lease."""
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
                # Nobody knows what functions have done to it.
                lease.session.mark_dirty()
                self.reevaluate()
                self._undo_in_place()

    def _undo_in_place(self) -> None:
        """Undo session state now, if the lease goes on for its release mode alone."""
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

    def on_override_exit(self, policy: object) -> None:
        """A block that overrode the policy by *policy* is left."""
        with self.exclusive():
            if self.lease.connection is not None and self.choice.policy is policy:
                self.choice.choose(self.lease, self.handle.policy)  # type: ignore[union-attr]
                self.reevaluate()


def _close_what_is_cut(connection: PooledConnection, runner: LeaseRunner) -> None:
    """A call was cut off, and has returned: do what `close` was to do."""
    lease = runner.lease
    if lease.connection is connection:
        lease.send(CLOSE)
        ending.discard(lease)
        runner.host.close()


def _dropped(find: weakref.ref[LeaseRunner], pin: weakref.ref[Any]) -> None:
    """What has made *pin* is gone: whoever had it, forgot to close it."""
    if (runner := find()) is not None:
        runner.unpin(pin)
