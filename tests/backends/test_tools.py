"""Tools that look at each statement cost no lease and no round trip.

Round trips are counted where they pass by, between the driver and the server.
"""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from testapp.models import Item

from . import driver
from .conftest import at_rest

looks_free = pytest.mark.skipif(
    driver.NAME == "psycopg2", reason="a look at a connection of psycopg2's is a use"
)


def work(db):
    """What a request does."""
    with db.cursor() as cursor:
        cursor.execute("SELECT %s", [1])
        assert cursor.fetchone() == (1,)
        cursor.execute("SELECT %s", [2])
        cursor.executemany("SELECT %s", [[3], [4]])
    with transaction.atomic(using=db.alias):
        Item.objects.using(db.alias).create(name="seen")
        assert Item.objects.using(db.alias).filter(name="seen").count() == 1
        transaction.set_rollback(True, using=db.alias)


def round_trips(db, wire):
    """Return how often the server was asked, where what is done once has been done."""
    work(db)
    wire.forget()
    work(db)
    assert at_rest(db)
    return sum(message[:2] == ("server", "Z") for message in wire.messages)


@pytest.fixture
def start_sentry():
    sentry_sdk = pytest.importorskip("sentry_sdk")
    from sentry_sdk.integrations.django import DjangoIntegration

    def start(**options):
        sentry_sdk.init(
            dsn="http://key@localhost:9/1",
            integrations=[DjangoIntegration()],
            default_integrations=False,
            before_send_transaction=lambda event, hint: spans.extend(event["spans"]),
            **options,
        )
        return sentry_sdk.start_transaction(name="a request")

    spans = []
    start.spans = spans
    yield start
    sentry_sdk.init()


@looks_free
@pytest.mark.parametrize("options", [{}, {"traces_sample_rate": 1.0}], ids=["errors", "tracing"])
def test_sentry(watched, wire, start_sentry, options):
    before = round_trips(watched, wire)
    with start_sentry(**options):
        assert round_trips(watched, wire) == before
    if options:
        (told,) = {span["data"]["db.name"] for span in start_sentry.spans if span["op"] == "db"}
        assert told == watched.settings_dict["NAME"]


@driver.needs("psycopg", "instrumentation")
def test_opentelemetry(watched, make, wire):
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.psycopg")
    before = round_trips(watched, wire)
    instrumentor = instrumentation.PsycopgInstrumentor()
    instrumentor.instrument(skip_dep_check=True, enable_commenter=True)
    wrapper = make("traced", HOST="127.0.0.1", PORT=str(wire.port))
    connections["traced"] = wrapper
    try:
        assert round_trips(wrapper, wire) == before
    finally:
        instrumentor.uninstrument()
        wrapper.close()
        del connections["traced"]
