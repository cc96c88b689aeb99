"""The policies of this process: by alias, changeable at run time, and for a block.

The policy of a lease is chosen when it begins: that of the innermost `override` block, else
what was assigned from code, else that of the settings.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from relet.backends.config.policy import load_policy
from relet.core import ConfigurationError, ReleasePolicy

from . import locator
from .context_decorator import AsyncContextDecorator, Entered, in_thread

_NONE: Mapping[str, ReleasePolicy] = MappingProxyType({})


class Overriding:
    """One ``with policies.override()``, as its thread, or task, has it."""

    def __init__(self, alias: str, policy: ReleasePolicy, block: object) -> None:
        self.alias, self.policy, self.block = alias, policy, block
        self.owner = locator.current(alias)
        #: Whether the block has been left, in whatever thread.
        self.over = False


class Policies:
    """The policies of all aliases. There is one: ``relet.backends.leases.policies``.

    A change is seen by the next lease of each thread, never by one that has begun.
    """

    def __init__(self) -> None:
        self._assigning = threading.Lock()
        #: Another object whenever a policy is assigned; None since there was an `override`.
        self.stamp: object = object()
        #: Assigned from code.
        self.assigned: Mapping[str, ReleasePolicy] = _NONE
        #: Of the blocks that this thread, or task, is in.
        self.overrides: ContextVar[tuple[Overriding, ...]] = ContextVar(
            "relet.policies.overrides", default=()
        )

    def overriding(self, alias: str) -> Overriding | None:
        """Return the innermost block that overrides the policy of *alias* here, if there is one."""
        for overriding in reversed(self.overrides.get()):
            if overriding.alias == alias and not overriding.over:
                return overriding
        return None

    def from_code(self, alias: str) -> ReleasePolicy | None:
        """Return the policy of the innermost block, or that which is assigned, if there is one."""
        overriding = self.overriding(alias)
        return self.assigned.get(alias) if overriding is None else overriding.policy

    def __getitem__(self, alias: str) -> ReleasePolicy:
        """Return the policy of the next lease for *alias* here.

        :raises ConfigurationError: *alias* has no relet engine.
        """
        return self.from_code(alias) or locator.settings_policy(alias)

    def __setitem__(self, alias: str, policy: ReleasePolicy | Mapping[str, Any] | str) -> None:
        """Assign a policy, for all threads, in place of that of the settings.

        :param policy: what ``OPTIONS["policy"]`` can be.
        :raises ConfigurationError: *alias* has no relet engine, or this is no policy.
        """
        locator.check(alias)
        try:
            loaded = load_policy(policy)
        except ConfigurationError as error:
            raise ConfigurationError(f"policies[{alias!r}]: {error}") from error
        with self._assigning:
            self._assign({**self.assigned, alias: loaded})

    def __delitem__(self, alias: str) -> None:
        """Go back to the policy of the settings."""
        with self._assigning:
            self._assign({name: own for name, own in self.assigned.items() if name != alias})

    def forked(self) -> None:
        """In a child: the thread that was assigning, if one was, is not here."""
        self._assigning = threading.Lock()

    def _assign(self, assigned: Mapping[str, ReleasePolicy]) -> None:
        self.assigned = MappingProxyType(assigned)
        if self.stamp is not None:
            self.stamp = object()

    def override(
        self, alias: str, policy: ReleasePolicy | None = None, /, **changes: Any
    ) -> Override:
        """Have another policy for a block, or a function that it decorates.

        It is that of this thread, or asynchronous task, only. When the block is left, a lease
        that has begun inside it goes on with the policy outside of it, and so ends if
        nothing else keeps it.

        :param alias: the key in ``DATABASES``.
        :param policy: the policy; by default, that which there is when the block is entered.
        :param changes: values in which it differs.
        :raises ConfigurationError: *alias* has no relet engine, or a value is wrong.

        ::

            with policies.override("default", release="request"):
                ...
        """
        if policy is not None and not isinstance(policy, ReleasePolicy):
            raise ConfigurationError(
                f"policies.override({alias!r}, ...): {policy!r} is no ReleasePolicy."
            )
        return Override(self, alias, policy, changes)


class Override(AsyncContextDecorator):
    """What `Policies.override` returns."""

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
        self._policies.stamp = None
        overrides = self._policies.overrides
        overriding = Overriding(alias, policy, self)
        try:
            self._entered.add(overriding)
            overrides.set((*_going_on(overrides.get()), overriding))
        except BaseException:
            self._end(overriding)
            raise
        return policy

    def _leave(self) -> Overriding | None:
        """End what was entered last: here, or else elsewhere. Blocks may end out of order."""
        present = reversed(self._policies.overrides.get())
        mine = (entry for entry in present if entry.block is self and not entry.over)
        if (overriding := next(mine, None) or self._entered.last()) is not None:
            self._end(overriding)
        return overriding

    def _end(self, overriding: Overriding) -> None:
        overriding.over = True
        self._entered.discard(overriding)
        overrides = self._policies.overrides
        overrides.set(_going_on(overrides.get()))

    def __exit__(self, *exc_info: object) -> None:
        if (left := self._leave()) is not None:
            left.owner.on_override_exit(left.policy)

    async def __aenter__(self) -> ReleasePolicy:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        if (left := self._leave()) is not None:
            await in_thread(lambda: locator.current(self._alias).on_override_exit(left.policy))


def _going_on(overrides: tuple[Overriding, ...]) -> tuple[Overriding, ...]:
    """Return *overrides* without those that are over."""
    return tuple(entry for entry in overrides if not entry.over)


policies = Policies()
