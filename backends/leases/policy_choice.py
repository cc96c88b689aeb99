"""PolicyChoice: which policy the next lease of a wrapper has."""

from __future__ import annotations

from relet.core import Lease, ReleasePolicy
from relet.core.lease import TABLES

from .policies import Overriding, policies

_NO_STAMP = object()


class PolicyChoice:
    """The policy of the present lease, or of the last one, and what it was chosen from.

    It is chosen when a lease begins: `policies` may have changed since the last one.
    """

    __slots__ = ("_assigned", "_overrides", "_overriding", "policy", "stamp", "trusted_for")

    def __init__(self) -> None:
        self.policy = ReleasePolicy()
        #: As long as `policies.stamp` is this, nothing has changed.
        self.stamp: object = None
        #: For how many seconds after its last use a connection is taken to work.
        self.trusted_for = self.policy.check_idle
        self._assigned: object = None
        self._overrides: object = None
        #: The block that the policy is of, if it is a block's.
        self._overriding: Overriding | None = None

    def refresh(self, lease: Lease, settings_policy: ReleasePolicy) -> None:
        """Choose again, if the policy may be another than the last one."""
        if (
            policies.overrides.get() is not self._overrides
            or policies.assigned is not self._assigned
            or (self._overriding is not None and self._overriding.over)
        ):
            self.choose(lease, settings_policy)

    def choose(self, lease: Lease, settings_policy: ReleasePolicy) -> None:
        """Choose the policy of *lease*.

        :param settings_policy: that of the settings, for when code has assigned none.
        """
        # Without a stamp, overrides are in use, and each lease looks for them.
        self.stamp = policies.stamp or _NO_STAMP
        self._overrides, self._assigned = policies.overrides.get(), policies.assigned
        self._overriding = policies.overriding(lease.alias)
        self.policy = policy = policies.from_code(lease.alias) or settings_policy
        # Each statement may be one that is to be retried; what was just used is never idle.
        self.trusted_for = policy.check_idle if policy.retry == "never" else -1.0
        lease.table = TABLES[policy.release]
