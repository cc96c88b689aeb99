"""The lease: which connection a Django wrapper holds, and when it goes back to the pool.

This file owns every transition. It does no I/O, reads no clock, and imports
neither Django nor a driver. The Django layer *sends events* and *performs the
actions* that it gets in return.

How to read it
==============

A lease is in one of six states. There are three kinds of events:

* The owner does something: ``STATEMENT`` (a statement is about to run, or another
  driver call that uses the connection, such as a fetch from the server or a
  COMMIT), ``CONNECT`` (the connection itself is requested), ``ENDED``
  (``commit()`` or ``rollback()`` was called, even if it failed), ``CLOSE``.
* Something has run. The event is the *condition* of the lease afterwards. It is
  derived from the driver's own transaction status, never guessed: ``CLEAN``,
  ``DIRTY``, ``PINNED``, ``TRANSACTION``, ``LOST``, ``LOST_IN_USE``.
* Something else happens: ``UNAVAILABLE`` (the pool had no connection to give),
  ``ABANDON`` (the owner's thread is dead), ``FORK`` (this process is a child, and
  the connection belongs to its parent).

So a statement outside a transaction is two events, and two rows of the table
describe its whole lease::

    RELEASED  + STATEMENT -> RUNNING,  do CHECKOUT
    RUNNING  + CLEAN     -> RELEASED,  do CHECKIN

A raw ``BEGIN`` is not a special case: the statement ends, the driver reports an
open transaction, the event is ``TRANSACTION``, and the lease is kept.

Why ``LOST`` is two events and ``BROKEN`` a state
-------------------------------------------------

A lost connection is discarded at once, *unless its owner still relies on it*.
All statements of a transaction run on one connection, which is never silently
replaced. Otherwise the second half of the transaction would run by itself, in
autocommit, on another connection. So a connection that is lost inside a
transaction is kept, each further statement fails on it, and only the owner's
``commit()``, ``rollback()`` or ``close()`` ends the lease.

Release modes
-------------

``STATEMENT_MODE`` is the base table. The other two modes change a few of its rows.
Keep it that way: a mode is data.

So is the audit of session state. An audited lease has the same table, with other
actions where a statement has ended. Nobody else pays for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import IllegalEvent
from .status import TransactionStatus

if TYPE_CHECKING:
    from relet.core.session.audit import SessionAudit
    from relet.core.session.ledger import SessionLedger

    from .adapter import PoolAdapter, PooledConnection


class State(Enum):
    """The states of a lease."""

    # Members are singletons, so a hash by identity is correct. It is also fast:
    # Enum's own runs in Python, which each statement would pay for.
    __hash__ = object.__hash__

    RELEASED = "released"  #: without a connection
    RUNNING = "running"  #: running a statement that began outside a transaction
    HELD = "held"  #: between statements, with a connection kept by a pin or by request
    IN_TRANSACTION = "in transaction"  #: between statements of a transaction
    RUNNING_IN_TRANSACTION = "running in transaction"
    BROKEN = "broken"  #: connection lost, and its transaction not ended yet


class Event(Enum):
    """What can happen to a lease."""

    __hash__ = object.__hash__

    STATEMENT = "statement"
    CONNECT = "connect"
    ENDED = "ended"
    CLOSE = "close"

    CLEAN = "clean"
    DIRTY = "dirty"
    PINNED = "pinned"
    TRANSACTION = "transaction"
    LOST = "lost"
    LOST_IN_USE = "lost in use"

    UNAVAILABLE = "unavailable"
    ABANDON = "abandon"
    FORK = "fork"


class Action(Enum):
    """What the Django layer must do next."""

    __hash__ = object.__hash__

    NOTHING = "nothing"
    CHECKOUT = "checkout"
    CHECKIN = "checkin"
    DISCARD = "discard"
    #: Roll back, close what is open, undo session state.
    RESET_THEN_CHECKIN = "reset, then checkin"
    PIN_CURSOR = "pin the cursor"  #: keep the lease until the cursor closes
    FORGET = "forget"  #: drop the connection without using, resetting or closing it

    # Of an audited lease, in the place of NOTHING, CHECKIN and PIN_CURSOR.
    AUDIT = "audit"  #: compare the session's state with what it was
    AUDIT_THEN_CHECKIN = "audit, then checkin"
    AUDIT_THEN_PIN_CURSOR = "audit, then pin the cursor"


class Hold(IntEnum):
    """Why the client side still needs the connection."""

    NOBODY = 0  #: nothing needs it
    DJANGO = 1  #: an ``atomic()`` block is open
    PIN = 2  #: a server-side cursor, COPY, ``cursor.connection``, ...
    STATE = 3  #: its owner has made session state or opened a ``hold()`` block
    UNDO = 4  #: nothing needs it, but session state has to be undone


_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _UNKNOWN = TransactionStatus

#: (transaction status, hold) -> the event to send.
CONDITIONS: Mapping[tuple[int, int], Event] = MappingProxyType(
    {
        (_IDLE, Hold.NOBODY): Event.CLEAN,
        (_IDLE, Hold.DJANGO): Event.TRANSACTION,
        (_IDLE, Hold.PIN): Event.PINNED,
        (_IDLE, Hold.STATE): Event.PINNED,
        (_IDLE, Hold.UNDO): Event.DIRTY,
        # A command is still running. With a pin, it is COPY or stream(). Without
        # one, a statement was interrupted, and what the server sends next is unknown.
        (_ACTIVE, Hold.NOBODY): Event.LOST,
        (_ACTIVE, Hold.DJANGO): Event.LOST_IN_USE,
        (_ACTIVE, Hold.PIN): Event.PINNED,
        (_ACTIVE, Hold.STATE): Event.LOST_IN_USE,
        (_ACTIVE, Hold.UNDO): Event.LOST,
        (_IN_TRANSACTION, Hold.NOBODY): Event.TRANSACTION,
        (_IN_TRANSACTION, Hold.DJANGO): Event.TRANSACTION,
        (_IN_TRANSACTION, Hold.PIN): Event.TRANSACTION,
        (_IN_TRANSACTION, Hold.STATE): Event.TRANSACTION,
        (_IN_TRANSACTION, Hold.UNDO): Event.TRANSACTION,
        (_IN_ERROR, Hold.NOBODY): Event.TRANSACTION,
        (_IN_ERROR, Hold.DJANGO): Event.TRANSACTION,
        (_IN_ERROR, Hold.PIN): Event.TRANSACTION,
        (_IN_ERROR, Hold.STATE): Event.TRANSACTION,
        (_IN_ERROR, Hold.UNDO): Event.TRANSACTION,
        (_UNKNOWN, Hold.NOBODY): Event.LOST,
        (_UNKNOWN, Hold.DJANGO): Event.LOST_IN_USE,
        (_UNKNOWN, Hold.PIN): Event.LOST_IN_USE,
        # An owner that set up its session must not silently continue in another.
        (_UNKNOWN, Hold.STATE): Event.LOST_IN_USE,
        (_UNKNOWN, Hold.UNDO): Event.LOST,
    }
)

Move = tuple[State, Action]
Table = Mapping[tuple[State, Event], Move]


def _rows(rows: Mapping[State, Mapping[Event, Move]]) -> dict[tuple[State, Event], Move]:
    return {(state, event): move for state, row in rows.items() for event, move in row.items()}


_BASE = _rows(
    {
        State.RELEASED: {
            Event.STATEMENT: (State.RUNNING, Action.CHECKOUT),
            Event.CONNECT: (State.HELD, Action.CHECKOUT),
            Event.ENDED: (State.RELEASED, Action.NOTHING),
            Event.CLOSE: (State.RELEASED, Action.NOTHING),
            Event.ABANDON: (State.RELEASED, Action.NOTHING),
            Event.FORK: (State.RELEASED, Action.NOTHING),
        },
        State.RUNNING: {
            Event.CONNECT: (State.RUNNING, Action.NOTHING),
            Event.CLEAN: (State.RELEASED, Action.CHECKIN),
            Event.DIRTY: (State.RELEASED, Action.RESET_THEN_CHECKIN),
            Event.PINNED: (State.HELD, Action.NOTHING),
            Event.TRANSACTION: (State.IN_TRANSACTION, Action.NOTHING),
            Event.LOST: (State.RELEASED, Action.DISCARD),
            # The hold is checked again when the next statement ends.
            Event.LOST_IN_USE: (State.HELD, Action.NOTHING),
            Event.UNAVAILABLE: (State.RELEASED, Action.NOTHING),
            # A signal handler called close() while a statement was running.
            Event.CLOSE: (State.RELEASED, Action.DISCARD),
            Event.ABANDON: (State.RELEASED, Action.DISCARD),
            Event.FORK: (State.RELEASED, Action.FORGET),
        },
        State.HELD: {
            Event.STATEMENT: (State.RUNNING, Action.NOTHING),
            Event.CONNECT: (State.HELD, Action.NOTHING),
            Event.ENDED: (State.HELD, Action.NOTHING),
            Event.CLEAN: (State.RELEASED, Action.CHECKIN),
            Event.DIRTY: (State.RELEASED, Action.RESET_THEN_CHECKIN),
            Event.PINNED: (State.HELD, Action.NOTHING),
            Event.TRANSACTION: (State.IN_TRANSACTION, Action.NOTHING),
            Event.LOST: (State.RELEASED, Action.DISCARD),
            Event.LOST_IN_USE: (State.HELD, Action.NOTHING),
            Event.UNAVAILABLE: (State.RELEASED, Action.NOTHING),
            Event.CLOSE: (State.RELEASED, Action.RESET_THEN_CHECKIN),
            Event.ABANDON: (State.RELEASED, Action.DISCARD),
            Event.FORK: (State.RELEASED, Action.FORGET),
        },
        State.IN_TRANSACTION: {
            Event.STATEMENT: (State.RUNNING_IN_TRANSACTION, Action.NOTHING),
            Event.CONNECT: (State.IN_TRANSACTION, Action.NOTHING),
            Event.ENDED: (State.HELD, Action.NOTHING),
            Event.CLEAN: (State.RELEASED, Action.CHECKIN),
            Event.DIRTY: (State.RELEASED, Action.RESET_THEN_CHECKIN),
            Event.PINNED: (State.HELD, Action.NOTHING),
            Event.TRANSACTION: (State.IN_TRANSACTION, Action.NOTHING),
            Event.LOST: (State.BROKEN, Action.NOTHING),
            Event.LOST_IN_USE: (State.BROKEN, Action.NOTHING),
            Event.CLOSE: (State.RELEASED, Action.RESET_THEN_CHECKIN),
            Event.ABANDON: (State.RELEASED, Action.DISCARD),
            Event.FORK: (State.RELEASED, Action.FORGET),
        },
        State.RUNNING_IN_TRANSACTION: {
            Event.CONNECT: (State.RUNNING_IN_TRANSACTION, Action.NOTHING),
            Event.CLEAN: (State.RELEASED, Action.CHECKIN),
            Event.DIRTY: (State.RELEASED, Action.RESET_THEN_CHECKIN),
            Event.PINNED: (State.HELD, Action.NOTHING),
            Event.TRANSACTION: (State.IN_TRANSACTION, Action.NOTHING),
            Event.LOST: (State.BROKEN, Action.NOTHING),
            Event.LOST_IN_USE: (State.BROKEN, Action.NOTHING),
            Event.CLOSE: (State.RELEASED, Action.DISCARD),
            Event.ABANDON: (State.RELEASED, Action.DISCARD),
            Event.FORK: (State.RELEASED, Action.FORGET),
        },
        State.BROKEN: {
            # The driver raises its own error for it.
            Event.STATEMENT: (State.RUNNING_IN_TRANSACTION, Action.NOTHING),
            Event.CONNECT: (State.BROKEN, Action.NOTHING),
            # The owner knows that the transaction ended. LOST follows.
            Event.ENDED: (State.HELD, Action.NOTHING),
            # A connection that was lost is never trusted again.
            Event.CLEAN: (State.BROKEN, Action.NOTHING),
            Event.DIRTY: (State.BROKEN, Action.NOTHING),
            Event.PINNED: (State.BROKEN, Action.NOTHING),
            Event.TRANSACTION: (State.BROKEN, Action.NOTHING),
            Event.LOST: (State.BROKEN, Action.NOTHING),
            Event.LOST_IN_USE: (State.BROKEN, Action.NOTHING),
            Event.CLOSE: (State.RELEASED, Action.DISCARD),
            Event.ABANDON: (State.RELEASED, Action.DISCARD),
            Event.FORK: (State.RELEASED, Action.FORGET),
        },
    }
)

#: The lease ends when the statement does.
STATEMENT_MODE: Table = MappingProxyType(_BASE)

#: The lease ends when the last cursor that ran a statement on it is closed.
CURSOR_MODE: Table = MappingProxyType(
    _BASE
    | _rows(
        {
            state: {
                Event.CLEAN: (State.HELD, Action.PIN_CURSOR),
                Event.DIRTY: (State.HELD, Action.PIN_CURSOR),
                Event.PINNED: (State.HELD, Action.PIN_CURSOR),
                Event.TRANSACTION: (State.IN_TRANSACTION, Action.PIN_CURSOR),
            }
            for state in (State.RUNNING, State.RUNNING_IN_TRANSACTION)
        }
    )
)

#: The lease ends with ``close()``, as in Django.
REQUEST_MODE: Table = MappingProxyType(
    _BASE
    | _rows(
        {
            state: {
                Event.CLEAN: (State.HELD, Action.NOTHING),
                Event.DIRTY: (State.HELD, Action.NOTHING),
            }
            for state in (
                State.RUNNING,
                State.HELD,
                State.IN_TRANSACTION,
                State.RUNNING_IN_TRANSACTION,
            )
        }
    )
)

#: Release mode -> its table.
TABLES: Mapping[str, Table] = MappingProxyType(
    {"statement": STATEMENT_MODE, "cursor": CURSOR_MODE, "request": REQUEST_MODE}
)


_AUDITED = {
    Action.NOTHING: Action.AUDIT,
    Action.CHECKIN: Action.AUDIT_THEN_CHECKIN,
    Action.PIN_CURSOR: Action.AUDIT_THEN_PIN_CURSOR,
}


def _audited(table: Table) -> Table:
    """Return *table* with an audit after each statement, and before each checkin."""
    return MappingProxyType(
        {
            (state, event): (
                target,
                _AUDITED.get(action, action)
                if event in (Event.CLEAN, Event.DIRTY, Event.PINNED, Event.TRANSACTION)
                and target is not State.BROKEN
                else action,
            )
            for (state, event), (target, action) in table.items()
        }
    )


#: Release mode -> its table for leases whose session state is audited.
AUDITED_TABLES: Mapping[str, Table] = MappingProxyType(
    {mode: _audited(table) for mode, table in TABLES.items()}
)


class Lease:
    """The lease of one Django wrapper: a state, its pins and, while leased, a connection.

    The Django layer, which performs the actions, sets ``connection`` and ``pool``. Nothing here
    touches them.
    """

    __slots__ = (
        *("__weakref__", "alias", "audit", "call_site", "connection", "leased_at", "pins"),
        *("pool", "session", "shared", "sql", "state", "table", "thread"),
    )

    def __init__(self, alias: str, table: Table = STATEMENT_MODE, thread: int = 0) -> None:
        self.alias = alias
        self.table = table
        #: The thread that uses it, as in `threading.get_ident`; 0 for none.
        self.thread = thread
        self.state = State.RELEASED
        #: Pin -> the driver's object to close with it, or None. Most pins are weak references,
        #: because a pin ends with the cursor that made it. No pin may refer to the wrapper, because
        #: a lease outlives a wrapper that is dropped.
        self.pins: dict[object, Any] = {}
        #: The session state that its owner has made; None for nothing.
        self.session: SessionLedger | None = None
        #: The audit of its session state; None if it is not audited.
        self.audit: SessionAudit | None = None
        #: When its connection was checked out, in seconds of `time.monotonic`.
        self.leased_at = 0.0
        #: Where it was taken, for the error of a checkout that times out. None until it has
        #: outlasted a statement, and empty if the place is unknown.
        self.call_site: Any = None
        #: The statement that runs on its connection, or ran last, in any type that the driver runs.
        self.sql: object = None
        #: Whether threads other than its owner use it.
        self.shared = False
        self.connection: PooledConnection | None = None
        self.pool: PoolAdapter[Any] | None = None

    def send(self, event: Event) -> Action:
        """Make the transition for *event* and return the action to perform.

        :raises IllegalEvent: the event is not possible in this state. Nothing changes.
        """
        try:
            self.state, action = self.table[self.state, event]
        except KeyError:
            raise IllegalEvent(self.alias, self.state.value, event.value) from None
        return action

    def report(self, status: int, in_atomic_block: bool) -> Action:
        """Send the event that `condition` returns, and return the action to perform."""
        if self.pins or self.session is not None:
            return self.send(self.condition(status, in_atomic_block))
        # The same for a lease without pins and session state, inlined because every statement
        # comes through here.
        event = CONDITIONS[status, 1 if in_atomic_block else 0]
        try:
            self.state, action = self.table[self.state, event]
        except KeyError:
            raise IllegalEvent(self.alias, self.state.value, event.value) from None
        return action

    def condition(self, status: int, in_atomic_block: bool) -> Event:
        """Return the event for *status*, the driver's `TransactionStatus`."""
        if self.pins or self.session is not None:
            return CONDITIONS[status, self._hold(in_atomic_block)]
        return CONDITIONS[status, 1 if in_atomic_block else 0]

    def _hold(self, in_atomic_block: bool) -> Hold:
        if self.pins:
            return Hold.PIN
        if self.session is not None and self.session.keeps_lease:
            return Hold.STATE
        return Hold.DJANGO if in_atomic_block else Hold.UNDO

    def clean(self) -> None:
        """Note that no session state is left: it was undone, or the connection is gone."""
        if self.session is not None:
            self.session = self.session.successor()

    def __repr__(self) -> str:
        return f"<Lease {self.alias!r} {self.state.value}, {len(self.pins)} pins>"
