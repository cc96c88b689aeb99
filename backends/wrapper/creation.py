"""Test databases: no session may be connected while they are cloned or dropped.

https://docs.djangoproject.com/en/stable/topics/testing/overview/#the-test-database
"""

from __future__ import annotations

from typing import Any

from relet.backends.pools import pools
from relet.backends.typing import CreationBase


class PooledCreation(CreationBase):
    """A mixin for the backend's ``DatabaseCreation``: closes pools first."""

    def _clone_test_db(self, *args: Any, **kwargs: Any) -> None:
        self._close_pools(self.connection.settings_dict["NAME"])
        super()._clone_test_db(*args, **kwargs)

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        self._close_pools(test_database_name)
        super()._destroy_test_db(test_database_name, verbosity)

    def _close_pools(self, name: str) -> None:
        pools.close_database(self.connection.settings_dict, name)
