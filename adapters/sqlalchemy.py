"""SQLAlchemy's QueuePool, with connections of the driver that Django picks."""

from __future__ import annotations

from relet.adapters.drivers.default import Driver

from .queue_pool import QueuePoolAdapter

__all__ = ["SQLAlchemyAdapter"]


class SQLAlchemyAdapter(Driver, QueuePoolAdapter):
    """A pool of SQLAlchemy's, with connections of the driver that Django picks."""
