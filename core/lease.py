"""The lease: which connection a Django wrapper has, and when it goes back.

This file owns every transition. It does no I/O, reads no clock, and imports
neither Django nor a driver: the Django layer *feeds events* and *performs the
actions* it gets in return.

How to read it
==============

A lease is in one of six states. What moves it are events, of three kinds:

* what the owner does: ``STATEMENT`` (one is about to run, or another call of the
  driver's that uses the connection: a fetch from the server, a COMMIT), ``CONNECT``
  (the connection itself is asked for), ``ENDED`` (``commit()`` or ``rollback()`` has
  been called; it counts also when the call failed), ``CLOSE``;
* what was found when something had run. This is the *condition* of the lease,
  and it is read off the driver's own transaction status, never guessed:
  ``CLEAN``, ``DIRTY``, ``PINNED``, ``TRANSACTION``, ``LOST``, ``LOST_IN_USE``;
* what happens from outside: ``UNAVAILABLE`` (the pool had no connection to
  give), ``ABANDON`` (the owner's thread is dead), ``FORK`` (this process is a
  child and the connection is its parent's).

So a statement outside a transaction is two events, and the whole of a statement
lease can be read in two lines of the table::

    RELEASED  + STATEMENT -> RUNNING,  do CHECKOUT
    RUNNING  + CLEAN     -> RELEASED,  do CHECKIN

A raw ``BEGIN`` is no special case: the statement ends, the driver says a
transaction is open, the event is ``TRANSACTION``, and the lease is kept.

Why ``LOST`` is two events and ``BROKEN`` a state
-------------------------------------------------

A lost connection is thrown away at once, *unless somebody still relies on it*.
All statements of one transaction run on one connection, which is never silently
replaced: if it were, the second half of a transaction would run, alone and in
autocommit, on another connection. So a connection that is lost inside a
transaction is kept, each further statement fails on it, and only the owner's
``commit()``, ``rollback()`` or ``close()`` ends it.

Release modes
-------------

``STATEMENT_MODE`` is the table; the two other modes are that table with a few
rows changed. Keep it so: a mode is data.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import IllegalEvent
from .status import TransactionStatus

if TYPE_CHECKING:
    from relet.core.session.ledger import SessionLedger

    from .adapter import PoolAdapter, PooledConnection


class State(Enum):
    """Where a lease stands."""

    # Members are singletons, so identity is a correct hash, and a fast one:
    # Enum's own is computed in Python and would be paid for each statement.
    __hash__ = object.__hash__

    RELEASED = "released"  #: no connection
    RUNNING = "running"  #: a statement runs; no transaction was open before it
    HELD = "held"  #: between statements, connection kept for a pin or on request
    IN_TRANSACTION = "in transaction"  #: between statements of a transaction
    RUNNING_IN_TRANSACTION = "running in transaction"
    BROKEN = "broken"  #: connection lost; the transaction on it is not ended yet


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
    """What the Django layer is to do next."""

    __hash__ = object.__hash__

    NOTHING = "nothing"
    CHECKOUT = "checkout"
    CHECKIN = "checkin"
    DISCARD = "discard"
    #: Roll back, close what is open, undo session state.
    RESET_THEN_CHECKIN = "reset, then checkin"
    PIN_CURSOR = "pin the cursor"  #: the lease is to last until the cursor closes
    FORGET = "forget"  #: drop the reference; do not use, reset or close


class Hold(IntEnum):
    """Who, beside the server, still needs the connection."""

    NOBODY = 0
    DJANGO = 1  #: an ``atomic()`` block is open
    PIN = 2  #: a server-side cursor, COPY, ``cursor.connection``, ...
    STATE = 3  #: its owner, who has made session state or opened a ``hold()`` block
    UNDO = 4  #: nobody, but session state is to be undone


_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _UNKNOWN = TransactionStatus

#: (transaction status, who needs it) -> the condition to report.
CONDITIONS: Mapping[tuple[int, int], Event] = MappingProxyType(
    {
        (_IDLE, Hold.NOBODY): Event.CLEAN,
        (_IDLE, Hold.DJANGO): Event.TRANSACTION,
        (_IDLE, Hold.PIN): Event.PINNED,
        (_IDLE, Hold.STATE): Event.PINNED,
        (_IDLE, Hold.UNDO): Event.DIRTY,
        # A command is still under way. With a pin that is COPY or stream() at
        # work; without one a statement was interrupted and nobody knows what
        # the server will send next.
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
        # Who has set the session up must not go on, unawares, in another.
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
            # Whoever needs it is asked again when the next statement ends.
            Event.LOST_IN_USE: (State.HELD, Action.NOTHING),
            Event.UNAVAILABLE: (State.RELEASED, Action.NOTHING),
            # close() under a running statement comes from a signal handler.
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
            # The driver refuses it, in its own words.
            Event.STATEMENT: (State.RUNNING_IN_TRANSACTION, Action.NOTHING),
            Event.CONNECT: (State.BROKEN, Action.NOTHING),
            # The owner has seen the end of the transaction; LOST follows.
            Event.ENDED: (State.HELD, Action.NOTHING),
            # Once in doubt, never trusted again.
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


class Lease:
    """One Django wrapper's lease: a state, its pins and, while leased, a connection.

    ``connection`` and ``pool`` are put there, and taken away, by the layer that
    performs the actions; nothing here touches them.
    """

    __slots__ = (
        *("__weakref__", "alias", "call_site", "connection", "leased_at", "pins", "pool"),
        *("session", "shared", "sql", "state", "table", "thread"),
    )

    def __init__(self, alias: str, table: Table = STATEMENT_MODE, thread: int = 0) -> None:
        self.alias = alias
        self.table = table
        #: The thread that uses it, see `threading.get_ident`; 0 is none.
        self.thread = thread
        self.state = State.RELEASED
        #: What keeps it, and what of the driver's is to be closed with it, if anything. Most are
        #: weak references: a pin ends with the cursor that has made it. None may refer to the
        #: wrapper, for a lease outlives a wrapper that is dropped.
        self.pins: dict[object, Any] = {}
        #: What its owner has left in the session; None is nothing.
        self.session: SessionLedger | None = None
        #: When its connection was taken, in seconds of `time.monotonic`.
        self.leased_at = 0.0
        #: Where it was taken, for whoever waits; None until it has outlasted a statement, and
        #: empty if nobody knows.
        self.call_site: Any = None
        #: The statement that runs on its connection, or ran last. What it is, the driver knows.
        self.sql: object = None
        #: Whether threads other than its owner use it.
        self.shared = False
        self.connection: PooledConnection | None = None
        self.pool: PoolAdapter[Any] | None = None

    def send(self, event: Event) -> Action:
        """Take *event*, move on, and return what is to be done.

        An event that has no meaning in this state raises `IllegalEvent` and
        changes nothing.
        """
        try:
            self.state, action = self.table[self.state, event]
        except KeyError:
            raise IllegalEvent(self.alias, self.state.value, event.value) from None
        return action

    def report(self, status: int, in_atomic_block: bool) -> Action:
        """Take the event that `condition` finds, and return what is to be done."""
        if self.pins or self.session is not None:
            return self.send(self.condition(status, in_atomic_block))
        # The same, for what most statements leave behind, and for all of them.
        event = CONDITIONS[status, 1 if in_atomic_block else 0]
        try:
            self.state, action = self.table[self.state, event]
        except KeyError:
            raise IllegalEvent(self.alias, self.state.value, event.value) from None
        return action

    def condition(self, status: int, in_atomic_block: bool) -> Event:
        """Return the event that *status*, the driver's transaction status, means."""
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
        """The connection is gone, or its session is as it was: nothing is left in it."""
        if self.session is not None:
            self.session = self.session.successor()

    def __repr__(self) -> str:
        return f"<Lease {self.alias!r} {self.state.value}, {len(self.pins)} pins>"
