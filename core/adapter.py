"""PoolAdapter: the interface through which relet uses a pool and its driver."""

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

    from relet.core.budget import Budget
    from relet.core.session.baseline import Baseline

    from .facts import Facts

Driver = TypeVar("Driver")
"""The driver's connection type, such as ``psycopg.Connection``."""


@dataclass(frozen=True)
class PoolConfig:
    """The configuration of a pool.

    :param alias: the key in ``DATABASES``, for messages.
    :param connect: keyword arguments for the driver's ``connect()``. They do not include
        autocommit, which the adapter must turn on.
    :param options: the pool's own keyword arguments. ``False`` means no pooling.
    :param configure: call it once with each new driver connection, in autocommit, before the
        connection is first handed out.
    :param ask: returns further keyword arguments for ``connect()``. It is called for each new
        connection, because a password may be valid for only a few minutes.
    :param budget: the connections that this pool shares with others; None for no limit but its own.
    """

    alias: str
    # Not in the repr, which reports of errors show: the password is in it, or what asks for it.
    connect: Mapping[str, Any] = field(repr=False)
    options: Mapping[str, Any] | Literal[False] = field(default_factory=dict)
    configure: Callable[[Any], object] = lambda connection: None
    ask: Callable[[], Mapping[str, Any]] = field(default=dict, repr=False)
    budget: Budget | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the keyword arguments of ``connect()`` for the next connection.

        The project's own functions, which `ask` may call, can raise any exception.
        """
        return {**self.connect, **self.ask()}


@dataclass(frozen=True)
class PoolStats:
    """The numbers of a pool at one moment.

    :param min_size: connections that the pool keeps open.
    :param max_size: connections that it opens at most; ``None`` means no limit.
    :param size: connections that it has now, including those being opened.
    :param idle: connections ready to be checked out.
    :param in_use: connections checked out.
    :param waiting: threads waiting for a connection.
    :param checkouts: checkouts requested since the pool was opened.
    :param waits: checkouts that had to wait.
    :param wait_ms: milliseconds waited by all checkouts together.
    :param max_idle: connections that it keeps at most; ``None`` means `max_size`.
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
    max_idle: int | None = None


class PooledConnection:
    """A driver connection, and what relet knows about it while it is open."""

    __slots__ = (
        *("__weakref__", "baseline", "entry", "initialized", "last_used_at", "lent", "raw"),
        "tracked_settings",
    )

    def __init__(self, raw: Any, now: float, entry: Any = None) -> None:
        #: The driver's connection.
        self.raw = raw
        #: The pool's own object for the connection. Only the adapter uses it.
        self.entry = entry
        #: When it was last known to work, in seconds of `time.monotonic`.
        self.last_used_at = now
        #: Whether Django's signal ``connection_created`` has been sent for it.
        self.initialized = False
        #: The state of its session at that time; None if it was not read.
        self.baseline: Baseline | None = None
        #: Whether other code has taken it from the pool itself, for adapters that have to note it.
        self.lent = False
        #: What a backend such as django-tenants has set in the session; None for nothing.
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
    """A place for a connection that is checked out, such as a lease."""

    connection: PooledConnection | None


class PoolAdapter(RenamedMethods, ABC, Generic[Driver]):
    """A pool. Write one subclass for each kind of pool.

    An instance is created when its alias is first used, and is shared by all threads. If the
    database is at fault, raise the driver's own ``OperationalError``, which Django wraps like any
    other. Its text should name the alias and say what to do.
    """

    #: The keys that lead to the pool's options in ``DATABASES[alias]``.
    options_setting: ClassVar[tuple[str, ...]] = ("OPTIONS", "pool")

    #: The known names of the pool's options, to recognize one that is among the driver's options.
    pool_keys: ClassVar[Sequence[str]] = ()

    #: The error that the pool raises when no connection became free in time, if it has its own
    #: class for that: a subclass of the driver's ``OperationalError``.
    timeout_error: ClassVar[type[Exception] | None] = None

    #: Whether the driver collects the server's messages on a connection. `drop_notices` drops them.
    keeps_notices: ClassVar[bool] = False

    #: Whether `close` has been called.
    closed: bool = False
    #: The result of `facts` for the newest connection.
    known_facts: Facts | None = None
    #: How many leases ended because their thread did. Their connections were discarded.
    abandoned: int = 0
    #: Whether the pool's options ask for the same as ``CONN_HEALTH_CHECKS``.
    health_checks: bool = False
    #: When a connection was last found broken, in seconds of `time.monotonic`. A connection last
    #: used before that is checked before it is handed out.
    broken_at: float = float("-inf")
    #: When a statement last failed because the server was a standby, in seconds of
    #: `time.monotonic`. A connection to a standby that was last used before that is replaced.
    standby_at: float = float("-inf")
    #: Where threads wait for a connection, if that is in order: an object with a `fairness` in
    #: seconds, such as `relet.adapters.semaphore.FairSemaphore`. The adapter sets it.
    fair_queue: Any = None
    #: The `relet.core.plans.PlanBook`; None if nothing is prepared. `prepare_targets` sets it.
    plans: Any = None
    #: The pool's part in its budget; None if it has none. The adapter sets it.
    permits: Any = None

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        #: `PoolStats.max_size` when the pool was created.
        self.max_size: int | None = None
        #: The leases that outlast their statement, and their holders. The Django layer fills it.
        self.long_leases: dict[Any, Any] = {}
        #: Returns a line about each holder of a connection, for the error of a checkout that timed
        #: out. The Django layer sets it.
        self.describe_holders: Callable[[], Sequence[str]] = tuple
        #: Called when no connection came free in time. An observer sets it.
        self.on_timeout: Callable[[], object] = tuple
        #: What is known of the functions and triggers of its database. The Django layer sets it.
        self.definitions: Any = None
        #: Whether connections are reused. If not, `checkin` closes them.
        self.pooled = self.is_pooling(config.options)

    @property
    def fairness(self) -> float:
        """`ReleasePolicy.fairness`, as `fair_queue` has it; 0 if there is none."""
        return 0.0 if self.fair_queue is None else float(self.fair_queue.fairness)

    @fairness.setter
    def fairness(self, seconds: float) -> None:
        if self.fair_queue is not None:
            self.fair_queue.fairness = seconds

    @classmethod
    @abstractmethod
    def check_options(cls, options: Mapping[str, Any] | Literal[False]) -> None:
        """Raise `ConfigurationError` if *options* are not valid for the pool. No I/O."""

    @classmethod
    def check_connect(cls, parameters: Mapping[str, Any]) -> None:
        """Raise `ConfigurationError` if *parameters* are not valid for the driver. No I/O.

        The error becomes the system check ``relet.E005``. The default checks nothing, so the driver
        raises its own error when it connects.

        :param parameters: the future `PoolConfig.connect`.
        """

    @classmethod
    def option_warnings(cls, options: Mapping[str, Any]) -> list[str]:
        """Return warnings about *options* that are valid but look like mistakes.

        Each becomes a system check ``relet.W001``.
        """
        return []

    @classmethod
    def is_pooling(cls, options: Mapping[str, Any] | Literal[False]) -> bool:
        """Return whether a pool with *options* reuses connections.

        If it does not, a lease lasts until ``close()`` unless a policy is set, as in Django, and
        its session need not be restored.
        """
        return options is not False

    @classmethod
    def can_share_budget(cls, options: Mapping[str, Any] | Literal[False]) -> bool:
        """Return whether a pool with *options* can have a `PoolConfig.budget`.

        False by default: a thread that finds the budget spent has to wait like any other, until a
        connection comes back or another process closes one.
        """
        return False

    @classmethod
    def min_size_of(cls, options: Mapping[str, Any] | Literal[False]) -> int:
        """Return `PoolStats.min_size` of a pool with *options*. No I/O."""
        return 0

    @classmethod
    @abstractmethod
    def options_for(cls, *, size: int, timeout: float) -> dict[str, Any]:
        """Return options for a small pool without extras, for tests.

        :param size: the maximum number of connections.
        :param timeout: seconds that `checkout` waits for a connection.
        """

    @property
    @abstractmethod
    def native(self) -> Any:
        """The pool object that this adapter wraps."""

    @abstractmethod
    def open(self) -> None:
        """Open the pool. Further calls do nothing once it is open.

        :raises OperationalError: (the driver's) the server cannot be reached, or refuses. The pool
            is not open then, and `open` may be called again.
        """

    @abstractmethod
    def checkout(self, timeout: float | None = None) -> PooledConnection:
        """Return a connection, in autocommit and with no transaction open.

        Waiters are served in order. A waiter that times out or is interrupted by an exception does
        not lose a connection.

        :param timeout: seconds; ``None`` means the pool's own timeout.
        :raises OperationalError: (the driver's) no connection became free in time, or too many
            threads are waiting already.
        """

    @abstractmethod
    def checkin(self, connection: PooledConnection) -> None:
        """Give back a connection that is clean, in autocommit and has no transaction open."""

    @abstractmethod
    def discard(self, connection: PooledConnection) -> None:
        """Close a connection and let the pool replace it. This never raises."""

    @abstractmethod
    def close(self) -> None:
        """Close all idle connections now, and each of the others when it is given back."""

    @abstractmethod
    def stats(self) -> PoolStats:
        """Return the pool's numbers at this moment."""

    # Leases call these three. A signal handler or a `gevent.Timeout` may raise an exception between
    # any two instructions, even between the return of `checkout` and the assignment of its result.
    # An adapter that overrides these methods does not lose the connection even then.

    def checkout_into(self, lease: Slot, timeout: float | None = None) -> None:
        """Check a connection out and assign it to ``lease.connection``, which is None before.

        If this raises, ``lease.connection`` is checked out, or None if nothing was checked out.
        """
        lease.connection = self.checkout(timeout)

    def checkin_from(self, lease: Slot) -> None:
        """Check ``lease.connection`` in and set it to None.

        If this raises, ``lease.connection`` is still checked out, or None if the pool has it back.
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
        """Discard ``lease.connection`` and set it to None. If this raises, call it again."""
        connection: Any = lease.connection
        if connection.raw is not None:
            self.discard(connection)
        lease.connection = None

    def exhausted(self, error_class: type[Exception], error: str, cure: str) -> Exception:
        """Return a `PoolTimeout`: no connection became free in time.

        :param error_class: the driver's ``OperationalError``, or the pool's subclass of it.
        :param error: the pool's message, with the time that was waited.
        :param cure: which options to change, as the end of a sentence.
        """
        self.on_timeout()
        stats = self.stats()
        held = ""
        try:
            held = "".join(f"\n  {line}" for line in self.describe_holders())
        except Exception as problem:
            # A failure to describe the holders must not hide the timeout.
            if from_handler(problem):
                raise
        return pool_timeout(error_class)(  # type: ignore[arg-type]
            f"DATABASES[{self.config.alias!r}]: {error}. {stats.in_use} of {stats.max_size} "
            f"connections are leased, and {stats.waiting} threads are waiting. Look for leases "
            f"kept too long (open transactions, unclosed server-side cursors), or {cure}."
            f"{' Current holders:' if held else ''}{held}"
            f"{'' if self.permits is None else self.permits.describe()}"
        )

    def watch_waits(
        self, began: Callable[[object], object], ended: Callable[[object], object]
    ) -> None:
        """Call *began* when a thread begins to wait for a connection, and *ended* when it stops.

        Each is called in that thread, with an object that identifies the wait. If something is
        raised meanwhile, *ended* may be called twice. By default,
        `fair_queue` does it, if it is a `FairSemaphore` or another
        `relet.adapters.fair_queue.FairQueue`. Otherwise reports do not show how long threads wait.
        """
        if (watch := getattr(self.fair_queue, "watch", None)) is not None:
            watch(began, ended)

    def cannot_connect(self, error: Exception) -> Exception:
        """Return *error*, from the driver's ``connect()``, with the alias and what to check."""
        return type(error)(
            f"DATABASES[{self.config.alias!r}]: cannot connect: {str(error).strip()}\n"
            "Check HOST, PORT, NAME, USER, PASSWORD and OPTIONS, and that the server is running "
            "and below its max_connections."
        )

    # Facts about the driver.

    def new_cursor(self, raw: Driver) -> Any:
        """Return what ``raw.cursor()`` returns. Called for every statement."""
        return raw.cursor()  # type: ignore[attr-defined]

    @classmethod
    def cannot_prepare(cls) -> str:
        """Return why the driver cannot prepare statements, as the end of a sentence; "" if it can.

        An adapter that overrides `prepare_targets` overrides this, too.
        """
        return "its driver does not prepare statements"

    def prepare_targets(self, book: Any) -> None:
        """Have cursors that `new_cursor` returns from now on prepare the targets of *book*.

        It is a `relet.core.plans.PlanBook`.

        Called at most once for a pool, and only if targets are declared for its alias or found by
        themselves. Set `plans`; a statement of a pool without targets must not pay for them.
        """
        raise NotImplementedError(self.cannot_prepare())

    @abstractmethod
    def transaction_status(self, raw: Driver) -> int:
        """Return the driver's `TransactionStatus`. No round trip."""

    def backend_pid(self, raw: Driver) -> int | None:
        """Return the process id of the server's session, for reports. No round trip.

        The default finds it where psycopg, psycopg2 and many others have it, in
        ``raw.info.backend_pid``.

        :return: None if it is not known.
        """
        try:
            pid = raw.info.backend_pid  # type: ignore[attr-defined]
        except Exception as error:  # such as of a closed connection
            if from_handler(error):
                raise
            return None
        return pid if isinstance(pid, int) and pid > 0 else None

    @abstractmethod
    def ping(self, raw: Driver) -> bool:
        """Return whether the server still answers on this connection. One round trip."""

    def is_standby(self, raw: Driver) -> bool:
        """Return whether the server says that it is a standby. No round trip.

        PostgreSQL 14 and newer report it by themselves. The default finds it where psycopg,
        psycopg2 and many others have it, in ``raw.info.parameter_status()``.
        """
        try:
            return raw.info.parameter_status("in_hot_standby") == "on"  # type: ignore[attr-defined, no-any-return]
        except Exception as error:  # such as of a closed connection
            if from_handler(error):
                raise
            return False

    def has_unread_data(self, raw: Driver) -> bool:
        """Return whether an idle connection has data to read. No round trip.

        A server that ends a session sends a message and closes the connection, so a connection with
        unread data is pinged before it is used. The default checks the socket, ``raw.fileno()``.
        """
        return has_unread_data(raw)

    def execute_internal(self, raw: Driver, sql: str) -> list[tuple[Any, ...]]:
        """Run relet's own SQL in one round trip and return its rows.

        :param sql: one or more statements without parameters. They must not be prepared. If there
            are several, the caller ignores the rows.
        """
        cursor = raw.cursor()  # type: ignore[attr-defined]
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []

    def begin_transaction(self, raw: Driver, sql: str) -> None:
        """Begin a transaction, as the driver would before a statement, and run *sql* in it.

        Called for ``OPTIONS["tag"]``. The default relies on the driver to begin by itself, which is
        a round trip of its own. A driver that can should send ``BEGIN``, with the modes that are
        set on *raw*, and *sql* in one message.

        :param raw: an idle connection that is not in autocommit.
        :param sql: as in `execute_internal`.
        """
        self.execute_internal(raw, sql)

    def driver_state(self, raw: Driver) -> object:
        """Return everything that a user of the driver's connection can change about it.

        Examples are the isolation level, factories, type adapters, handlers, open blocks, and
        unread notifications. relet calls this once a new connection is configured, and again when
        its session has been restored. If the two results are not equal (``==``), it discards the
        connection.

        Leave out autocommit, which relet resets itself, and whatever changes in ordinary use, such
        as caches that the driver fills on demand, or parameters that the server reports. Compare
        objects by identity, because two equal objects may still behave differently; see
        `relet.adapters.drivers.attributes`. No round trip.

        :return: None by default, which is always equal.
        """
        return None

    def facts(self, raw: Driver) -> Facts | None:
        """Return the facts about the pool's connections, read from *raw*, a new idle one.

        Some tools read attributes of the connection before each statement. With facts, a stand-in
        answers them without a lease, and takes one only when the connection is used. No round trip.

        :return: None by default, so each such read takes a lease. Keep this default if the driver
            has C functions that accept only its own connection objects.
        """
        return None

    def is_blocked(self, raw: Driver) -> bool:
        """Return whether the next call of the driver on this connection would deadlock.

        For example, an unfinished generator of the driver may hold the connection's lock. Such a
        connection is discarded, and nothing is run on it. No round trip. False by default.
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
        """Undo changes to the driver's connection that `driver_state` cannot show.

        Called when a session has been restored. No round trip. The default does nothing.
        """

    def forget_prepared(self, raw: Driver) -> None:
        """Forget the statements that the driver itself has prepared, which may be gone.

        Called before a session is restored in which code may have run ``DEALLOCATE ALL``. No round
        trip. The default does nothing.
        """

    def drop_notices(self, raw: Driver) -> None:
        """Drop the server's messages that the driver has collected on a connection.

        Called before each checkin if `keeps_notices` is set, so that the next user does not read
        messages meant for this one. No round trip. This never raises.
        """

    def is_as_it_was(self, raw: Driver, connection: PooledConnection) -> bool:
        """Return whether `driver_state` of *raw* is the same as when the connection was new."""
        baseline = connection.baseline
        return baseline is None or self.driver_state(raw) == baseline.driver

    @classmethod
    def sql_text(cls, query: Any) -> str:
        """Return the SQL text of *query*, which is anything that the driver's cursor executes."""
        return query.decode(errors="replace") if isinstance(query, bytes) else str(query)

    @classmethod
    def function_name(cls, name: Any) -> str:
        """Return how the driver's ``cursor.callproc()`` writes *name* in SQL."""
        return str(name)

    def boolean_columns(self, cursor: Any) -> Sequence[bool] | None:
        """Return which columns are true in the only row of the result of *cursor*.

        relet needs it to know whether ``pg_try_advisory_lock()`` got its lock. Read the row without
        fetching it, because the user is going to fetch it.

        :return: None if that is not possible. This is the default.
        """
        return None
