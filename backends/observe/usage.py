"""Usage: what a thread does with the connections of one alias, from some moment on."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from relet.core.observe import RouteTally, StatementCounts

from . import collection
from .kept import ObservedLease, Trace


class _Statement(NamedTuple):
    """The counts of a statement at one moment."""

    calls: float = 0
    inner: float = 0
    rows: float = 0
    errors: float = 0
    waited: float = 0.0
    total: float = 0.0
    inner_total: float = 0.0

    @classmethod
    def of(cls, counts: StatementCounts) -> _Statement:
        return cls(*(getattr(counts, name) for name in cls._fields))

    def plus(self, other: _Statement, sign: int = 1) -> _Statement:
        return _Statement(*(mine + sign * more for mine, more in zip(self, other, strict=True)))


_NOTHING = _Statement()


class _Route(NamedTuple):
    """The counts of a route at one moment."""

    leases: float
    held: float
    ran: float
    statements: Mapping[str, _Statement]

    @classmethod
    def of(cls, tally: RouteTally) -> _Route:
        counts = tally.counts
        statements = {
            text: _Statement.of(each)
            for text, each in list(tally.statements.items())
            if each.calls  # those that are new may be half counted
        }
        return cls(counts.leases, counts.held, counts.ran, statements)


class Usage:
    """What this thread does with the connections of a wrapper, from now on.

    :param wrapper: a ``DatabaseWrapper`` of relet's.
    """

    def __init__(self, wrapper: Any) -> None:
        self._alias: str = wrapper.alias
        self._runner = wrapper._runner
        self._observed = isinstance(self._runner.lease, ObservedLease)
        self._tally = collection.here(self._alias)
        # A tally may drop its routes in between, so they are kept with their counts.
        self._before = [
            (route, _Route.of(route)) for route in list(self._tally.batch.routes.values())
        ]
        #: The lease that is kept from before, with the times that it had until now.
        self._kept_before = self._kept()

    def measure(self) -> dict[str, Any]:
        """Return what was done until now, ready for JSON. All times are in seconds.

        ``leases`` were ended, but for one if ``kept`` is true; they were ``held`` for so long;
        statements ``ran``, and ``waited`` for a connection; ``idle`` is the time for which leases
        were held and no statement ran. ``statements`` has what each statement did, without its
        values.
        """
        if not self._observed:
            return {"alias": self._alias, "observed": False}
        trace, held, ran = self._kept()
        _, held_before, ran_before = self._kept_before
        # A lease that has ended meanwhile was counted with the times that it had before.
        held, ran = held - held_before, ran - ran_before
        kept = trace is not None
        leases: float = int(kept)
        waited = 0.0
        statements: dict[str, _Statement] = {}
        for before, now in self._routes():
            leases += now.leases - before.leases
            held += now.held - before.held
            ran += now.ran - before.ran
            for text, counts in now.statements.items():
                change = counts.plus(before.statements.get(text, _NOTHING), -1)
                if not change.calls:
                    continue
                alone = change.total - change.inner_total
                leases += change.calls - change.inner
                held += alone
                ran += alone
                waited += change.waited
                statements[text] = change.plus(statements.get(text, _NOTHING))
        return {
            "alias": self._alias,
            "observed": True,
            "leases": leases,
            "kept": kept,
            "waited": waited,
            "held": held,
            "ran": ran,
            "idle": max(0.0, held - ran),
            "statements": [
                {
                    "sql": text,
                    "calls": counts.calls,
                    "leases": counts.calls - counts.inner,
                    "rows": counts.rows,
                    "errors": counts.errors,
                    "waited": counts.waited,
                    "ran": counts.total,
                }
                for text, counts in sorted(statements.items(), key=lambda item: -item[1].total)
            ],
        }

    def _routes(self) -> list[tuple[_Route, _Route]]:
        """Return the counts of each route: as they were, and as they are."""
        known = {id(route) for route, _ in self._before}
        new = [route for route in list(self._tally.batch.routes.values()) if id(route) not in known]
        nothing = _Route(0, 0.0, 0.0, {})
        found = [(before, _Route.of(route)) for route, before in self._before]
        return found + [(nothing, _Route.of(route)) for route in new]

    def _kept(self) -> tuple[Trace | None, float, float]:
        """Return the trace and the times of the lease that has not ended, if there is one."""
        lease = self._runner.lease
        trace = lease.trace if self._observed and lease.connection is not None else None
        if trace is None:
            return None, 0.0, 0.0
        return trace, monotonic() - lease.leased_at, trace.ran
