"""Owners: who has leases. The core asks for them, the Django layer answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from .policy import ReleasePolicy

Result = TypeVar("Result")


class Owner(Protocol):
    """What has the leases of one alias in one thread: Django's ``DatabaseWrapper``.

    `let_go` and `overridden` may be called by any thread, at any moment. Where that is not the
    owner's, between two statements, they take effect when the owner's statement has ended.
    """

    def hold(self, block: object) -> None:
        """Keep one connection, from the next statement on, until `let_go`."""

    def let_go(self, block: object) -> None:
        """End the `hold` of *block*. With the last, session state is undone and the lease ends."""

    def overridden(self, policy: ReleasePolicy) -> None:
        """A block that overrode the policy by *policy* is left."""


class Owners(Protocol):
    """Finds owners by alias."""

    def check(self, alias: str) -> None:
        """Raise `ConfigurationError` if *alias* has no relet engine."""

    def policy(self, alias: str) -> ReleasePolicy:
        """Return the policy that the settings of *alias* have."""

    def here(self, alias: str) -> Any:
        """Return the `Owner` for *alias* in this thread."""

    def close_pools(self, timeout: float) -> bool:
        """Close all pools within *timeout* seconds; return whether all of them are closed."""

    def run(self, function: Callable[[], Result]) -> Awaitable[Result]:
        """Run *function* in the thread where synchronous code of this task runs."""
