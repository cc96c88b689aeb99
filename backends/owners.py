"""The owners of leases, for the core: Django's ``connections``. A plugin of relet's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from relet.core import ConfigurationError, ReleasePolicy, hookimpl

if TYPE_CHECKING:
    from relet.core.owners import Owners

Result = TypeVar("Result")


class DjangoOwners:
    """Finds wrappers by alias. Imports Django when it is asked."""

    def check(self, alias: str) -> None:
        from django.conf import settings

        # In settings.py itself, DATABASES is not known yet.
        if settings.configured:
            self.here(alias)

    def policy(self, alias: str) -> ReleasePolicy:
        from .options import release_policy

        wrapper = self.here(alias)
        return release_policy(alias, wrapper.settings_dict, wrapper.adapter_class)

    def here(self, alias: str) -> Any:
        from django.db import connections
        from django.utils.connection import ConnectionDoesNotExist

        from .leasing import Leasing

        try:
            wrapper = connections[alias]
        except ConnectionDoesNotExist as error:
            names = ", ".join(map(repr, connections))
            raise ConfigurationError(
                f"There is no DATABASES[{alias!r}]; there are {names}."
            ) from error
        if not isinstance(wrapper, Leasing):
            engine = connections.settings[alias]["ENGINE"]
            raise ConfigurationError(
                f"DATABASES[{alias!r}]['ENGINE'] is {engine!r}, which leases no connections; "
                "relet's engines are 'relet.backends.<adapter>'."
            )
        return wrapper

    def close_pools(self, timeout: float) -> bool:
        from .pools import pools

        return pools.close_within(timeout)

    def run(self, function: Callable[[], Result]) -> Awaitable[Result]:
        from asgiref.sync import sync_to_async

        return sync_to_async(function, thread_sensitive=True)()


@hookimpl
def relet_owners() -> Owners:
    return DjangoOwners()
