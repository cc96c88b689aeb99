"""`build()` over PostGIS, whose backend tells each new connection of its types.

Needs GDAL, and a server with the extension: that of ``RELET_TEST_DSN``, else one that the
system's initdb and pg_ctl start.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.contrib.postgres.operations import CreateExtension
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections, migrations, transaction
from django.db.migrations.state import ProjectState

from relet.backends import build
from relet.backends.pools import pools
from relet.core import registry

from ..django_suite.server import postgres
from ..support.pools import at_rest, backend_pid, stats

psycopg = pytest.importorskip("psycopg", reason="with psycopg2, connections are told of no types")

try:
    from django.contrib.gis.db import models
    from django.contrib.gis.db.models import Extent
    from django.contrib.gis.db.models.functions import Distance
    from django.contrib.gis.geos import Point, Polygon
    from django.contrib.gis.measure import D
except ImproperlyConfigured as error:
    pytest.skip(f"no GDAL, or no GEOS: {error}", allow_module_level=True)

pytestmark = pytest.mark.slow

PYCON, DJANGOCON = Point(4.89, 52.37, srid=4326), Point(-95.24, 38.96, srid=4326)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    """What ``DATABASES[alias]`` says to reach a server that has PostGIS."""
    with ExitStack() as stack:
        told = stack.enter_context(postgres())
        if not _has_postgis(told):
            if not (shutil.which("initdb") and shutil.which("pg_ctl")):
                pytest.skip("the server has no PostGIS, and initdb and pg_ctl are not on PATH")
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.delenv("RELET_TEST_DSN", raising=False)
            told = stack.enter_context(postgres())
            if not _has_postgis(told):
                pytest.skip("neither the server nor the system's PostgreSQL has PostGIS")
        yield told


def _connect(told: dict[str, Any], database: str = "postgres") -> Any:
    keys = {"USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    params = {name: told[key] for key, name in keys.items() if told.get(key)}
    return psycopg.connect(dbname=database, autocommit=True, **params)


def _has_postgis(told: dict[str, Any]) -> bool:
    with _connect(told) as connection:
        sql = "SELECT FROM pg_available_extensions WHERE name = 'postgis'"
        return connection.execute(sql).rowcount == 1


@pytest.fixture(params=["psycopg", "sqlalchemy"])
def wrapper(request: pytest.FixtureRequest, server: dict[str, Any]) -> Iterator[Any]:
    """``connections["gis"]``, on a pool of two connections, and on a database of its own."""
    pytest.importorskip("psycopg_pool" if request.param == "psycopg" else request.param)
    with _connect(server) as connection:
        connection.execute("DROP DATABASE IF EXISTS relet_gis WITH (FORCE)")
        connection.execute("CREATE DATABASE relet_gis")
    adapter = registry.load(request.param)
    settings = {
        **connections["default"].settings_dict,
        **server,
        "NAME": "relet_gis",
        "OPTIONS": {"pool": adapter.options_for(size=2, timeout=5)},
    }
    wrapper_class = build(request.param, base="django.contrib.gis.db.backends.postgis")
    for known in wrapper_class._type_infos.values():
        known.pop("gis", None)  # it was for a test's database that is no more
    connections["gis"] = made = wrapper_class(settings, "gis")
    yield made
    assert at_rest(made)
    made.close()
    pools.close_alias("gis")
    del connections["gis"]


PLACE = (
    migrations.CreateModel(
        "Place",
        [
            ("id", models.BigAutoField(primary_key=True)),
            ("name", models.CharField(max_length=20)),
            ("point", models.PointField()),
            ("on_globe", models.PointField(geography=True)),
        ],
    ),
    migrations.AddField("Place", "area", models.PolygonField(null=True)),
)


def migrate(wrapper: Any, *operations: Any, atomic: bool = True) -> Any:
    """Apply *operations*, then those of `PLACE`, as a migration; return the model."""
    migration = migrations.Migration("one", "places")
    migration.operations = [*operations, *PLACE]
    migration.atomic = atomic
    with wrapper.schema_editor(atomic=atomic) as editor:
        return migration.apply(ProjectState(), editor).apps.get_model("places", "place")


def check(place: Any) -> None:
    """Write and read geometries, in ways that need the driver to know their types."""
    places = place.objects.using("gis")
    with transaction.atomic("gis"):
        places.create(name="PyCon", point=PYCON, on_globe=PYCON, area=PYCON.buffer(1))
        places.bulk_create([place(name="DjangoCon", point=DJANGOCON, on_globe=DJANGOCON)])
    assert places.get(name="PyCon").point == PYCON
    assert isinstance(places.get(name="PyCon").area, Polygon)
    near = places.filter(on_globe__distance_lte=(PYCON, D(km=10)))
    assert [found.name for found in near.iterator()] == ["PyCon"]
    assert places.get(area__contains=PYCON).name == "PyCon"
    distances = places.annotate(distance=Distance("on_globe", PYCON)).order_by("distance")
    assert [round(found.distance.km, -2) for found in distances] == [0, 7300]
    assert places.aggregate(Extent("point"))["point__extent"] == (-95.24, 38.96, 4.89, 52.37)
    places.all().delete()


@contextmanager
def both(wrapper: Any) -> Iterator[list[Any]]:
    """Two wrappers, each with one of the pool's two connections."""
    with ExitStack() as leases:
        copies = [wrapper.copy(), wrapper.copy()]
        for copied in copies:
            leases.enter_context(copied.temporary_connection())
        assert stats(wrapper).in_use == 2
        yield copies


def check_both(place: Any, wrapper: Any) -> None:
    with both(wrapper) as copies:
        for copied in copies:
            assert copied.connection.adapters.types.get("geometry") is not None
            connections["gis"] = copied
            check(place)
        connections["gis"] = wrapper


def test_models(wrapper):
    wrapper.prepare_database()
    assert at_rest(wrapper)
    check(migrate(wrapper))
    assert at_rest(wrapper)


def test_each_connection_knows_the_types(wrapper):
    wrapper.prepare_database()
    place = migrate(wrapper)
    check_both(place, wrapper)


def test_a_connection_that_replaces_another_knows_the_types(wrapper, server):
    wrapper.prepare_database()
    place = migrate(wrapper)
    pid = backend_pid(wrapper)
    with _connect(server) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with pytest.raises(OperationalError):
        check(place)
    check(place)
    assert backend_pid(wrapper) != pid


def test_connections_that_were_there_before_the_extension(wrapper):
    with both(wrapper):
        pass
    wrapper.prepare_database()
    check_both(migrate(wrapper), wrapper)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_migration_that_creates_the_extension(wrapper, atomic):
    with both(wrapper):
        pass
    check_both(migrate(wrapper, CreateExtension("postgis"), atomic=atomic), wrapper)


def test_preparing_again_changes_nothing(wrapper):
    wrapper.prepare_database()
    pid = backend_pid(wrapper)
    wrapper.prepare_database()
    assert backend_pid(wrapper) == pid
