"""Fork: a child process gets no connection, no pool and no lock of its parent's."""

from __future__ import annotations

from relet.core import registry
from relet.core.fork import at_fork

from .leases import lifetimes
from .leases.policies import policies
from .pools import pools


def install() -> None:
    """Have a child forget what is its parent's."""
    # The registry's lock is taken before, so that a child gets plugins whole.
    at_fork(
        before=registry.hold_lock,
        after_in_parent=registry.release_lock,
        after_in_child=_in_child,
    )


def _in_child() -> None:
    registry.forked()
    policies.forked()
    # Pools first: nothing that a lease does is to reach one of the parent's.
    pools.forget()
    lifetimes.forget_parent()
