"""Leaks: logs leases that are older than `ReleasePolicy.leak_after`.

A thread looks at them, and sleeps until the next one could become too old. So statements pay
nothing, and nothing runs unless a policy asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import fields
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from relet.core import Lease
from relet.core.background import RepeatedCall
from relet.core.sql.fingerprint import one_line

from . import lifetimes
from .policies import policies

if TYPE_CHECKING:
    from .snapshot import ConnectionRow

logger = logging.getLogger("relet")

#: How often, in seconds, a lease is looked at that was logged, to log its end.
_AFTERWARDS_S = 1.0
#: Seconds between two looks, at least, however small `leak_after` is.
_LEAST_S = 0.1


class _Logged(NamedTuple):
    """A lease that was logged, as it was then."""

    lease: Lease
    leased_at: float
    leak_after: float
    row: ConnectionRow

    @property
    def lasts(self) -> bool:
        return self.lease.connection is not None and self.lease.leased_at == self.leased_at


class LeakWatch:
    """Looks for leases that are too old. The only instance is `watch`."""

    def __init__(self) -> None:
        self._logged: dict[Lease, _Logged] = {}
        self._looks = RepeatedCall(lambda: self.look(monotonic()))
        #: Note that a lease may now become too old in so many seconds.
        self.expect = self._looks.within

    def forked(self) -> None:
        """Begin anew in a forked child, which has no such thread."""
        self.__init__()  # type: ignore[misc]

    def look(self, now: float) -> float | None:
        """Log what is to be logged; return the seconds until the next look, None for none.

        :param now: in seconds of `time.monotonic`.
        """
        for logged in list(self._logged.values()):
            if not logged.lasts:
                del self._logged[logged.lease]
                _log_end(logged, now)
        left = [_AFTERWARDS_S] if self._logged else []
        for runner, leak_after in _watched():
            lease: Lease = runner.lease
            # Only a lease that has outlasted a statement has a call site.
            if lease.connection is None or lease.call_site is None:
                left.append(leak_after)
            elif lease not in self._logged:
                if (due := lease.leased_at + leak_after - now) > 0:
                    left.append(due)
                else:
                    self._log(runner, lease, leak_after)
                    left.append(_AFTERWARDS_S)
        return max(_LEAST_S, min(left)) if left else None

    def _log(self, runner: Any, lease: Lease, leak_after: float) -> None:
        pool, leased_at = lease.pool, lease.leased_at
        if pool is None:
            return
        # Not at the top: few processes ever log one.
        from .snapshot import Snapshot, format_stacks

        with Snapshot() as snapshot:
            row = snapshot.row(runner, lease, pool)
        logged = _Logged(lease, leased_at, leak_after, row)
        if logged.lasts:
            self._logged[lease] = logged
            logger.warning(
                "DATABASES[%r]: a connection has been leased for %.1f s, longer than leak_after "
                "(%g s). It has been %s for %.1f s (%s). Last SQL: %s\n%s",
                *(row.alias, row.leased_seconds, leak_after, row.state, row.seconds),
                *(_owner(row), row.sql, format_stacks(row)),
                extra=_extra(row),
            )


def _watched() -> Iterator[tuple[Any, float]]:
    """Yield the runners whose policy has a `leak_after`, with it."""
    for runner in lifetimes.runners():
        handle = runner.handle
        if handle is None or handle.pool.closed:
            continue
        policy = runner.choice.policy
        if runner.lease.connection is None:
            # That of its last lease, perhaps of an override. The next one may have another, and
            # calls `expect` then.
            policy = policies.assigned.get(runner.lease.alias) or handle.policy
        if policy.leak_after is not None:
            yield runner, policy.leak_after


def _log_end(logged: _Logged, now: float) -> None:
    row = logged.row
    logger.info(
        "DATABASES[%r]: the connection that was leased for longer than leak_after (%g s) was given "
        "back after about %.1f s (%s).",
        *(row.alias, logged.leak_after, now - logged.leased_at, _owner(row)),
        extra={**_extra(row), "relet_leased_seconds": now - logged.leased_at},
    )


def _owner(row: ConnectionRow) -> str:
    parts = [
        None if row.route is None else f"route {one_line(row.route)}",
        None if row.task is None else f"task {row.task!r}",
        "a thread that has ended" if row.thread is None else f"thread {row.thread!r}",
        None if row.pid is None else f"pid {row.pid}",
    ]
    return ", ".join(part for part in parts if part is not None)


def _extra(row: ConnectionRow) -> dict[str, Any]:
    """Return the fields of *row* for structured logs."""
    names = (field.name for field in fields(row))
    return {f"relet_{name}": getattr(row, name) for name in names}


watch = LeakWatch()
