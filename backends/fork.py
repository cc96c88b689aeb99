"""Fork: a child process uses no connection, pool or lock of its parent."""

from __future__ import annotations

from relet.core import registry
from relet.core.fork import at_fork

from .leases import leaks, lifetimes
from .leases.policies import policies
from .observe import collection, durations, signals
from .plans import declared
from .pools import pools


def install() -> None:
    """Make each forked child forget its parent's connections, pools and locks."""
    # Hold the registry's lock across the fork, so that the child never sees plugins half loaded.
    at_fork(
        before=registry.hold_lock,
        after_in_parent=registry.release_lock,
        after_in_child=_in_child,
    )


def _in_child() -> None:
    registry.forked()
    policies.forked()
    collection.forked()
    durations.forked()
    signals.forked()
    leaks.watch.forked()
    declared.forked()
    # Pools first, so that nothing a lease does can reach a pool of the parent.
    pools.forget()
    lifetimes.forget_parent()
