"""Django on ``relet.backends.pg8000``, in a process where there is no psycopg.

Run in a folder that has the app ``shop``, with settings of Django's as JSON. Prints, as JSON, the
tracebacks of the checks that have failed, by their names. With ``beside`` as another argument,
psycopg may be imported.
"""

from __future__ import annotations

import datetime
import decimal
import io
import json
import os
import sys
import traceback
import uuid
from pathlib import Path

BESIDE = sys.argv[2:] == ["beside"]
if not BESIDE:
    for driver in "psycopg", "psycopg2", "psycopg_binary", "psycopg_c", "psycopg_pool":
        sys.modules[driver] = None

import django  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.utils import IntegrityError  # noqa: E402

CHECKS = {}
UTC = datetime.timezone.utc


def check(function):
    CHECKS[function.__name__] = function
    return function


def output(*command, **options):
    text = io.StringIO()
    call_command(*command, stdout=text, **options)
    return text.getvalue()


def moment(*parts):
    """A datetime as fields have it."""
    return datetime.datetime(*parts, tzinfo=UTC if settings.USE_TZ else None)


def values():
    from django.db.backends.postgresql.psycopg_any import (
        DateRange,
        DateTimeTZRange,
        NumericRange,
    )

    return {
        "text": 'it\'s "100 %" \\ \u20ac',
        "tags": ["a", "it's", 'b"c', "d\\e", "NULL", "", "{,}"],
        "grid": [[1, None], [3, -4]],
        "moments": [moment(2020, 1, 1, 12), moment(2020, 7, 1, 12, 0, 0, 5)],
        "attributes": {"a": "it's", "b": None, 'c"\\': "=>"},
        "span": NumericRange(1, 5),
        "price": NumericRange(decimal.Decimal("1.50"), None, "(]"),
        "during": DateTimeTZRange(moment(2020, 1, 1), moment(2020, 1, 2)),
        "days": DateRange(datetime.date(2020, 1, 1), datetime.date(2020, 2, 1)),
        "data": {"a": [1, None, "it's"], "b": {"c": True, "d": 1.5}},
        "length": datetime.timedelta(days=-3, seconds=5, microseconds=7),
        "blob": bytes(range(256)),
        "address": "2001:db8::1",
        "key": uuid.UUID(int=7),
        "at": moment(2020, 7, 1, 23, 30, 0, 7),
        "day": datetime.date(1, 2, 3),
        "clock": datetime.time(23, 59, 59, 999999),
        "number": decimal.Decimal("-123456789.125"),
        "ratio": -1.5e-300,
        "big": -(2**63),
        "small": 32767,
        "flag": True,
    }


@check
def it_has_tables():
    names = connection.introspection.table_names()
    assert {"shop_everything", "django_migrations"} <= set(names), names
    assert "No changes" in output("makemigrations", "--check", "--dry-run")
    assert "[X] 0002_initial" in output("showmigrations", "shop")
    assert 'CREATE TABLE "shop_everything"' in output("sqlmigrate", "shop", "0002")


@check
def it_has_extensions():
    with connection.cursor() as cursor:
        cursor.execute("SELECT extname FROM pg_extension")
        found = {name for (name,) in cursor.fetchall()}
        assert {"hstore", "citext", "btree_gist", "pg_trgm", "unaccent"} <= found, found
        cursor.execute("SELECT 'A'::citext = 'a'::citext, ARRAY['x'::citext], 'x'::citext")
        assert cursor.fetchone() == (True, ["x"], "x")


@check
def values_return():
    from shop.models import Everything

    expected = values()
    Everything.objects.create(name="one", **expected)
    found = Everything.objects.get(name="one")
    for name, value in expected.items():
        actual = getattr(found, name)
        actual = bytes(actual) if name == "blob" else actual
        assert actual == value, (name, actual, value)
        assert type(actual) is type(value), (name, type(actual), type(value))
    found.name = "copy"
    found.pk = found.big = found.during = None
    found.save()
    Everything.objects.filter(pk=found.pk).update(tags=[], attributes={}, data=None)
    found.refresh_from_db()
    assert (found.tags, found.attributes, found.data) == ([], {}, None)
    found.delete()


@check
def each_value_is_found():
    from shop.models import Everything

    for name, value in values().items():
        assert Everything.objects.filter(**{name: value}).exists(), name
        assert not Everything.objects.exclude(**{name: value}).exists(), name
        assert Everything.objects.values_list(name, flat=True).get() is not None, name
    assert Everything.objects.filter(each_in(values())).exists()


def each_in(named):
    from django.db.models import Q

    # The one has no equality; the other, if it is naive, is none of timestamptz.
    left_out = ("data", "moments")
    return Q(**{f"{name}__in": [value] for name, value in named.items() if name not in left_out})


@check
def lookups():
    from shop.models import Everything

    all_ = Everything.objects
    for name, value in {
        "tags__contains": ["a"],
        "tags__contained_by": [*values()["tags"], "more"],
        "tags__overlap": ["a", "z"],
        "tags__len": 7,
        "tags__0": "a",
        "tags__0_2": ["a", "it's"],
        "grid__contains": [[3]],
        "moments__contains": [moment(2020, 1, 1, 12)],
        "attributes__a": "it's",
        "attributes__has_key": "b",
        "attributes__has_any_keys": ["b", "z"],
        "attributes__has_keys": ["a", "b"],
        "attributes__contains": {"a": "it's"},
        "attributes__keys__contains": ["a"],
        "attributes__values__contains": ["it's"],
        "span__contains": 4,
        "span__overlap": (4, 9),
        "span__fully_lt": (6, 9),
        "span__startswith": 1,
        "price__upper_inf": True,
        "during__contains": moment(2020, 1, 1, 5),
        "during__contained_by": (moment(2019, 1, 1), moment(2021, 1, 1)),
        "days__contains": datetime.date(2020, 1, 31),
        "days__isempty": False,
        "data__a__2": "it's",
        "data__b__d__gt": 1,
        "data__has_key": "a",
        "data__contains": {"b": {"c": True}},
        "data__a__1": None,
        "length__lt": datetime.timedelta(0),
        "address__startswith": "2001",
        "key__startswith": "00000000",
        "at__date": datetime.date(2020, 7, 2 if settings.USE_TZ else 1),  # in Tokyo
        "at__year": 2020,
        "day__lt": datetime.date(1000, 1, 1),
        "clock__hour": 23,
        "text__iregex": r"^it's .100 %. \\",
        "text__icontains": "100 %",
        "text__trigram_similar": "it's 100",
        "text__unaccent__icontains": "\u00edt's",
        "name__in": ["one"],
        "number__range": (decimal.Decimal(-(10**9)), 0),
    }.items():
        assert all_.filter(**{name: value}).count() == 1, name


@check
def expressions():
    from django.contrib.postgres.aggregates import ArrayAgg, BoolAnd, JSONBAgg
    from django.contrib.postgres.functions import RandomUUID, TransactionNow
    from django.contrib.postgres.search import TrigramSimilarity
    from django.db.models import Case, Count, F, TextField, Value, When
    from django.db.models.functions import Cast, Concat, Now, TruncDay
    from shop.models import Everything

    found = Everything.objects.aggregate(
        names=ArrayAgg("name"),
        flag=BoolAnd("flag"),
        data=JSONBAgg("data"),
        count=Count("pk", distinct=True),
    )
    assert found == {"names": ["one"], "flag": True, "data": [values()["data"]], "count": 1}
    one = Everything.objects.annotate(
        said=Concat("name", Value("'s %"), Cast("small", TextField()), output_field=TextField()),
        kind=Case(When(flag=True, then=Value("yes")), default=Value("no")),
        later=F("at") + datetime.timedelta(days=1),
        start=TruncDay("at"),
        now=Now(),
        begun=TransactionNow(),
        other=RandomUUID(),
        near=TrigramSimilarity("name", "ones"),
    ).get()
    assert (one.said, one.kind) == ("one's %32767", "yes")
    assert one.later == one.at + datetime.timedelta(days=1)
    assert one.start.day == (2 if settings.USE_TZ else 1)
    assert one.now == one.begun and isinstance(one.other, uuid.UUID) and 0 < one.near < 1


@check
def search():
    from django.contrib.postgres.search import (
        SearchHeadline,
        SearchQuery,
        SearchRank,
        SearchVector,
    )
    from shop.models import Everything

    vector = SearchVector("name", weight="A", config="english") + SearchVector("text")
    query = SearchQuery("one") & ~SearchQuery("it's nothing", search_type="phrase")
    found = Everything.objects.annotate(
        rank=SearchRank(vector, query, weights=[0.1, 0.2, 0.4, 1.0]),
        found=vector,
        line=SearchHeadline("name", SearchQuery("one"), start_sel="<", stop_sel=">"),
    ).filter(found=query)
    assert [(one.line, one.rank > 0) for one in found] == [("<one>", True)]
    assert Everything.objects.filter(name__search="one").exists()
    assert not Everything.objects.filter(name__search="it's '\\ two").exists()


@check
def constraints():
    from django.core.exceptions import ValidationError
    from shop.models import Everything

    for wrong in (
        {"name": "one"},
        {"name": "ONE", "ratio": 0},
        {"name": "it's wrong %"},
        {"name": "two", "during": values()["during"], "flag": True},
        {"name": "two", "big": values()["big"]},
        {"name": "two", "parent_id": 0},
    ):
        try:
            with transaction.atomic():
                Everything.objects.create(**wrong)
        except IntegrityError:
            pass
        else:
            raise AssertionError(wrong)
        try:
            Everything(**wrong).full_clean()
        except ValidationError:
            pass
        else:
            raise AssertionError(wrong)


@check
def introspection():
    text = output("inspectdb", "shop_everything")
    for line in (
        "name = models.CharField(unique=True, max_length=50)",
        "length = models.DurationField(blank=True, null=True)",
        "blob = models.BinaryField(blank=True, null=True)",
        "address = models.GenericIPAddressField(blank=True, null=True)",
        "data = models.JSONField(blank=True, null=True)",
        "key = models.UUIDField()",
        "number = models.DecimalField(max_digits=12, decimal_places=3, blank=True, null=True)",
        "parent = models.ForeignKey('self', models.DO_NOTHING, blank=True, null=True)",
    ):
        assert line in text, (line, text)
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "shop_everything")
    assert found["not_wrong"]["check"] and found["tags_gin"]["type"] == "gin"
    assert found["upper_name"]["unique"] and found["at_brin"]["type"] == "brin"
    assert found["at_brin"]["options"] == ["pages_per_range=4"]


@check
def the_schema_editor():
    from django.db import models
    from shop.models import Everything

    with connection.schema_editor() as editor:
        field = models.CharField(max_length=9, default="it's 5 %", db_default="d'\\")
        field.set_attributes_from_name("extra")
        field.model = Everything
        editor.add_field(Everything, field)
        longer = models.CharField(max_length=99, null=True, db_comment="it's \\")
        longer.set_attributes_from_name("extra")
        longer.model = Everything
        editor.alter_field(Everything, field, longer)
    with connection.cursor() as cursor:
        cursor.execute("SELECT extra FROM shop_everything")
        assert cursor.fetchone() == ("d'\\",)
        cursor.execute(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute "
            "WHERE attrelid = 'shop_everything'::regclass AND attname = 'extra'"
        )
        assert cursor.fetchone() == ("it's \\",)
    with connection.schema_editor() as editor:
        editor.remove_field(Everything, longer)
    with connection.schema_editor(collect_sql=True) as editor:
        editor.execute("SELECT %s, %s", ["it's", 1])
    assert editor.collected_sql == ["SELECT 'it''s', 1;"], editor.collected_sql


@check
def dbshell():
    client = connection.client
    arguments, environment = client.settings_to_cmd_args_env(
        {
            "NAME": "shop",
            "USER": "me",
            "PASSWORD": "secret",
            "HOST": "db.example",
            "PORT": "5433",
            "OPTIONS": {"service": "s", "sslmode": "require", "passfile": "p"},
        },
        ["-c", "SELECT 1"],
    )
    assert arguments == [
        *("psql", "-U", "me", "-h", "db.example", "-p", "5433", "-c", "SELECT 1", "shop")
    ]
    assert environment == {
        "PGPASSWORD": "secret",
        "PGSERVICE": "s",
        "PGSSLMODE": "require",
        "PGPASSFILE": "p",
    }


@check
def explain():
    from shop.models import Everything

    text = Everything.objects.filter(name="it's").explain(analyze=True, verbose=True)
    assert "(actual " in text and "it''s" in text, text
    assert json.loads(Everything.objects.all().explain(format="json"))[0]["Plan"]


@check
def the_last_query():
    from django.test.utils import CaptureQueriesContext
    from shop.models import Everything

    with CaptureQueriesContext(connection) as captured:
        list(Everything.objects.filter(name="it's", at=moment(2020, 1, 1)).values("pk"))
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s, %s", ["100 %", None])
            assert cursor.db.ops.last_executed_query(cursor, "", None) == "SELECT '100 %', NULL"
            cursor.executemany("SELECT %s", [[1], [2]])
    first, second, third = (query["sql"] for query in captured)
    assert "\"name\" = 'it''s'" in first and "'2020-01-01 00:00:00" in first, first
    assert second == "SELECT '100 %', NULL"
    assert third == "2 times: SELECT %s"
    query = str(Everything.objects.filter(name="it's").query)
    assert "it's" in query


@check
def time_zones():
    from django.utils import timezone
    from shop.models import Everything

    with connection.cursor() as cursor:
        cursor.execute("SHOW TIME ZONE")
        zone = "UTC" if settings.USE_TZ else "Asia/Tokyo"
        assert cursor.fetchone() == (zone,)
        cursor.execute("SELECT %s::timestamptz", [moment(2020, 1, 1)])
        (found,) = cursor.fetchone()
    assert found == moment(2020, 1, 1)
    assert (found.tzinfo is None) is not settings.USE_TZ
    one = Everything.objects.get()
    assert one.at == moment(2020, 7, 1, 23, 30, 0, 7)
    if settings.USE_TZ:
        with timezone.override("America/New_York"):
            (day,) = Everything.objects.dates("at", "day")
            assert Everything.objects.filter(at__hour=19).exists()
            assert Everything.objects.datetimes("at", "hour")[0].hour == 19
        assert day == datetime.date(2020, 7, 1)
        assert one.at.tzinfo is UTC


@check
def cursors_on_the_server():
    from shop.models import Everything

    made = Everything.objects.bulk_create(
        [Everything(name=f"n{number:03}", tags=[f"{number}"]) for number in range(250)],
        update_conflicts=True,
        update_fields=["tags"],
        unique_fields=["name"],
    )
    assert all(each.pk for each in made)
    numbered = Everything.objects.filter(name__startswith="n").order_by("name")
    for iterate in numbered, numbered.values_list("name"), numbered.only("name"):
        assert len(list(iterate.iterator(chunk_size=100))) == 250
    with transaction.atomic():
        found = numbered.select_for_update(skip_locked=True, of=("self",)).iterator(chunk_size=7)
        assert next(found).tags == ["0"]
        found.close()
    assert numbered.in_bulk(["n001"], field_name="name")["n001"].tags == ["1"]
    assert numbered.delete()[0] == 250
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert cursor.fetchone() == (0,)


@check
def fixtures():
    from shop.models import Everything

    path = Path("one.json")
    path.write_text(output("dumpdata", "shop", indent=1))
    before = Everything.objects.values().get()
    call_command("flush", interactive=False, verbosity=0)
    assert not Everything.objects.exists()
    call_command("loaddata", str(path), verbosity=0)
    after = Everything.objects.values().get()
    for each in before, after:
        # JSON has milliseconds.
        each.pop("at"), each.pop("moments"), each.pop("clock")
        each["blob"] = bytes(each["blob"])
    assert before == after, (before, after)
    Everything.objects.create(name="its key is a new one").delete()


@check
def forms():
    from django.contrib.postgres import forms
    from django.forms import modelform_factory
    from shop.models import Everything

    form = modelform_factory(Everything, fields=["name", "tags", "span", "attributes"])(
        {"name": "f", "tags": "a,b", "span_0": "1", "span_1": "3", "attributes": '{"a": "b"}'}
    )
    assert form.is_valid(), form.errors
    made = form.save()
    made.refresh_from_db()
    assert (made.tags, made.attributes) == (["a", "b"], {"a": "b"})
    assert (made.span.lower, made.span.upper) == (1, 3)
    made.delete()
    assert forms.DateRangeField().clean(["2020-01-01", "2020-01-02"]).upper.day == 2


@check
def migrating_backwards_and_on():
    call_command("migrate", "shop", "zero", verbosity=0)
    assert "shop_everything" not in connection.introspection.table_names()
    call_command("migrate", "shop", verbosity=0)
    assert "shop_everything" in connection.introspection.table_names()


@check
def the_session():
    assert connection.vendor == "postgresql"
    assert connection.display_name == "PostgreSQL"
    assert connection.pg_version >= 120000
    assert connection.features.has_native_uuid_field
    assert connection.is_usable()
    assert output("check", database=["default"]).startswith("System check identified no issues")


@check
def nothing_else_was_imported():
    if BESIDE:
        return
    assert not [name for name in sys.modules if name.startswith("psycopg") and sys.modules[name]]
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "libpq" not in maps.read_text()


def main() -> None:
    given = json.loads(sys.argv[1])
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    settings.configure(
        **given,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    call_command("makemigrations", "shop", name="initial", verbosity=0)
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    failed = {}
    for name, run in CHECKS.items():
        try:
            run()
        except BaseException:
            failed[name] = traceback.format_exc()
    connection.creation.destroy_test_db(given["DATABASES"]["default"]["NAME"], verbosity=0)
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
