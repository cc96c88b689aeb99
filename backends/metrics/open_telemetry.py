"""OpenTelemetry: instruments whose values are read when an exporter collects them.

To record one value costs more than a lease. So the numbers come from the counts that relet has
anyway, and OpenTelemetry asks for them. It has no such instruments for histograms: their values are
queued, and recorded by the thread that collects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from relet.backends.observe import collection, durations
from relet.core.observe import PoolCounts

from . import names, readings
from .missing import not_installed
from .names import Metric
from .readings import Reading

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

#: In seconds; those of ``db.client.operation.duration`` in OpenTelemetry's conventions.
_BOUNDARIES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
#: Durations that wait to be recorded. If nobody collects them, the oldest are dropped.
_QUEUED = 10_000
#: How many durations of a kind are recorded in one collection: it takes 5 us for each.
_HISTOGRAMS = {
    "creations": names.CREATE_TIME,
    "waits": names.WAIT_TIME,
    "uses": names.USE_TIME,
}

Values = Iterator[tuple[float, Mapping[str, str]]]


class _Exporter:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        self._queue = durations.follow(_QUEUED)
        meter = provider.get_meter("relet", version("relet"))
        gauge, counter = meter.create_observable_up_down_counter, meter.create_observable_counter
        self._histograms = {
            kind: meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=_BOUNDARIES,
            )
            for kind, metric in _HISTOGRAMS.items()
        }

        def observe(make: Callable[..., Any], metric: Metric, values: Callable[[], Values]) -> None:
            make(metric.name, [_callback(values)], metric.unit, metric.description)

        observe(gauge, names.COUNT, self._count)
        observe(gauge, names.IDLE_MAX, lambda: _read(lambda pool: pool.max_idle))
        observe(gauge, names.IDLE_MIN, lambda: _read(lambda pool: pool.min_idle))
        observe(gauge, names.MAX, lambda: _read(lambda pool: pool.max_size))
        observe(gauge, names.PENDING, lambda: _read(lambda pool: pool.pending))
        observe(counter, names.TIMEOUTS, lambda: _counted(lambda pool: pool.timeouts))
        observe(counter, names.DISCARDED, lambda: _counted(lambda pool: pool.discarded))
        observe(counter, names.RESETS, lambda: _counted(lambda pool: pool.resets))
        observe(counter, names.OPERATIONS, lambda: _counted(lambda pool: pool.operations.count))
        observe(counter, names.OPERATION_TIME, lambda: _counted(lambda pool: pool.operations.total))

    def _count(self) -> Values:
        self._record()
        for alias, pool in readings.read().items():
            for state, count in ("idle", pool.idle), ("used", pool.used):
                yield count, {**_attributes(alias), names.STATE: state}

    def _record(self) -> None:
        """Record the queued durations: they are collected once all callbacks were called."""
        queue = self._queue
        for _ in range(len(queue)):
            try:
                alias, kind, seconds = queue.popleft()
            except IndexError:
                return  # another thread collects, too
            self._histograms[kind].record(seconds, _attributes(alias))


def _callback(values: Callable[[], Values]) -> Callable[[CallbackOptions], list[Observation]]:
    from opentelemetry.metrics import Observation

    return lambda options: [Observation(value, attributes) for value, attributes in values()]


def _attributes(alias: str) -> dict[str, str]:
    return {names.POOL_NAME: alias, names.SYSTEM: names.POSTGRESQL}


def _read(value: Callable[[Reading], int | None]) -> Values:
    for alias, pool in readings.read().items():
        if (found := value(pool)) is not None:
            yield found, _attributes(alias)


def _counted(value: Callable[[PoolCounts], float]) -> Values:
    for alias, pool in collection.pools().items():
        yield value(pool), _attributes(alias)


_exporters: WeakKeyDictionary[Any, _Exporter] = WeakKeyDictionary()


def opentelemetry(meter_provider: MeterProvider | None = None) -> None:
    """Export metrics of this process's pools with OpenTelemetry. Call it once, at any time.

    The pools, and the waits, leases and statements of aliases that are observed, see
    ``OPTIONS["observe"]``, have the names of OpenTelemetry's conventions; the attribute
    ``db.client.connection.pool.name`` is the alias. After a fork, the child's numbers begin at 0,
    but for the histograms: those are the provider's, which goes on counting from its parent's.

    :param meter_provider: the provider; the global one by default. Without a provider of an SDK,
        OpenTelemetry drops everything. A second call for the same provider has no effect.
    :raises ImportError: OpenTelemetry's SDK is not installed: it comes with the extra
        ``relet[opentelemetry]``. Another SDK has to be given as *meter_provider*.

    https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
    """
    try:
        from opentelemetry.metrics import get_meter_provider

        if meter_provider is None:
            import opentelemetry.sdk.metrics  # noqa: F401 - so that its absence is not silent
    except ImportError as error:
        raise not_installed("opentelemetry", "opentelemetry-sdk", error) from error
    provider = get_meter_provider() if meter_provider is None else meter_provider
    if not hasattr(provider, "get_meter"):
        raise TypeError(f"the provider is {provider!r}; it must be a MeterProvider.")
    if provider not in _exporters:
        _exporters[provider] = _Exporter(provider)
