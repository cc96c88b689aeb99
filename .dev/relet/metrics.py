"""Metrics of the pools of this process, for OpenTelemetry and Prometheus.

Each has an extra, ``relet[opentelemetry]`` and ``relet[prometheus]``, and is imported by its
function only.
"""

from relet.backends.metrics.open_telemetry import opentelemetry
from relet.backends.metrics.prometheus import prometheus

__all__ = ["opentelemetry", "prometheus"]
