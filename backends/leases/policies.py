"""The policies of this process, by alias. They can be changed at run time and for a block.

A lease gets its policy when it begins: from the innermost `override` block, else the policy
assigned by code, else the policy in the settings.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal

from relet.backends.config.policy import load_policy
from relet.core import ConfigurationError, ReleasePolicy
from relet.core.locks import locked
from relet.core.policy import check_audit_mode

from . import locator
from .context_decorator import AsyncContextDecorator, Entered, in_thread

_NONE: Mapping[str, ReleasePolicy] = MappingProxyType({})


class Overriding:
    """One entered ``with policies.override()`` of a thread or task."""

    def __init__(self, alias: str, policy: ReleasePolicy, block: object) -> None:
        self.alias, self.policy, self.block = alias, policy, block
        self.owner = locator.current(alias)
        #: Whether any thread has left the block.
        self.ended = False


class Policies:
    """The policies of all aliases. The only instance is ``relet.policies``.

    A change affects the next lease of each thread, never a lease that has begun.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may use policies while this thread holds it.
        self._lock = threading.RLock()
        #: A new object after each change. None while any thread or task is in an `override` block,
        #: because the policy then depends on who asks.
        self.stamp: object = object()
        self._entered: set[Overriding] = set()
        #: Policies that code has assigned, by alias.
        self.assigned: Mapping[str, ReleasePolicy] = _NONE
        #: How leases are audited whose policy does not say so; see `audit`.
        self.audit_mode: str | None = None
        #: The blocks that this thread or task is in, outermost first.
        self.overrides: ContextVar[tuple[Overriding, ...]] = ContextVar(
            "relet.policies.overrides", default=()
        )

    def overriding(self, alias: str) -> Overriding | None:
        """Return the innermost block here that overrides the policy of *alias*, or None."""
        for overriding in reversed(self.overrides.get()):
            if overriding.alias == alias and not overriding.ended:
                return overriding
        return None

    def from_code(self, alias: str) -> ReleasePolicy | None:
        """Return the policy of the innermost block, else the assigned policy, else None."""
        overriding = self.overriding(alias)
        return self.assigned.get(alias) if overriding is None else overriding.policy

    def __getitem__(self, alias: str) -> ReleasePolicy:
        """Return the policy of the next lease for *alias* here.

        :raises ConfigurationError: *alias* has no relet engine.
        """
        return self.from_code(alias) or locator.settings_policy(alias)

    def __setitem__(self, alias: str, policy: ReleasePolicy | Mapping[str, Any] | str) -> None:
        """Assign a policy for all threads. It replaces the policy in the settings.

        :param policy: anything that ``OPTIONS["policy"]`` accepts.
        :raises ConfigurationError: *alias* has no relet engine, or *policy* is not valid.
        """
        locator.check(alias)
        try:
            loaded = load_policy(policy)
        except ConfigurationError as error:
            raise ConfigurationError(f"policies[{alias!r}]: {error}") from error
        locked(self._lock, lambda: self._assign({**self.assigned, alias: loaded}))

    def __delitem__(self, alias: str) -> None:
        """Go back to the policy of the settings.

        :raises ConfigurationError: *alias* has no relet engine.
        """
        if alias not in self.assigned:
            locator.check(alias)

        def others() -> dict[str, ReleasePolicy]:
            return {name: own for name, own in self.assigned.items() if name != alias}

        locked(self._lock, lambda: self._assign(others()))

    def audit(self, mode: str | Literal[False] | None) -> None:
        """Audit the session state of all leases from now on, of all aliases and threads.

        :param mode: as `ReleasePolicy.session_state_audit`. It is for test runners.
        :raises ConfigurationError: *mode* is none of these.
        """
        check_audit_mode("policies.audit", mode)

        def change() -> None:
            self.audit_mode = mode or None
            self._assign(dict(self.assigned))

        locked(self._lock, change)

    def forked(self) -> None:
        """Drop what belongs to the parent's other threads. Called in a forked child."""
        self._lock = threading.RLock()
        self._entered = set(_active(self.overrides.get()))
        self._renew_stamp()

    def _assign(self, assigned: Mapping[str, ReleasePolicy]) -> None:
        self.assigned = MappingProxyType(assigned)
        self._renew_stamp()

    def _renew_stamp(self) -> None:
        self.stamp = None if self._entered else object()

    def enter(self, overriding: Overriding) -> None:
        """Note that *overriding* is in force."""

        def note() -> None:
            self._entered.add(overriding)
            self._renew_stamp()

        locked(self._lock, note)
        self.overrides.set((*_active(self.overrides.get()), overriding))

    def end(self, overriding: Overriding) -> None:
        """Note that *overriding* is no longer in force. Any thread may call this."""

        def note() -> None:
            overriding.ended = True
            self._entered.discard(overriding)
            self._renew_stamp()

        locked(self._lock, note)
        self.overrides.set(_active(self.overrides.get()))

    def override(
        self, alias: str, policy: ReleasePolicy | None = None, /, **changes: Any
    ) -> Override:
        """Use another policy in a block or a decorated function.

        The override affects only this thread or asynchronous task. When the block is left, a lease
        that began inside it gets the outer policy, and ends unless something else keeps it.

        :param alias: the key in ``DATABASES``.
        :param policy: the policy. By default, the policy in force when the block is entered.
        :param changes: fields of the policy to replace.
        :raises ConfigurationError: *alias* has no relet engine, or a value is not valid.

        ::

            with policies.override("default", release="request"):
                ...
        """
        if not isinstance(alias, str):
            raise TypeError(
                f"policies.override() takes an alias, not {alias!r}. Decorate with "
                '@policies.override("default", ...).'
            )
        if policy is not None and not isinstance(policy, ReleasePolicy):
            raise ConfigurationError(
                f"policies.override({alias!r}, ...): {policy!r} is not a ReleasePolicy."
            )
        return Override(self, alias, policy, changes)


class Override(AsyncContextDecorator):
    """The context manager and decorator that `Policies.override` returns."""

    def __init__(
        self,
        policies: Policies,
        alias: str,
        policy: ReleasePolicy | None,
        changes: Mapping[str, Any],
    ) -> None:
        self._policies, self._alias = policies, alias
        self._policy, self._changes = policy, changes
        self._entered: Entered[Overriding] = Entered()

    def __enter__(self) -> ReleasePolicy:
        alias = self._alias
        locator.check(alias)
        try:
            policy = (self._policy or self._policies[alias]).replaced(self._changes)
        except ConfigurationError as error:
            raise ConfigurationError(f"policies.override({alias!r}, ...): {error}") from error
        overriding = Overriding(alias, policy, self)
        try:
            self._entered.add(overriding)
            self._policies.enter(overriding)
        except BaseException:
            self._end(overriding)
            raise
        return policy

    def _leave(self) -> Overriding | None:
        """End the last entry of this thread or task, else of any. Blocks may end out of order."""
        present = reversed(self._policies.overrides.get())
        mine = (entry for entry in present if entry.block is self and not entry.ended)
        if (overriding := next(mine, None) or self._entered.last()) is not None:
            self._end(overriding)
        return overriding

    def _end(self, overriding: Overriding) -> None:
        self._policies.end(overriding)
        self._entered.discard(overriding)

    def __exit__(self, *exc_info: object) -> None:
        if (left := self._leave()) is not None:
            left.owner.on_override_exit(left.policy)

    async def __aenter__(self) -> ReleasePolicy:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        if (left := self._leave()) is not None:
            await in_thread(lambda: locator.current(self._alias).on_override_exit(left.policy))


def _active(overrides: tuple[Overriding, ...]) -> tuple[Overriding, ...]:
    """Return the *overrides* that have not ended."""
    return tuple(entry for entry in overrides if not entry.ended)


policies = Policies()
