"""The policy engine of relet: leases, policies, and the adapter interface.

Imports neither Django nor a driver nor a pool.
"""

from .adapter import PoolAdapter, PoolConfig, PooledConnection, PoolStats
from .blocks import hold
from .closing import close_all
from .effects import Kind
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
from .policies import policies
from .policy import ReleasePolicy
from .registry import registry
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
    "close_all",
    "hold",
    "hookimpl",
    "policies",
    "registry",
]
