"""PolicyChoice: chooses the policy of a wrapper's next lease."""

from __future__ import annotations

from relet.backends.config.policy import audit_mode_from_environment
from relet.core import Lease, ReleasePolicy
from relet.core.lease import AUDITED_TABLES, TABLES

from . import leaks
from .policies import Overriding, policies

_NO_STAMP = object()


class PolicyChoice:
    """The policy of the current or last lease, and the sources from which it was chosen.

    The sources tell whether the next lease needs a new choice, because `policies` has changed.
    """

    __slots__ = (
        *("_assigned", "_overrides", "_overriding", "audit_mode"),
        *("policy", "stamp", "trusted_for"),
    )

    def __init__(self) -> None:
        self.policy = ReleasePolicy()
        #: If `policies.stamp` is still this object, nothing has changed.
        self.stamp: object = None
        #: Seconds after its last use for which a connection is used without a check.
        self.trusted_for = self.policy.check_idle
        #: `ReleasePolicy.session_state_audit`, or what the environment or a test says.
        self.audit_mode: str | None = None
        self._assigned: object = None
        self._overrides: object = None
        #: The block that set the policy, if one did.
        self._overriding: Overriding | None = None

    def refresh(self, lease: Lease, settings_policy: ReleasePolicy) -> None:
        """Choose again if the policy may have changed."""
        self.stamp = policies.stamp or _NO_STAMP
        if (
            policies.overrides.get() is not self._overrides
            or policies.assigned is not self._assigned
            or (self._overriding is not None and self._overriding.ended)
        ):
            self.choose(lease, settings_policy)

    def choose(self, lease: Lease, settings_policy: ReleasePolicy) -> None:
        """Choose the policy of *lease*.

        :param settings_policy: the policy to use if code has set none.
        """
        # Without a stamp each lease calls `refresh`. Read first: what follows is not older.
        self.stamp = policies.stamp or _NO_STAMP
        self._overrides, self._assigned = policies.overrides.get(), policies.assigned
        self._overriding = policies.overriding(lease.alias)
        self.policy = policy = policies.from_code(lease.alias) or settings_policy
        audit = policy.session_state_audit or policies.audit_mode or audit_mode_from_environment()
        self.audit_mode = audit or None
        # With retries, check even connections that were used just now: any statement may be a read.
        # For an audit, no connection goes unchecked, because it begins there.
        self.trusted_for = policy.check_idle if policy.retry == "never" and not audit else -1.0
        if not audit and lease.connection is None:
            lease.audit = None
        # An audit that has begun ends with its lease.
        audited = audit or lease.audit is not None
        lease.table = (AUDITED_TABLES if audited else TABLES)[policy.release]
        if policy.leak_after is not None:
            leaks.watch.expect(policy.leak_after)
        if self._overriding is None and lease.pool is not None:
            lease.pool.fairness = policy.fairness
            if lease.pool.definitions is not None and lease.pool.pooled:
                lease.pool.definitions.set_ttl(policy.catalogue_ttl)

    def audit(self, lease: Lease, mode: str) -> None:
        """Have *lease* audited, which has begun already."""
        self.audit_mode = mode
        lease.table = AUDITED_TABLES[self.policy.release]

    def audit_ended(self, lease: Lease) -> None:
        """Choose the table of *lease* again, whose audit has ended."""
        if not self.audit_mode:
            lease.table = TABLES[self.policy.release]
