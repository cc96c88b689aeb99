"""Prometheus: a collector with the metrics of all processes, from what they have reported.

So whichever worker is scraped answers for all. The label ``instance`` tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from relet.backends.metrics.missing import not_installed
from relet.backends.metrics.prometheus import Labels, families
from relet.backends.metrics.readings import Reading
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
    """Return the metrics of all processes that live, by alias and ``HOST:PID``."""
    pools: dict[Labels, Reading] = {}
    counted: dict[Labels, PoolCounts] = {}
    for host, pid, _, _, silent, interval, _, text in home.run(tables.processes(), home.alias()):
        if silent > max(tables.STALE_S, 3 * interval):
            continue  # as if it had not answered
        for alias, found in _metrics(text).items():
            try:
                reading, counts = read_metrics(found)
            except Exception:  # noqa: BLE001 - another version's, of which nothing is known
                continue
            key = (alias, f"{host}:{pid}")
            pools[key] = reading
            if counts is not None:
                counted[key] = counts
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


def prometheus_fleet(registry: CollectorRegistry | None = None) -> Collector:
    """Export the metrics of all processes of the fleet with prometheus_client.

    They are those of `relet.metrics.prometheus`, which need not be called as well, with the label
    ``instance``: ``HOST:PID``. Each scrape reads what the processes have last reported, at most
    some ten seconds ago. A scrape fails if the database cannot be asked. It needs
    ``relet.dashboard`` in ``INSTALLED_APPS``. Tell Prometheus to keep the label, by ``honor_labels:
    true``.

    :param registry: where to register them; a new one by default. It should have no other
        collectors: each worker has the same metrics, so those of a worker do not belong beside
        them.
    :return: the collector. ``generate_latest(collector)`` is what a view answers with.
    :raises ImportError: prometheus_client is not installed: it comes with the extra
        ``relet[prometheus]``.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise not_installed("prometheus", "prometheus_client", error) from error
    collector = _collector_class()()
    if registry is not None:
        registry.register(collector)
    return collector
