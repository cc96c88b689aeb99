"""relet.queries(server=True): the mean of pg_stat_statements beside the client's."""

import copy
import datetime
import decimal

import pytest
from django.db import connections
from testapp.models import Item

import relet
from relet.backends.reports.server_means import comparable

from ..support.aliases import Aliases
from ..support.dsn import database_of
from ..support.engine import put_small_pool
from ..support.server import VOLATILE, new_server

ALIAS = "measured"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.fixture(scope="module")
def other_server(template):
    with new_server(template, {**VOLATILE, "shared_preload_libraries": "pg_stat_statements"}) as it:
        yield database_of(it.local)


@pytest.fixture
def measured(database, other_server):
    """An alias whose server counts statements; the extension is not on the search path."""
    settings = copy.deepcopy(connections["default"].settings_dict)
    settings.update({**other_server, "OPTIONS": {**settings["OPTIONS"], **other_server["OPTIONS"]}})
    put_small_pool(settings)
    with Aliases() as aliases:
        wrapper = aliases.add(ALIAS, settings)
        relet.queries.reset()
        yield wrapper


def run(wrapper, sql, params=None):
    with wrapper.cursor() as cursor:
        cursor.execute(sql, params)


def notes(report):
    """Those of the alias: other pools' servers have no such extension."""
    return [note for note in report.notes if ALIAS in note]


def install(wrapper):
    run(wrapper, "DROP EXTENSION IF EXISTS pg_stat_statements")
    run(wrapper, 'CREATE SCHEMA IF NOT EXISTS "the stats"')
    run(wrapper, 'CREATE EXTENSION pg_stat_statements SCHEMA "the stats"')


def test_the_means_of_the_server(measured):
    install(measured)
    with measured.schema_editor() as editor:
        editor.create_model(Item)
    items = Item.objects.using(ALIAS)
    items.bulk_create(Item(name=f"{number}") for number in range(3))
    list(items.filter(name__in=["1", "2"], pk__gt=0)[:2])
    items.filter(name="1").update(name="4")
    run(measured, "SELECT %s::text, pg_sleep(0)", ["a value"])
    run(measured, "SELECT %s < now()", [datetime.date(2020, 1, 1)])
    run(measured, "SELECT %s WHERE 1.5 NOT IN (%s, %s)", ["x", decimal.Decimal("2.5"), 3])
    run(measured, "SELECT %(a)s::text WHERE now() NOT IN (%(b)s, now())", {"a": "x", "b": NOW})

    report = relet.queries(limit=None, server=True)
    assert not notes(report)
    known = {row.sql: row.server_mean for row in report.rows if "item" in row.sql}
    known |= {row.sql: row.server_mean for row in report.rows if row.sql.startswith("SELECT %")}
    assert len(known) >= 7
    unknown = [sql for sql, mean in known.items() if mean is None and "CREATE" not in sql]
    assert unknown == []
    assert all(row.server_mean <= row.max for row in report.rows if row.sql in known)
    assert "on server" in str(report)
    assert "on server" not in str(relet.queries())


def test_it_is_not_asked_unless_one_asks(measured):
    run(measured, "SELECT 1")
    assert {row.server_mean for row in relet.queries().rows} == {None}


def test_without_the_extension(measured):
    run(measured, "DROP EXTENSION IF EXISTS pg_stat_statements")
    report = relet.queries(server=True)
    assert notes(report) == [f"DATABASES[{ALIAS!r}]: pg_stat_statements is not installed"]
    assert notes(report)[0] in str(report)


def test_while_the_pool_is_exhausted(measured):
    install(measured)
    run(measured, "SELECT 'first'")
    with relet.hold(ALIAS):
        run(measured, "SELECT 'second'")
        report = relet.queries(server=True)
    assert not notes(report)
    (row,) = (row for row in report.rows if row.sql == "SELECT ?")
    assert row.server_mean is not None


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ("SELECT a FROM b WHERE c IN (%s, %s)", "SELECT a FROM b WHERE c IN ($1, $2)"),
        ("SELECT a FROM b WHERE c IN (%s, %s)", "SELECT a FROM b WHERE c IN ($1 /*, ... */)"),
        ("SELECT a FROM b WHERE c = %s", "SELECT a FROM b WHERE c = $1::timestamptz"),
        ("SELECT a FROM b WHERE c = %s", "SELECT a FROM b WHERE c = $1::pg_catalog.int4[]"),
        ("INSERT INTO a VALUES (%s, 1), (%s, 2)", "INSERT INTO a VALUES ($1, $2), ($3, $4)"),
        ("INSERT INTO a VALUES (%s, %s)", "INSERT INTO a VALUES ($1, $2::timestamptz)"),
        ("SELECT a WHERE b IN (%(b)s, %(c)s)", "SELECT a WHERE b IN ($1, $2)"),
        ("SELECT null, True WHERE a IS NULL", "SELECT $1, $2 WHERE a IS NULL"),
        ("SELECT unnest((%s)::text[])", "SELECT unnest((ARRAY[$1,$2])::text[])"),
        ("SELECT unnest((%s)::text[])", "SELECT unnest((ARRAY[$1 /*, ... */])::text[])"),
        ("SELECT 1; -- done", "SELECT $1"),
        ('SELECT "$1" FROM a$2', 'SELECT "$1" FROM a$2'),
    ],
)
def test_texts_that_are_the_same(client, server):
    assert comparable(client) == comparable(server)


def test_texts_that_are_not_the_same():
    assert comparable("SELECT a FROM b") != comparable("SELECT a FROM c")
