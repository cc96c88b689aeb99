"""Metrics of the pools of this process, or of the fleet, for OpenTelemetry and Prometheus.

Each has an extra, ``relet[opentelemetry]`` and ``relet[prometheus]``, and is imported by its
function only.
"""

from relet.backends.metrics.open_telemetry import opentelemetry
from relet.backends.metrics.prometheus import prometheus
from relet.dashboard.prometheus import prometheus_fleet

__all__ = ["opentelemetry", "prometheus", "prometheus_fleet"]
