"""The policy engine of relet: leases, policies, and the adapter interface.

It imports neither Django nor any driver or pool.
"""

from __future__ import annotations

from .adapter import PoolAdapter, PoolConfig, PooledConnection, PoolStats
from .deprecated import moved
from .errors import (
    ConfigurationError,
    IllegalEvent,
    MissingDependency,
    PoolTimeout,
    RegistryError,
    ReletError,
    UnknownAdapter,
    UnknownEngine,
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
    "UnknownEngine",
    "hookimpl",
    "registry",
]

__getattr__ = moved(__name__, {name: f"relet:{name}" for name in ("close_all", "hold", "policies")})
