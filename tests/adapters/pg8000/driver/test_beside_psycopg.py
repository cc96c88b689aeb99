"""With psycopg in the same process, and where there is none."""

from __future__ import annotations

import datetime
import decimal
import json
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import models, transaction
from django.test.utils import isolate_apps
from testapp.models import Item

from relet.backends import build

HERE = Path(__file__).parent
CHECKS = re.findall(r"@check\ndef (\w+)", (HERE / "alone.py").read_text(encoding="utf-8"))
CONTRIB = "relet.backends.compat.django_on_pg8000.contrib.PostgresConfig"
BLOCK = """
import sys
for name in ("psycopg", "psycopg2", "psycopg_pool"):
    sys.modules[name] = None
"""


def run(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", *("-c", code), *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def settings(server, **others):
    name = f"test_relet_alone_{uuid.uuid4().hex[:8]}"
    options = {**server.get("OPTIONS", {}), "pool": {"pool_size": 1, "max_overflow": 0}}
    default = {"ENGINE": "relet.backends.pg8000", "TEST": {"NAME": name}, "OPTIONS": options}
    apps = ["django.contrib.contenttypes", others.pop("contrib", CONTRIB), "shop"]
    databases = {"default": {**server, **default}}
    return json.dumps({"DATABASES": databases, "INSTALLED_APPS": apps, **others})


@pytest.fixture(scope="module")
def failures(server, tmp_path_factory):
    """Run the checks of alone.py, once for each of the ways; return the tracebacks."""
    found: dict[str, dict[str, str]] = {}

    def failures(way, *arguments, **others):
        if way not in found:
            path = tmp_path_factory.mktemp("alone")
            shutil.copytree(HERE / "shop", path / "shop")
            code = (HERE / "alone.py").read_text(encoding="utf-8")
            given = settings(server, TIME_ZONE="Asia/Tokyo", **others)
            done = run(code, given, *arguments, cwd=path)
            assert done.returncode == 0, done.stdout + done.stderr
            assert not done.stderr
            found[way] = json.loads(done.stdout)
        return found[way]

    return failures


@pytest.mark.slow
@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("name", CHECKS)
def test_alone(failures, name, use_tz):
    found = failures(f"alone, {use_tz}", USE_TZ=use_tz)
    assert name not in found, found[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_all_of_it_beside_psycopg(failures, name):
    pytest.importorskip("psycopg")
    found = failures("beside", "beside", USE_TZ=True, contrib="django.contrib.postgres")
    assert name not in found, found[name]


def test_there_are_checks():
    assert len(CHECKS) > 15


def test_contrib_postgres_itself_needs_psycopg(tmp_path):
    """And what to write in its place is in the documentation."""
    code = f"""{BLOCK}
import django
from django.conf import settings
settings.configure(
    DATABASES={{"default": {{"ENGINE": "relet.backends.pg8000", "NAME": "x"}}}},
    INSTALLED_APPS=["django.contrib.postgres"],
)
django.setup()
"""
    done = run(code, cwd=tmp_path)
    assert done.returncode == 1
    assert "psycopg" in done.stderr.splitlines()[-1]


def test_djangos_own_backend_is_left_as_it_is(tmp_path):
    """What is provided is provided to who needs it, and hides no error."""
    code = f"""{BLOCK}
from django.core.exceptions import ImproperlyConfigured
import relet.backends.pg8000.base
try:
    import django.db.backends.postgresql.base
except ImproperlyConfigured as error:
    print(error)
try:
    import relet.backends.psycopg.base
except ImportError as error:
    print(error)
"""
    done = run(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "Error loading psycopg2 or psycopg module" in first
    assert "psycopg" in second


@pytest.fixture
def both(make):
    pytest.importorskip("psycopg")
    return make("ours"), make("theirs", engine="psycopg")


@pytest.fixture
def objects(both):
    """A manager of a model for each alias; its table is there for the test."""
    with isolate_apps("testapp"):

        class Everything(models.Model):
            data = models.JSONField(null=True)
            length = models.DurationField(null=True)
            blob = models.BinaryField(null=True)
            address = models.GenericIPAddressField(null=True)
            key = models.UUIDField(null=True)
            at = models.DateTimeField(null=True)
            number = models.DecimalField(max_digits=12, decimal_places=3, null=True)

            class Meta:
                app_label = "testapp"

    with both[0].schema_editor() as editor:
        editor.create_model(Everything)
    yield [Everything.objects.using(wrapper.alias) for wrapper in both]
    with both[1].schema_editor() as editor:
        editor.delete_model(Everything)


def values():
    return {
        "data": {"a": [1, None, "it's"]},
        "length": datetime.timedelta(days=-3, microseconds=7),
        "blob": b"\0\\'\xff",
        "address": "2001:db8::1",
        "key": uuid.UUID(int=7),
        "at": datetime.datetime(2020, 7, 1, 23, 30, 0, 7, tzinfo=datetime.timezone.utc),
        "number": decimal.Decimal("-1.125"),
    }


class TestTwoAliases:
    def test_what_one_writes_the_other_reads(self, objects):
        for one, other in objects, reversed(objects):
            made = one.create(**values())
            found = other.get(pk=made.pk)
            for name, value in values().items():
                actual = getattr(found, name)
                assert (bytes(actual) if name == "blob" else actual) == value, name
            assert one.filter(**values()).count() == other.filter(**values()).count() == 1
            one.all().delete()

    def test_transactions_are_apart(self, both):
        with transaction.atomic(using="ours"):
            Item.objects.using("ours").create(name="mine")
            with transaction.atomic(using="theirs"):
                assert not Item.objects.using("theirs").exists()
            transaction.set_rollback(True, using="ours")
        assert not Item.objects.using("ours").exists()

    def test_errors_are_their_own_drivers(self, both):
        import django.db
        import pg8000.dbapi
        import psycopg

        for wrapper, driver in zip(both, (pg8000.dbapi, psycopg), strict=True):
            with pytest.raises(django.db.DataError) as caught, wrapper.cursor() as cursor:
                cursor.execute("SELECT 1/0")
            assert isinstance(caught.value.__cause__, driver.DataError)

    def test_psycopg_is_psycopg(self, both):
        """Its module of what differs between drivers is as it was."""
        import psycopg
        from django.db.backends.postgresql import base, psycopg_any

        assert psycopg_any.ClientCursor is psycopg.ClientCursor
        assert base.DatabaseWrapper not in type(both[0]).__mro__
        assert base.DatabaseWrapper in type(both[1]).__mro__

    def test_they_say_the_same(self, both):
        found = []
        for wrapper in both:
            with wrapper.cursor() as cursor:
                cursor.execute("SELECT %s, %s::text, 1.50 AS it", ["it's", None])
                names = [column.name for column in cursor.description]
                found.append((cursor.fetchall(), names, wrapper.introspection.table_names()))
        assert found[0] == found[1]


class TestBases:
    def test_a_backend_for_another_driver_is_refused(self):
        pytest.importorskip("psycopg")
        for adapter, base in (
            ("pg8000", "django.db.backends.postgresql"),
            ("psycopg", "relet.backends.compat.django_on_pg8000"),
        ):
            says = rf"build\('{adapter}', .* is for another driver"
            with pytest.raises(ImproperlyConfigured, match=says):
                build(adapter, base=base)

    def test_postgis_is_refused(self):
        pytest.importorskip("psycopg")
        try:
            from django.contrib.gis.db.backends.postgis.base import DatabaseWrapper
        except ImproperlyConfigured as error:
            pytest.skip(f"there is no PostGIS backend: {error}")
        with pytest.raises(ImproperlyConfigured, match="for another driver"):
            build("pg8000", base=DatabaseWrapper)

    def test_ones_own_is_not(self):
        from relet.backends.compat.django_on_pg8000.base import DatabaseWrapper

        class Own(DatabaseWrapper):
            display_name = "own"

        built = build("pg8000", base=Own)
        assert built.display_name == "own"
        assert issubclass(built, Own)
