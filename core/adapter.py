"""PoolAdapter: the one interface through which relet talks to a pool and its driver."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from .deprecated import RenamedMethods, warn_renamed
from .errors import pool_timeout
from .outside import from_handler
from .sockets import has_unread_data

if TYPE_CHECKING:
    from types import FrameType

    from relet.core.session.baseline import Baseline

    from .facts import Facts

Driver = TypeVar("Driver")
"""The driver's connection type, such as ``psycopg.Connection``."""


@dataclass(frozen=True)
class PoolConfig:
    """What a pool is made from.

    :param alias: the key in ``DATABASES``; for messages.
    :param connect: keyword arguments of the driver's ``connect()``. Autocommit is not among
        them; it is for the adapter to see to that.
    :param options: the pool's own keyword arguments; ``False`` means no pooling.
    :param configure: to be called once with every new driver connection, in
        autocommit, before it is first handed out.
    :param ask: returns more of such keyword arguments. It is called for each connection: a
        password may be valid for minutes.
    """

    alias: str
    connect: Mapping[str, Any]
    options: Mapping[str, Any] | Literal[False] = field(default_factory=dict)
    configure: Callable[[Any], object] = lambda connection: None
    ask: Callable[[], Mapping[str, Any]] = dict

    def parameters(self) -> dict[str, Any]:
        """Return the keyword arguments of ``connect()`` for one connection, the next.

        It raises whatever a project's function does that is asked.
        """
        return {**self.connect, **self.ask()}


@dataclass(frozen=True)
class PoolStats:
    """A pool at one moment.

    :param min_size: connections the pool keeps open.
    :param max_size: connections it opens at most; ``None`` is no limit.
    :param size: connections it has now, those being opened included.
    :param idle: connections ready to be checked out.
    :param in_use: connections checked out.
    :param waiting: threads waiting for one.
    :param checkouts: checkouts asked for since the pool was opened.
    :param waits: those of them that had to wait.
    :param wait_ms: milliseconds waited, all of them together.
    """

    min_size: int
    max_size: int | None
    size: int
    idle: int
    in_use: int
    waiting: int
    checkouts: int
    waits: int
    wait_ms: int


class PooledConnection:
    """A driver connection, and what relet remembers of it while it lives."""

    __slots__ = ("baseline", "entry", "initialized", "last_used_at", "raw", "tracked_settings")

    def __init__(self, raw: Any, now: float, entry: Any = None) -> None:
        #: The driver's connection.
        self.raw = raw
        #: What the pool itself has for it; for the adapter only.
        self.entry = entry
        #: When it was last known to work, in seconds of `time.monotonic`.
        self.last_used_at = now
        #: Whether ``connection_created`` has been sent for it.
        self.initialized = False
        #: What its session was then; None if nobody looked.
        self.baseline: Baseline | None = None
        #: What the wrappers of a backend such as django-tenants set in it; None is nothing.
        self.tracked_settings: Any = None

    @property
    def proven_at(self) -> float:
        """Deprecated: use `last_used_at`."""
        warn_renamed("PooledConnection.proven_at", "last_used_at")
        return self.last_used_at

    @proven_at.setter
    def proven_at(self, now: float) -> None:
        warn_renamed("PooledConnection.proven_at", "last_used_at")
        self.last_used_at = now

    def __repr__(self) -> str:
        return f"<PooledConnection {self.raw!r}>"


class Slot(Protocol):
    """Where a connection is that is checked out: a lease."""

    connection: PooledConnection | None


class PoolAdapter(RenamedMethods, ABC, Generic[Driver]):
    """One pool. Subclass it once per kind of pool.

    An instance is made when its alias is first used and shared by all threads.
    What it raises when the database is at fault must be the driver's own
    ``OperationalError``, so that Django wraps it as any other; its text should
    name the alias and what to do.
    """

    #: When the pool closes a connection that is older than its maximum lifetime.
    lifetime_enforced: ClassVar[Literal["checkin", "checkout", "never"]]
    #: Whether the pool runs threads of its own (they do not survive a fork).
    has_threads: ClassVar[bool]
    #: Where in ``DATABASES[alias]`` the pool's options are, key by key.
    options_setting: ClassVar[tuple[str, ...]] = ("OPTIONS", "pool")

    #: The options of the pool, as far as they are known: they may be found among the driver's.
    pool_keys: ClassVar[Sequence[str]] = ()

    #: What the pool raises when no connection came free in time, if it has a class for that; a
    #: subclass of the driver's ``OperationalError``.
    timeout_error: ClassVar[type[Exception] | None] = None

    #: Whether the driver keeps messages of the server on a connection, which `drop_notices` drops.
    keeps_notices: ClassVar[bool] = False

    #: Whether `close` has been called.
    closed: bool = False
    #: What `facts` has returned for the newest connection.
    told: Facts | None = None
    #: How many leases have ended with their thread; their connections were discarded.
    abandoned: int = 0
    #: Whether the pool's options ask for what ``CONN_HEALTH_CHECKS`` does.
    health_checks: bool = False
    #: `time.monotonic` of the last time a connection was found broken. Connections
    #: proven before that moment are checked before they are handed out.
    broken_at: float = float("-inf")

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        #: `PoolStats.max_size`, as it was when the pool was made.
        self.max_size: int | None = None
        #: The leases that outlast their statement, and whose they are; whoever leases sees to it.
        self.long_leases: dict[Any, Any] = {}
        #: Tells who has the connections, a line for each, where somebody has waited in vain.
        self.describe_holders: Callable[[], Sequence[str]] = tuple
        #: Whether connections are used again; else `checkin` closes them.
        self.pooled = self.is_pooling(config.options)

    @classmethod
    @abstractmethod
    def check_options(cls, options: Mapping[str, Any] | Literal[False]) -> None:
        """Raise `ConfigurationError` if the pool would not take *options*. No I/O."""

    @classmethod
    def check_connect(cls, parameters: Mapping[str, Any]) -> None:
        """Raise `ConfigurationError` if connections cannot be opened with *parameters*. No I/O.

        It becomes the system check ``relet.E005``. By default, the driver is left to say so.

        :param parameters: what `PoolConfig.connect` will be.
        """

    @classmethod
    def option_warnings(cls, options: Mapping[str, Any]) -> list[str]:
        """Return what is odd about *options* that the pool would take.

        Each of them becomes a warning, ``relet.W001``.
        """
        return []

    @classmethod
    def is_pooling(cls, options: Mapping[str, Any] | Literal[False]) -> bool:
        """Return whether a pool with *options* uses connections again.

        Where it does not, a lease is kept until ``close()`` unless a policy is set, as Django
        does it, and its session need not be restored.
        """
        return options is not False

    @classmethod
    @abstractmethod
    def options_for(cls, *, size: int, timeout: float) -> dict[str, Any]:
        """Return options for a pool that is small and plain, as tests want it.

        :param size: how many connections it has at most.
        :param timeout: seconds that `checkout` waits for one.
        """

    @property
    @abstractmethod
    def native(self) -> Any:
        """The pool itself, for those who know it."""

    @abstractmethod
    def open(self) -> None:
        """Get ready for `checkout`. Called often; only the first call does anything.

        :raises OperationalError: (the driver's) the server cannot be reached, or
            refuses. It is not open then, and may be called again.
        """

    @abstractmethod
    def checkout(self, timeout: float | None = None) -> PooledConnection:
        """Take a connection. It is in autocommit and no transaction is open on it.

        Waiters are served in order. One that times out, or is interrupted by any
        exception, loses no connection.

        :param timeout: seconds; ``None`` is the pool's own.
        :raises OperationalError: (the driver's) none came free in time, or too
            many wait already.
        """

    @abstractmethod
    def checkin(self, connection: PooledConnection) -> None:
        """Give a connection back: clean, in autocommit, no transaction open."""

    @abstractmethod
    def discard(self, connection: PooledConnection) -> None:
        """Close a connection and let the pool replace it. Never raises."""

    @abstractmethod
    def close(self) -> None:
        """Close all idle connections now, those checked out when they come back."""

    @abstractmethod
    def stats(self) -> PoolStats:
        """Count."""

    # What leases call. An exception from outside (a signal handler's, `gevent.Timeout`) may be
    # raised between any two instructions, so also between the return of `checkout` and the
    # assignment of what it returned. An adapter that overrides these three loses nothing even then.

    def checkout_into(self, lease: Slot, timeout: float | None = None) -> None:
        """Check a connection out, and put it at ``lease.connection``, which is None.

        When it raises, whatever is there is checked out; if there is nothing, nothing is.
        """
        lease.connection = self.checkout(timeout)

    def checkin_from(self, lease: Slot) -> None:
        """Check ``lease.connection`` in, and have None there.

        When it raises, whatever is there is still checked out; if there is nothing, the pool
        has it.
        """
        connection: Any = lease.connection
        if self.keeps_notices:
            self.drop_notices(connection.raw)
        try:
            self.checkin(connection)
        except BaseException:
            if connection.raw is None:  # the pool has it
                lease.connection = None
            raise
        lease.connection = None

    def discard_from(self, lease: Slot) -> None:
        """Discard ``lease.connection``, and have None there. If it raises, call it again."""
        connection: Any = lease.connection
        if connection.raw is not None:
            self.discard(connection)
        lease.connection = None

    def exhausted(self, error_class: type[Exception], error: str, cure: str) -> Exception:
        """Return the error that no connection came free in time, a `PoolTimeout`.

        :param error_class: the driver's ``OperationalError``, or the pool's subclass of it.
        :param error: what the pool says: how long was waited.
        :param cure: which of its options to change, as the end of a sentence.
        """
        stats = self.stats()
        held = ""
        try:
            held = "".join(f"\n  {line}" for line in self.describe_holders())
        except Exception as problem:
            # What goes wrong in telling is not to hide what has.
            if from_handler(problem):
                raise
        return pool_timeout(error_class)(  # type: ignore[arg-type]
            f"DATABASES[{self.config.alias!r}]: {error}. {stats.in_use} of {stats.max_size} "
            f"connections are leased and {stats.waiting} threads wait. Look for what holds leases "
            f"(transactions left open, server-side cursors not closed), or {cure}."
            f"{' They are held by' if held else ''}{held}"
        )

    def cannot_connect(self, error: Exception) -> Exception:
        """Return *error*, of the driver's ``connect()``, with whose it was and what can be done."""
        return type(error)(
            f"DATABASES[{self.config.alias!r}]: cannot connect: {str(error).strip()}\n"
            "Check HOST, PORT, NAME, USER, PASSWORD and OPTIONS, and that the server runs and "
            "has connections left."
        )

    # Facts about the driver.

    @abstractmethod
    def transaction_status(self, raw: Driver) -> int:
        """Return the driver's `TransactionStatus`. No round trip."""

    @abstractmethod
    def ping(self, raw: Driver) -> bool:
        """Ask the server whether it still answers on this connection: one round trip."""

    def has_unread_data(self, raw: Driver) -> bool:
        """Return whether the server has sent something unasked. No round trip.

        A server that ends a session says so and closes the connection. So a connection with unread
        data is pinged before it is used. By default this looks at its socket, by ``raw.fileno()``.
        """
        return has_unread_data(raw)

    def execute_internal(self, raw: Driver, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL of relet's own in one round trip; return its rows.

        :param sql: one statement or several, without parameters; not to be prepared. The
            rows of several are not looked at.
        """
        cursor = raw.cursor()  # type: ignore[attr-defined]
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []

    def driver_state(self, raw: Driver) -> object:
        """Return all that a borrower can change of the driver's connection, to be compared.

        Such as the isolation level of its transactions, factories, what values are made by,
        handlers, blocks that are still open, and notifications that nobody has read. relet asks
        when the connection is new and has been configured, and again when a session has been
        restored. If the two are not equal (``==``), the connection is discarded.

        Autocommit is not part of it, because relet sets that back. Nor is anything that changes in
        ordinary use: what the driver makes when it first needs it, and what the server reports.
        Compare objects by identity, because two that are equal may still do different things;
        see `relet.adapters.drivers.attributes`. No round trip.

        :return: None by default, which is always equal.
        """
        return None

    def facts(self, raw: Driver) -> Facts | None:
        """Return what a connection tells of itself, as *raw* does, which is new and at rest.

        Tools look at the connection before each statement. With this, a stand-in answers them
        without a lease, and takes one when the connection is used. No round trip.

        :return: None by default, and each look takes a lease. So it must be where the driver has
            functions, in C, that accept its own connections alone.
        """
        return None

    def is_blocked(self, raw: Driver) -> bool:
        """Return whether whatever the driver does next with the connection would wait for good.

        Such as for a lock that a generator of the driver's holds, which a borrower has left
        half-way. Nothing is run on it then; it is discarded. No round trip. False by default.
        """
        return False

    def is_in_call(self, raw: Driver) -> bool:
        """Return whether this thread is in the middle of a call of the driver's on *raw*.

        A signal handler asks before it closes the connection. What uses the driver's connection
        itself is no statement of relet's, so by default only the stack tells: a method of *raw* is
        looked for there.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_varnames[:1] == ("self",) and frame.f_locals.get("self") is raw:
                return True
            frame = frame.f_back
        return False

    def undo_unseen(self, raw: Driver) -> None:
        """Undo what a borrower can do to the driver's connection, and `driver_state` cannot show.

        Called when a session has been restored. No round trip. By default there is nothing.
        """

    def drop_notices(self, raw: Driver) -> None:
        """Drop the messages of the server that the driver keeps on a connection.

        Called before each checkin, so that nobody reads those of another, if `keeps_notices` says
        that there can be some. No round trip; it raises nothing.
        """

    def is_as_it_was(self, raw: Driver, connection: PooledConnection) -> bool:
        """Return whether `driver_state` of *raw* is what it was when the connection was new."""
        baseline = connection.baseline
        return baseline is None or self.driver_state(raw) == baseline.driver

    @classmethod
    def sql_text(cls, query: Any) -> str:
        """Return the SQL text of *query*, which is whatever the driver's cursor executes."""
        return query.decode(errors="replace") if isinstance(query, bytes) else str(query)

    def boolean_columns(self, cursor: Any) -> Sequence[bool] | None:
        """Return which columns are true, in the only row of the result that *cursor* has.

        It is looked at, and not taken: the owner is to fetch it. So it is known whether
        ``pg_try_advisory_lock()`` got its lock.

        :return: None, here and by default, if that cannot be told.
        """
        return None
