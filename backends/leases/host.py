"""Host: the part of Django's ``DatabaseWrapper`` that leases use, as a protocol.

The protocol keeps `relet.backends.leases` from importing the wrapper.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import tzinfo
from typing import Any, ClassVar, Protocol

from relet.core import PoolAdapter

#: Attributes that Django's connect() resets. They are restored after a new connection was
#: initialized, during which the wrapper is as it is outside an atomic block.
DJANGO_STATE = (
    "atomic_blocks",
    "autocommit",
    "closed_in_transaction",
    "commit_on_exit",
    "errors_occurred",
    "in_atomic_block",
    "needs_rollback",
    "rollback_exc",
    "run_commit_hooks_on_set_autocommit_on",
    "run_on_commit",
    "savepoint_ids",
    "savepoint_state",
)


class Host(Protocol):
    """The attributes and methods of ``DatabaseWrapper`` that leases use."""

    adapter_class: ClassVar[type[PoolAdapter[Any]]]
    alias: str
    settings_dict: dict[str, Any]
    autocommit: bool
    in_atomic_block: bool
    atomic_blocks: list[Any]
    Database: Any
    ops: Any
    _thread_ident: int
    __dict__: dict[str, Any]

    @property
    def timezone(self) -> tzinfo | None: ...
    @property
    def timezone_name(self) -> str: ...
    @property
    def wrap_database_errors(self) -> AbstractContextManager[Any]: ...

    def check_settings(self) -> None: ...
    def close(self) -> None: ...
    def connect(self) -> None: ...
    def create_cursor(self, name: str | None = None) -> Any: ...
    def ensure_connection(self) -> None: ...
    def get_connection_params(self) -> dict[str, Any]: ...
    def validate_thread_sharing(self) -> None: ...

    # Added by relet.

    makes_drivers_cursors: bool
    makes_plain_cursors: bool
    tells_facts: bool

    @property
    def _in_transaction(self) -> bool: ...

    def begin_session(self) -> None:
        """Reset the wrapper's state as Django's connect() does, if it is not connected."""

    def forked(self, in_transaction: bool) -> None:
        """Drop the transaction of the parent. Called in a forked child, which has no lease."""
