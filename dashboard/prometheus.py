"""Prometheus: a collector with the metrics of all processes, from what they have reported.

So whichever worker is scraped answers for all. The label ``instance`` tells them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.apps import apps

from relet.backends.metrics.missing import not_installed
from relet.backends.metrics.prometheus import Labels, families, register_once
from relet.backends.metrics.readings import Reading
from relet.core import ConfigurationError
from relet.core.observe import PoolCounts

from . import home, tables
from .packing import unpack
from .payload import read_metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

_LABELS = ("db_client_connection_pool_name", "instance")


def _read() -> tuple[dict[Labels, Reading], dict[Labels, PoolCounts]]:
    """Return the metrics of all processes that live, by alias and instance."""
    found = home.run(tables.processes(), home.alias())
    living = [  # the others are as if they had not answered
        (id_, f"{host}:{pid}", totals)
        for id_, host, pid, _, _, silent, interval, _, totals in found
        if not tables.is_stale(silent, interval)
    ]
    names = Counter(instance for _, instance, _ in living)
    pools: dict[Labels, Reading] = {}
    counted: dict[Labels, PoolCounts] = {}
    for id_, instance, totals in living:
        if names[instance] > 1:  # such as the first processes of containers that share a network
            instance += f":{id_[:8]}"
        for alias, one in _metrics(totals).items():
            try:
                reading, counts = read_metrics(one)
            except Exception:  # noqa: BLE001 - another version's, of which nothing is known
                continue
            pools[alias, instance] = reading
            if counts is not None:
                counted[alias, instance] = counts
    return pools, counted


def _metrics(text: str) -> dict[str, Any]:
    try:
        found = unpack(text).get("metrics")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@cache
def _collector_class() -> type[Collector]:
    from prometheus_client.registry import Collector

    class FleetCollector(Collector):
        """The metrics of the pools of all processes."""

        def collect(self) -> Iterator[Family]:
            return families(*_read(), labels=_LABELS)

        def describe(self) -> Iterator[Family]:
            return families({}, {}, labels=_LABELS)

    return FleetCollector


_collectors: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()


def prometheus_fleet(registry: CollectorRegistry | None = None) -> Collector:
    """Export the metrics of all processes of the fleet with prometheus_client.

    They are those of `relet.metrics.prometheus`, which need not be called as well, with the label
    ``instance``: ``HOST:PID``, and a part of a random id behind it where processes have the same.
    Each scrape reads what the processes have last reported, at most some ten seconds ago. A scrape
    fails if the database cannot be asked. It needs ``relet.dashboard`` in ``INSTALLED_APPS``. Tell
    Prometheus to keep the label, by ``honor_labels: true``.

    :param registry: where to register them; a new one by default. It should have no other
        collectors: each worker has the same metrics, so those of a worker do not belong beside
        them. A second call for the same registry has no effect.
    :return: the collector. ``generate_latest(collector)`` is what a view answers with.
    :raises ImportError: prometheus_client is not installed: it comes with the extra
        ``relet[prometheus]``.
    :raises ConfigurationError: ``INSTALLED_APPS`` has no ``relet.dashboard``.
    """
    if not apps.is_installed("relet.dashboard"):
        raise ConfigurationError(
            "relet.metrics.prometheus_fleet() needs 'relet.dashboard' in INSTALLED_APPS."
        )
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise not_installed("prometheus", "prometheus_client", error) from error
    collector = _collector_class()()
    if registry is None:
        return collector
    return register_once(_collectors, collector, registry)
