"""Counters of statements, routes, waits and leases.

Nothing here does I/O, reads a clock or knows threads: time is an argument.

How to read them
================

``relet.backends.observe.collection.totals()`` returns a `Totals`, merged from what all threads have
counted so far:

* ``totals.statements``: iterate over it for pairs of (fingerprint, `StatementTotals`); ``.other``
  has what did not fit.
* ``totals.routes``: the same for pairs of (route, `RouteCounts`).
* ``totals.pools``: alias -> `PoolCounts`. These only ever grow, as exporters of metrics expect.

A `Histogram` has `~Histogram.count`, ``total`` and `~Histogram.cumulative`, which is what
Prometheus and OpenTelemetry want. All times are in seconds.

How they are written
====================

Each thread has a `Tally` for each alias, and is the only one that writes to it. So counting takes
no lock. When a thread ends, or has counted more than it may keep, its counts are added to those of
the process. When counts are reset, they are marked; each thread then begins anew by itself.
"""

from .bounded import Bounded
from .contention import Contention
from .counts import PoolCounts, RouteCounts, StatementCounts, StatementTotals
from .histogram import Histogram
from .tally import Batch, RouteTally, Tally
from .totals import Totals

__all__ = [
    "Batch",
    "Bounded",
    "Contention",
    "Histogram",
    "PoolCounts",
    "RouteCounts",
    "RouteTally",
    "StatementCounts",
    "StatementTotals",
    "Tally",
    "Totals",
]
