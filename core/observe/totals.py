"""Totals: the counts of a whole process, or of several."""

from __future__ import annotations

from .bounded import Bounded
from .counts import PoolCounts, RouteCounts, StatementTotals
from .tally import Batch, Tally

#: How many statements and routes are kept. The rest is in `Bounded.other`.
STATEMENTS, ROUTES = 1_000, 500


class Totals:
    """Counts of statements, routes and pools.

    :ivar statements: by fingerprint.
    :ivar routes: by route.
    :ivar pools: by alias. They are never reset.
    """

    def __init__(self, statements: int = STATEMENTS, routes: int = ROUTES) -> None:
        self.statements: Bounded[StatementTotals] = Bounded(StatementTotals, statements)
        self.routes: Bounded[RouteCounts] = Bounded(RouteCounts, routes)
        self.pools: dict[str, PoolCounts] = {}

    def pool(self, alias: str) -> PoolCounts:
        """Return the counts of *alias*."""
        if (found := self.pools.get(alias)) is None:
            found = self.pools[alias] = PoolCounts()
        return found

    def add_pool(self, tally: Tally) -> None:
        """Add what a thread has counted by alias only."""
        self.pool(tally.alias).merge(tally.pool)

    def add_batch(self, alias: str, batch: Batch) -> None:
        """Add what a thread has counted by route."""
        pool = self.pool(alias)
        with_statements = "statements" not in batch.forgotten
        for tally in list(batch.routes.values()):
            totals = RouteCounts() if "routes" in batch.forgotten else self.routes[tally.route]
            totals.merge(tally.counts)
            # Copied, because the thread goes on counting.
            for fingerprint, counts in list(tally.statements.items()):
                if not counts.calls:
                    continue
                totals.add_statement(counts)
                pool.add_statement(counts)
                if with_statements:
                    statement = self.statements[fingerprint]
                    statement.merge(counts)
                    statement.called_by(tally.route, counts.calls)

    def add_batch_to_pool(self, alias: str, batch: Batch) -> None:
        """Add what a thread has counted by route to the pool, but to no statement and no route."""
        pool = self.pool(alias)
        for tally in list(batch.routes.values()):
            for counts in list(tally.statements.values()):
                if counts.calls:
                    pool.add_statement(counts)

    def merge(self, other: Totals) -> None:
        """Add the counts of *other*."""
        self.statements.merge(other.statements)
        self.routes.merge(other.routes)
        self.merge_pools(other)

    def merge_pools(self, other: Totals) -> None:
        """Add the counts of *other* by pool."""
        for alias, pool in other.pools.items():
            self.pool(alias).merge(pool)
