"""The policy engine of relet: leases, policies, and the adapter interface.

Imports neither Django nor a driver nor a pool.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from .adapter import PoolAdapter, PoolConfig, PooledConnection, PoolStats
from .errors import (
    ConfigurationError,
    IllegalEvent,
    MissingDependency,
    PoolTimeout,
    RegistryError,
    ReletError,
    UnknownAdapter,
)
from .facts import Facts
from .hookspecs import AdapterSpec, hookimpl
from .lease import Action, Event, Lease, State
from .policy import ReleasePolicy
from .registry import registry
from .sql.effects import Kind
from .status import TransactionStatus

__all__ = [
    "Action",
    "AdapterSpec",
    "ConfigurationError",
    "Event",
    "Facts",
    "IllegalEvent",
    "Kind",
    "Lease",
    "MissingDependency",
    "PoolAdapter",
    "PoolConfig",
    "PoolStats",
    "PoolTimeout",
    "PooledConnection",
    "RegistryError",
    "ReleasePolicy",
    "ReletError",
    "State",
    "TransactionStatus",
    "UnknownAdapter",
    "hookimpl",
    "registry",
]

#: Names that were here, and are public names of `relet` itself now.
_MOVED = ("close_all", "hold", "policies")


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"relet.core.{name} is deprecated and will be removed in the next version: "
        f"use relet.{name}.",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module("relet"), name)
