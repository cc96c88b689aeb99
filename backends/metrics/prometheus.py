"""Prometheus: a collector, which makes the metrics anew each time they are scraped.

The histograms are those that relet has, whose bounds are powers of two.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from relet.backends.observe import collection
from relet.core.observe import Histogram, PoolCounts

from . import names, readings
from .missing import not_installed
from .names import Metric
from .readings import Reading

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

#: The exponents of the buckets' upper bounds: from 61 us to 64 s. They are the same for each
#: scrape, because Prometheus does not count what is in a bucket when it first appears.
_EXPONENTS = range(-14, 7)

_GAUGES: Sequence[tuple[Metric, Callable[[Reading], int | None]]] = (
    (names.IDLE_MAX, lambda pool: pool.max_idle),
    (names.IDLE_MIN, lambda pool: pool.min_idle),
    (names.MAX, lambda pool: pool.max_size),
    (names.PENDING, lambda pool: pool.pending),
)
_COUNTERS: Sequence[tuple[Metric, Callable[[PoolCounts], int]]] = (
    (names.TIMEOUTS, lambda pool: pool.timeouts),
    (names.DISCARDED, lambda pool: pool.discarded),
    (names.RESETS, lambda pool: pool.resets),
)
_HISTOGRAMS: Sequence[tuple[Metric, Callable[[PoolCounts], Histogram]]] = (
    (names.CREATE_TIME, lambda pool: pool.creations),
    (names.WAIT_TIME, lambda pool: pool.waits),
    (names.USE_TIME, lambda pool: pool.uses),
    (names.OPERATION_DURATION, lambda pool: pool.operations),
)


def _name(name: str) -> str:
    """Return the name as Prometheus has it, and as OpenTelemetry's exporters write it."""
    return name.replace(".", "_")


_POOL, _STATE = _name(names.POOL_NAME), _name(names.STATE)

Labels = tuple[str, ...]
Value = TypeVar("Value")


def families(
    pools: Mapping[Labels, Reading],
    counted: Mapping[Labels, PoolCounts],
    labels: Sequence[str] = (_POOL,),
) -> Iterator[Family]:
    """Yield the metrics of pools, each of which has the values of *labels* as its key."""
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    count = GaugeMetricFamily(
        _name(names.COUNT.name), names.COUNT.description, labels=[*labels, _STATE]
    )
    for key, pool in pools.items():
        count.add_metric([*key, "idle"], pool.idle)
        count.add_metric([*key, "used"], pool.used)
    yield count
    for metric, gauged in _GAUGES:
        gauge = GaugeMetricFamily(_name(metric.name), metric.description, labels=labels)
        for key, pool in pools.items():
            if (value := gauged(pool)) is not None:
                gauge.add_metric(key, value)
        yield gauge
    for metric, number in _COUNTERS:
        counter = CounterMetricFamily(_name(metric.name), metric.description, labels=labels)
        for key, counts in counted.items():
            counter.add_metric(key, number(counts))
        yield counter
    for metric, durations in _HISTOGRAMS:
        histogram = HistogramMetricFamily(
            _name(metric.name), metric.description, labels=labels, unit="seconds"
        )
        for key, counts in counted.items():
            found = durations(counts)
            histogram.add_metric(key, _buckets(found), found.total)
        yield histogram


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return (upper bound, how many durations are not above it) for each bucket."""
    found: list[tuple[str, float]] = [
        (str(bound), count) for bound, count in histogram.up_to(_EXPONENTS)
    ]
    return [*found, ("+Inf", histogram.count)]


def _keyed(by_alias: Mapping[str, Value]) -> dict[Labels, Value]:
    return {(alias,): value for alias, value in by_alias.items()}


@cache
def _collector_class() -> type[Collector]:
    from prometheus_client.registry import Collector

    class PoolCollector(Collector):
        """The metrics of this process's pools."""

        def collect(self) -> Iterator[Family]:
            return families(_keyed(readings.read()), _keyed(collection.pools()))

        def describe(self) -> Iterator[Family]:
            return families({}, {})

    return PoolCollector


_collectors: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()


def prometheus(registry: CollectorRegistry | None = None) -> Collector:
    """Export metrics of this process's pools with prometheus_client. Call it once, at any time.

    They have the names of OpenTelemetry's conventions, as OpenTelemetry's exporters write them,
    such as ``db_client_connection_wait_time_seconds``. The label
    ``db_client_connection_pool_name`` is the alias. After a fork, the child's numbers begin at 0.

    In prometheus_client's multiprocess mode, a registry with its ``MultiProcessCollector`` does not
    have them: a scrape sees one process only. `relet.metrics.prometheus_fleet` has all processes.

    :param registry: where to register them; prometheus_client's ``REGISTRY`` by default. A second
        call for the same registry has no effect.
    :return: the collector, for ``registry.unregister()``.
    :raises ImportError: prometheus_client is not installed: it comes with the extra
        ``relet[prometheus]``.
    """
    try:
        from prometheus_client import REGISTRY
    except ImportError as error:
        raise not_installed("prometheus", "prometheus_client", error) from error
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        warnings.warn(
            "PROMETHEUS_MULTIPROC_DIR is set, but prometheus_client's multiprocess mode does "
            "not support collectors such as relet's: a scrape sees the metrics of one process, and "
            "only if that process serves the registry itself.",
            RuntimeWarning,
            stacklevel=2,
        )
    registry = REGISTRY if registry is None else registry
    return register_once(_collectors, _collector_class()(), registry)


def register_once(
    collectors: MutableMapping[CollectorRegistry, Collector],
    collector: Collector,
    registry: CollectorRegistry,
) -> Collector:
    """Register *collector*, unless one of *collectors* is for *registry*; return which it is."""
    if not hasattr(registry, "register"):
        raise TypeError(f"the registry is {registry!r}; it must be a CollectorRegistry.")
    if (known := collectors.get(registry)) is None:
        registry.register(collector)
        collectors[registry] = collector
        return collector
    with suppress(ValueError):  # it is there
        registry.register(known)
    return known
