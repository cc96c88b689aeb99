"""Tools that look at each statement cost no lease and no round trip.

They change Django and the driver for the whole process, so each is in a child. Round trips are
counted where they pass by, between the driver and the server.
"""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from testapp.models import Item

from ..support import driver
from ..support.forks import child_of, needs_fork
from ..support.pools import at_rest
from ..support.wire import Wire

pytestmark = needs_fork


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
def in_child(database, make):
    """Runs a function in a child, with a wrapper whose connections pass by a `Wire`."""
    params = connections["default"].get_connection_params()
    where = {"host": params.get("host") or "localhost", "port": params.get("port") or 5432}

    def run(function):
        def child():
            with Wire(where) as wire:
                wrapper = make("watched", HOST="127.0.0.1", PORT=str(wire.port))
                connections["watched"] = wrapper
                function(wrapper, wire)
                wrapper.close()

        assert child_of(child, within=60) == 0

    return run


@pytest.mark.skipif(driver.NAME == "psycopg2", reason="a look at a connection of its is a use")
@pytest.mark.parametrize("options", [{}, {"traces_sample_rate": 1.0}], ids=["errors", "tracing"])
def test_sentry(in_child, options):
    sentry_sdk = pytest.importorskip("sentry_sdk")

    def look_on(wrapper, wire):
        from sentry_sdk.integrations.django import DjangoIntegration

        before, spans = round_trips(wrapper, wire), []
        sentry_sdk.init(
            dsn="http://key@localhost:9/1",
            integrations=[DjangoIntegration()],
            default_integrations=False,
            before_send_transaction=lambda event, hint: spans.extend(event["spans"]),
            **options,
        )
        with sentry_sdk.start_transaction(name="a request"):
            assert round_trips(wrapper, wire) == before
        if options:
            (told,) = {span["data"]["db.name"] for span in spans if span["op"] == "db"}
            assert told == wrapper.settings_dict["NAME"]

    in_child(look_on)


@driver.needs("psycopg", "instrumentation")
def test_opentelemetry(in_child, make):
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.psycopg")

    def look_on(wrapper, wire):
        before = round_trips(wrapper, wire)
        instrumentation.PsycopgInstrumentor().instrument(skip_dep_check=True, enable_commenter=True)
        traced = make("traced", HOST="127.0.0.1", PORT=str(wire.port))
        connections["traced"] = traced
        assert round_trips(traced, wire) == before

    in_child(look_on)
