"""Names: the metrics, with their units and what they mean."""

from __future__ import annotations

from typing import NamedTuple

POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
SYSTEM = "db.system.name"
POSTGRESQL = "postgresql"


class Metric(NamedTuple):
    """A metric.

    :param unit: as in UCUM; one in braces is only a comment.
    """

    name: str
    unit: str
    description: str


COUNT = Metric(
    "db.client.connection.count", "{connection}", "Connections of the pool, by their state."
)
IDLE_MAX = Metric(
    "db.client.connection.idle.max", "{connection}", "Connections that may be idle in the pool."
)
IDLE_MIN = Metric(
    "db.client.connection.idle.min", "{connection}", "Connections that the pool keeps open."
)
MAX = Metric("db.client.connection.max", "{connection}", "Connections that the pool may have.")
PENDING = Metric(
    "db.client.connection.pending_requests", "{request}", "Threads that wait for a connection."
)
TIMEOUTS = Metric(
    "db.client.connection.timeouts", "{timeout}", "How often no connection came free in time."
)
CREATE_TIME = Metric(
    "db.client.connection.create_time", "s", "How long it took to open a connection."
)
WAIT_TIME = Metric(
    "db.client.connection.wait_time", "s", "How long threads waited, of those that had to wait."
)
USE_TIME = Metric(
    "db.client.connection.use_time", "s", "How long leases lasted that outlasted a statement."
)
OPERATION_DURATION = Metric("db.client.operation.duration", "s", "How long statements ran.")

# relet's own.
DISCARDED = Metric(
    "relet.connection.discarded", "{connection}", "Connections that were closed, not given back."
)
RESETS = Metric(
    "relet.connection.resets", "{reset}", "How often session state was undone before a return."
)
OPERATIONS = Metric("relet.operations", "{operation}", "Statements that ran.")
OPERATION_TIME = Metric("relet.operation.time", "s", "How long all statements together ran.")
