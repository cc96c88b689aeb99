"""Counts: what is counted for each statement, route and pool. All times are in seconds."""

from __future__ import annotations

from math import frexp

from .histogram import SIZE, Histogram, add_buckets, quantile

#: What one call counts for beside its seconds, when it is decided which texts and routes are kept.
_CALL_S = 0.0001


class StatementCounts:
    """The calls of one statement.

    :ivar errors: how often it failed.
    :ivar unsent: how often no connection came for it. It never ran then, so it is in no bucket.
    :ivar rows: rows returned or changed.
    :ivar total: seconds for which it ran. Waiting for a connection is not included.
    :ivar maximum: the longest of these times.
    :ivar waited: seconds for which it waited for a connection.
    :ivar inner: the number of `calls` that were no lease of their own, because the connection was
        kept from before or for afterwards.
    :ivar inner_total: the part of `total` that belongs to `inner`.
    :ivar buckets: see `Histogram`.
    """

    __slots__ = (
        *("buckets", "credit", "errors", "inner", "inner_total"),
        *("maximum", "rows", "total", "unsent", "waited"),
    )

    def __init__(self) -> None:
        self.errors = self.rows = self.inner = self.unsent = 0
        self.total = self.maximum = self.waited = self.inner_total = 0.0
        self.buckets = [0] * SIZE
        #: See `Bounded`.
        self.credit = 0.0

    def add(self, seconds: float, rows: int) -> None:
        """Count a call that was a lease of its own. `ObservedCursor` has this inlined."""
        self.total += seconds
        if seconds > self.maximum:
            self.maximum = seconds
        self.buckets[frexp(seconds)[1]] += 1
        if rows > 0:
            self.rows += rows

    def add_inner(self, seconds: float, rows: int) -> None:
        """Count a call that was no lease of its own."""
        self.inner += 1
        self.inner_total += seconds
        self.add(seconds, rows)

    @property
    def calls(self) -> int:
        """How often it was run, with and without success, or was to be run."""
        return sum(self.buckets) + self.unsent

    @property
    def mean(self) -> float:
        """Seconds for one call on average, of those that ran."""
        ran = sum(self.buckets)
        return self.total / ran if ran else 0.0

    @property
    def p95(self) -> float:
        """Seconds that 95 % of the calls that ran do not exceed."""
        return quantile(self.buckets, 0.95, self.maximum)

    @property
    def weight(self) -> float:
        """What decides whether it is kept; see `Bounded`."""
        return self.credit + self.total + self.calls * _CALL_S

    def merge(self, other: StatementCounts) -> None:
        """Add the calls of *other*."""
        self.errors += other.errors
        self.unsent += other.unsent
        self.rows += other.rows
        self.inner += other.inner
        self.inner_total += other.inner_total
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)
        self.waited += other.waited
        add_buckets(self.buckets, other.buckets)


#: How many routes are kept for each statement.
_TOP_ROUTES = 10


class StatementTotals(StatementCounts):
    """The calls of one statement in the whole process.

    :ivar calls: how often it was run, with and without success, or was to be run.
    :ivar calls_by_route: for the routes that ran it most. A route that took the place of another
        one has its calls, too.
    """

    __slots__ = ("calls", "calls_by_route")

    calls: int

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0  # kept, because its readers sort by it
        self.calls_by_route: dict[str, int] = {}

    @property
    def route(self) -> str:
        """The route that ran it most; empty if it is unknown."""
        routes = self.calls_by_route
        return max(routes, key=routes.__getitem__) if routes else ""

    def merge(self, other: StatementCounts) -> None:
        super().merge(other)
        self.calls += other.calls
        if isinstance(other, StatementTotals):
            for route, calls in other.calls_by_route.items():
                self.called_by(route, calls)

    def called_by(self, route: str, calls: int) -> None:
        """Note that *route* ran it *calls* times."""
        routes = self.calls_by_route
        if route not in routes and len(routes) >= _TOP_ROUTES:
            # See `Bounded`. Else a route whose calls arrive a few at a time would never stay.
            calls += routes.pop(min(routes, key=routes.__getitem__))
        routes[route] = routes.get(route, 0) + calls


class RouteCounts:
    """The leases of one route.

    :ivar leases: how many ended.
    :ivar waited: seconds for which its statements waited for a connection.
    :ivar held: seconds for which its leases lasted.
    :ivar ran: seconds for which statements ran in them.
    :ivar longest: the longest lease.
    :ivar blocked: seconds for which others waited because of its leases.
    """

    __slots__ = ("blocked", "credit", "held", "leases", "longest", "ran", "waited")

    def __init__(self) -> None:
        self.leases = 0
        self.waited = self.held = self.ran = self.longest = self.blocked = self.credit = 0.0

    @property
    def idle(self) -> float:
        """Seconds for which its leases lasted while no statement ran."""
        return max(0.0, self.held - self.ran)

    @property
    def weight(self) -> float:
        """What decides whether it is kept; see `Bounded`."""
        return self.credit + self.held + self.waited + self.leases * _CALL_S

    def add_lease(self, held: float, ran: float) -> None:
        """Count a lease that has ended."""
        self.leases += 1
        self.held += held
        self.ran += ran
        if held > self.longest:
            self.longest = held

    def add_statement(self, counts: StatementCounts) -> None:
        """Count the calls of a statement, of which most were leases of their own."""
        seconds = counts.total - counts.inner_total
        self.waited += counts.waited
        if (leases := counts.calls - counts.inner) > 0:
            self.leases += leases
            self.held += seconds
            self.ran += seconds
            self.longest = max(self.longest, counts.maximum)

    def merge(self, other: RouteCounts) -> None:
        """Add the leases of *other*."""
        self.leases += other.leases
        self.waited += other.waited
        self.held += other.held
        self.ran += other.ran
        self.longest = max(self.longest, other.longest)
        self.blocked += other.blocked


class PoolCounts:
    """What happened in the pools of one alias. It is never reset.

    :ivar operations: how long statements ran.
    :ivar waits: how long threads waited for a connection; only those that had to wait.
    :ivar uses: how long leases lasted that outlasted a statement.
    :ivar creations: how long it took to open a connection.
    :ivar timeouts: how often no connection came free in time.
    :ivar discarded: connections that were closed instead of returned, because they were lost or
        could not be restored.
    :ivar resets: how often session state was undone before a connection was returned.
    """

    __slots__ = (*("creations", "discarded", "operations", "resets", "timeouts", "uses", "waits"),)

    def __init__(self) -> None:
        self.operations, self.waits = Histogram(), Histogram()
        self.uses, self.creations = Histogram(), Histogram()
        self.timeouts = self.discarded = self.resets = 0

    @property
    def created(self) -> int:
        """How many connections were opened."""
        return self.creations.count

    def merge(self, other: PoolCounts) -> None:
        """Add the counts of *other*."""
        self.operations.merge(other.operations)
        self.waits.merge(other.waits)
        self.uses.merge(other.uses)
        self.creations.merge(other.creations)
        self.timeouts += other.timeouts
        self.discarded += other.discarded
        self.resets += other.resets

    def add_statement(self, counts: StatementCounts) -> None:
        """Count the calls of a statement."""
        operations = self.operations
        operations.total += counts.total
        operations.maximum = max(operations.maximum, counts.maximum)
        add_buckets(operations.buckets, counts.buckets)
