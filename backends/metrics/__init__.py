"""Metrics: what happens in pools, for OpenTelemetry and Prometheus; see `relet.metrics`.

The names are OpenTelemetry's.
https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
"""
