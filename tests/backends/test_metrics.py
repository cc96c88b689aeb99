"""`relet.metrics`: what the real SDKs of OpenTelemetry and Prometheus make of it."""

from __future__ import annotations

import sys
import threading

import pytest
from django.db import OperationalError, connections, transaction

import relet
from relet.backends.metrics import names
from relet.backends.observe import durations

from ..support.forks import child_of, needs_fork
from ..support.pools import backend_pid, stats
from ..support.threads import in_thread
from ..support.waiting import until

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry's SDK is not installed")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from opentelemetry import metrics as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

ALIAS = "measured"
POOL = {names.POOL_NAME: ALIAS, names.SYSTEM: "postgresql"}


@pytest.fixture(autouse=True)
def unfollowed(monkeypatch):
    """What an exporter of a test has asked for is not kept for those of other tests."""
    monkeypatch.setattr(durations, "_followers", [])


@pytest.fixture
def db(make):
    wrapper = connections[ALIAS] = make(ALIAS, timeout=20)
    yield wrapper
    wrapper.close()
    del connections[ALIAS]


class OpenTelemetry:
    """The numbers of `ALIAS` as an exporter of OpenTelemetry's gets them."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        relet.metrics.opentelemetry(self.provider)

    def collect(self):
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        assert (scope.scope.name, scope.scope.version) == ("relet", relet.__version__)
        return scope.metrics

    def points(self, name):
        """Return the points of a metric of `ALIAS`, by their state."""
        for metric in self.collect():
            if metric.name == name:
                return {
                    point.attributes.get(names.STATE): point
                    for point in metric.data.data_points
                    if point.attributes[names.POOL_NAME] == ALIAS
                }
        return {}

    def value(self, name, state=None):
        points = self.points(name)
        return points[state].value if state in points else None

    def durations(self, name):
        points = self.points(name)
        return (points[None].count, points[None].sum) if points else (0, 0)

    def close(self):
        self.provider.shutdown()


class Prometheus:
    """The same, as a server of Prometheus's scrapes them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.collector = relet.metrics.prometheus(self.registry)

    @property
    def text(self):
        return generate_latest(self.registry).decode()

    @property
    def lines(self):
        """What is said of the alias: of all that tests have used, it takes seconds to read."""
        lines = self.text.splitlines(keepends=True)
        return "".join(line for line in lines if line[0] == "#" or f'"{ALIAS}"' in line)

    def samples(self, name):
        return [
            sample
            for family in text_string_to_metric_families(self.lines)
            for sample in family.samples
            if sample.name == name and sample.labels["db_client_connection_pool_name"] == ALIAS
        ]

    def value(self, name, state=None):
        name = name.replace(".", "_")
        for sample in self.samples(name) + self.samples(f"{name}_total"):
            if sample.labels.get("db_client_connection_state") == state:
                return sample.value
        return None

    def durations(self, name):
        name = name.replace(".", "_")
        counts = self.samples(f"{name}_seconds_count")
        sums = self.samples(f"{name}_seconds_sum")
        return (counts[0].value, sums[0].value) if counts else (0, 0)

    def close(self):
        self.registry.unregister(self.collector)


@pytest.fixture(params=[OpenTelemetry, Prometheus])
def exporter(request):
    exporter = request.param()
    yield exporter
    exporter.close()


def run(db, sql="SELECT 1", params=None):
    with db.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0]


def atomic():
    return transaction.atomic(ALIAS)


def test_connections(db, exporter):
    count = "db.client.connection.count"
    with atomic():
        run(db)
        assert exporter.value(count, "used") == 1
        assert exporter.value(count, "idle") == 0
    assert exporter.value(count, "used") == 0
    assert exporter.value(count, "idle") == 1
    assert exporter.value("db.client.connection.max") == stats(db).max_size == 1
    assert exporter.value("db.client.connection.idle.max") == 1
    assert exporter.value("db.client.connection.idle.min") == stats(db).min_size
    assert exporter.value("db.client.connection.pending_requests") == 0
    db.close_pool()
    assert exporter.value(count, "idle") is None


def test_waits(db, exporter):
    wait, pending = "db.client.connection.wait_time", "db.client.connection.pending_requests"
    run(db)
    before = exporter.durations(wait)
    other = db.copy()
    with atomic():
        run(db)
        waiter = threading.Thread(target=lambda: (run(other), other.close()))
        other.inc_thread_sharing()
        waiter.start()
        until(lambda: stats(db).waiting == 1)
        assert exporter.value(pending) == 1
    waiter.join()
    count, seconds = exporter.durations(wait)
    assert (count - before[0], seconds > before[1]) == (1, True)
    assert exporter.value(pending) == 0
    run(db)  # it has not waited
    assert exporter.durations(wait)[0] == count


def test_timeouts(make, exporter):
    name = "db.client.connection.timeouts"
    db = connections[ALIAS] = make(ALIAS, timeout=1)  # in which it has to be opened, too
    try:
        with atomic():
            run(db)
            before = exporter.value(name)
            other = db.copy()

            def wait():
                other.inc_thread_sharing()
                try:
                    with pytest.raises(OperationalError):
                        run(other)
                finally:
                    other.close()

            in_thread(wait)
            assert exporter.value(name) == before + 1
    finally:
        del connections[ALIAS]


def test_uses(db, exporter):
    """Only leases that outlast a statement are leases that one can look at."""
    name = "db.client.connection.use_time"
    run(db)
    before = exporter.durations(name)
    run(db)
    assert exporter.durations(name) == before
    with atomic():
        run(db, "SELECT pg_sleep(0.01)")
    count, seconds = exporter.durations(name)
    assert count == before[0] + 1
    assert seconds > before[1] + 0.01


def test_creations(db, exporter):
    name = "db.client.connection.create_time"
    before = exporter.durations(name)
    run(db)
    count, seconds = exporter.durations(name)
    assert count > before[0] and seconds > before[1]


def test_operations(db, exporter):
    def read():
        if isinstance(exporter, Prometheus):
            return exporter.durations("db.client.operation.duration")
        return exporter.value("relet.operations"), exporter.value("relet.operation.time")

    run(db)
    before = read()
    run(db, "SELECT pg_sleep(0.01)")
    with atomic():
        run(db)
    with pytest.raises(Exception, match="division"):
        run(db, "SELECT 1/0")
    count, seconds = read()
    assert count == before[0] + 3
    assert seconds > before[1] + 0.01


def test_discarded_and_reset(db, exporter):
    discarded, resets = "relet.connection.discarded", "relet.connection.resets"
    run(db)
    before = exporter.value(resets), exporter.value(discarded)
    with db.cursor() as cursor:
        cursor.execute("SET work_mem = '1MB'")
    db.close()
    assert exporter.value(resets) == before[0] + 1
    with db.temporary_connection():
        db._runner.lease.connection.raw.close()
    db.close()
    assert exporter.value(discarded) == before[1] + 1


@needs_fork
def test_a_child_begins_at_nothing(db, exporter):
    with atomic():
        run(db)
    assert exporter.durations("db.client.connection.use_time")[0] > 0

    def child():
        for name in "use", "create", "wait":
            # OpenTelemetry's SDK itself goes on with what it has recorded in the parent.
            if isinstance(exporter, Prometheus):
                assert exporter.durations(f"db.client.connection.{name}_time")[0] == 0
        assert not exporter.value("db.client.connection.timeouts")
        assert exporter.value("db.client.connection.count", "idle") is None
        with atomic():
            run(db)
        assert exporter.value("db.client.connection.count", "idle") == 1

    db.close()
    assert child_of(child) == 0


@needs_fork
def test_a_child_records_nothing_of_its_parent(db):
    exporter = OpenTelemetry()
    with atomic():
        run(db)  # not collected yet

    def child():
        assert exporter.durations("db.client.connection.use_time")[0] == 0
        with atomic():
            run(db)
        assert exporter.durations("db.client.connection.use_time")[0] == 1

    db.close()
    assert child_of(child) == 0
    exporter.close()


def test_without_observation_there_are_pools_only(make, exporter):
    db = connections["unseen"] = make("unseen", OPTIONS={"observe": False})
    try:
        with transaction.atomic("unseen"):
            run(db)
        if isinstance(exporter, Prometheus):
            names = {
                line.partition("{")[0] for line in exporter.text.splitlines() if '"unseen"' in line
            }
        else:
            names = {
                metric.name.replace(".", "_")
                for metric in exporter.collect()
                for point in metric.data.data_points
                if "unseen" in point.attributes.values()
            }
        prefix = "db_client_connection_"
        rest = ("count", "idle_max", "idle_min", "max", "pending_requests")
        assert names == {prefix + each for each in rest}
    finally:
        del connections["unseen"]


def test_nothing_that_a_statement_or_request_brings_is_in_them(db, exporter):
    secret = "s3cr3t-4711"
    with relet.label(f"label {secret}"), atomic():
        run(db, "SELECT %s::text", [secret])
        run(db, f"SELECT '{secret}'")
        with pytest.raises(Exception, match=secret):
            run(db, f"SELECT '{secret}'::int")
    if isinstance(exporter, Prometheus):
        text = exporter.text
    else:
        text = "".join(metric.to_json() for metric in exporter.collect())
    assert ALIAS in text
    assert secret not in text and "SELECT" not in text


class TestOpenTelemetry:
    def test_names_and_units_are_those_of_the_conventions(self):
        from opentelemetry.semconv._incubating.metrics import db_metrics

        class Meter(otel.NoOpMeter):
            def __init__(self):
                super().__init__("test")
                self.made = {}

            def _create(self, name, unit="", description=""):
                self.made[name] = unit

            create_up_down_counter = create_counter = create_histogram = _create

        meter = Meter()
        for name, create in vars(db_metrics).items():
            if name.startswith("create_db_client_connection") or name.endswith("tion_duration"):
                create(meter)
        mine = [value for value in vars(names).values() if isinstance(value, names.Metric)]
        found = {metric.name: metric.unit for metric in mine if metric.name.startswith("db.")}
        assert found.items() <= meter.made.items()
        # There are no others but the deprecated ones, which have "connections" in their names.
        rest = {name for name in meter.made.keys() - found.keys() if "connections" not in name}
        assert rest == set()

    def test_attributes(self, db):
        exporter = OpenTelemetry()
        with relet.label("somewhere"), atomic():
            run(db)
        seen = set()
        for metric in exporter.collect():
            seen.add(metric.name)
            for point in metric.data.data_points:
                if point.attributes[names.POOL_NAME] == ALIAS:
                    state = {names.STATE: point.attributes.get(names.STATE)}
                    assert dict(point.attributes) in (POOL, {**POOL, **state})
        connection = "db.client.connection"
        assert f"{connection}.use_time" in seen and f"{connection}.count" in seen
        exporter.close()

    def test_buckets(self, db):
        exporter = OpenTelemetry()
        with atomic():
            run(db)
        (point,) = exporter.points("db.client.connection.use_time").values()
        assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
        exporter.close()

    def test_twice_is_once(self, db, caplog):
        exporter = OpenTelemetry()
        relet.metrics.opentelemetry(exporter.provider)
        run(db)
        with atomic():
            run(db)
        assert exporter.durations("db.client.connection.use_time")[0] == 1
        assert caplog.messages == []  # the SDK warns of instruments that are made twice
        exporter.close()

    def test_what_is_no_provider(self):
        with pytest.raises(TypeError, match="the provider is 5; it must be a MeterProvider"):
            relet.metrics.opentelemetry(5)

    def test_two_readers(self, db):
        """Each has everything."""
        one, other = InMemoryMetricReader(), InMemoryMetricReader()
        provider = MeterProvider([one, other])
        relet.metrics.opentelemetry(provider)
        with atomic():
            run(db)
        for reader in one, other:
            (resource,) = reader.get_metrics_data().resource_metrics
            found = [metric.name for metric in resource.scope_metrics[0].metrics]
            assert "db.client.connection.use_time" in found
        provider.shutdown()

    def test_the_global_provider(self, db, monkeypatch):
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        monkeypatch.setattr(otel, "get_meter_provider", lambda: provider)
        relet.metrics.opentelemetry()
        run(db)
        assert reader.get_metrics_data() is not None
        provider.shutdown()

    def test_a_queue_that_nobody_reads_is_bounded(self):
        from relet.backends.observe import durations

        queue = durations.follow(10)
        try:
            for _ in range(100):
                durations.add(ALIAS, "waits", 0.001)
            assert len(queue) == 10
        finally:
            durations._followers.remove(queue)

    @pytest.mark.parametrize("missing", ["opentelemetry.metrics", "opentelemetry.sdk.metrics"])
    def test_not_installed(self, monkeypatch, missing):
        monkeypatch.setitem(sys.modules, missing, None)
        says = r"needs opentelemetry-sdk.*pip install 'relet\[opentelemetry\]'"
        with pytest.raises(ImportError, match=says):
            relet.metrics.opentelemetry()


class TestPrometheus:
    def test_text(self, db):
        exporter = Prometheus()
        with atomic():
            run(db)
        text = exporter.text
        pool = f'db_client_connection_pool_name="{ALIAS}"'
        assert f'db_client_connection_count{{{pool},db_client_connection_state="idle"}} 1.0' in text
        assert f"db_client_connection_max{{{pool}}} 1.0" in text
        assert "# TYPE db_client_connection_use_time_seconds histogram" in text
        assert f'db_client_connection_use_time_seconds_bucket{{{pool},le="+Inf"}}' in text
        assert f"db_client_connection_timeouts_total{{{pool}}}" in text

    def test_labels(self, db):
        exporter = Prometheus()
        with relet.label("somewhere"), atomic():
            run(db)
        labels = {
            label
            for family in text_string_to_metric_families(exporter.text)
            for sample in family.samples
            for label in sample.labels
        }
        assert labels == {"db_client_connection_pool_name", "db_client_connection_state", "le"}

    def test_buckets(self, db):
        """They are the same for each scrape, and each counts what the one before it does."""
        exporter = Prometheus()
        name = "db_client_operation_duration_seconds_bucket"
        run(db)
        before = exporter.samples(name)
        run(db, "SELECT pg_sleep(0.1)")
        after = exporter.samples(name)
        assert [sample.labels["le"] for sample in before] == [
            sample.labels["le"] for sample in after
        ]
        counts = [sample.value for sample in after]
        assert counts == sorted(counts)
        assert counts[-1] == exporter.durations("db.client.operation.duration")[0]
        slow = [sample.value for sample in before if float(sample.labels["le"]) < 0.1]
        assert [sample.value for sample in after if float(sample.labels["le"]) < 0.1] == slow

    def test_twice_is_once(self, db):
        exporter = Prometheus()
        assert relet.metrics.prometheus(exporter.registry) is exporter.collector
        run(db)
        assert len(exporter.samples("db_client_connection_max")) == 1

    def test_what_is_no_registry(self):
        with pytest.raises(TypeError, match="the registry is 5; it must be a CollectorRegistry"):
            relet.metrics.prometheus(5)

    def test_again_after_it_was_unregistered(self, db):
        exporter = Prometheus()
        run(db)
        exporter.close()
        assert exporter.text == ""
        assert relet.metrics.prometheus(exporter.registry) is exporter.collector
        assert len(exporter.samples("db_client_connection_max")) == 1

    def test_the_default_registry(self, db, monkeypatch):
        registry = CollectorRegistry()
        monkeypatch.setattr("prometheus_client.REGISTRY", registry)
        relet.metrics.prometheus()
        run(db)
        assert b"db_client_connection_max" in generate_latest(registry)

    def test_registering_asks_no_pool(self, monkeypatch):
        monkeypatch.setattr("relet.backends.metrics.readings.read", None)
        relet.metrics.prometheus(CollectorRegistry())

    def test_multiprocess_mode_is_warned_of(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        with pytest.warns(RuntimeWarning, match="PROMETHEUS_MULTIPROC_DIR"):
            relet.metrics.prometheus(CollectorRegistry())

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        says = r"needs prometheus_client.*pip install 'relet\[prometheus\]'"
        with pytest.raises(ImportError, match=says):
            relet.metrics.prometheus()


def test_closed_pools_leave_their_counts(db, exporter):
    with atomic():
        run(db)
    count, _ = exporter.durations("db.client.connection.use_time")
    db.close()
    db.close_pool()
    assert exporter.durations("db.client.connection.use_time")[0] == count
    assert backend_pid(db)
