"""django-debug-toolbar reads ``connection.connection`` before and after each statement."""

import pytest
from django.conf import settings
from django.core.checks.registry import registry
from django.db import transaction
from django.test import override_settings
from testapp.models import Item

from ..support import driver
from ..support.pools import stats


class Logger:
    def __init__(self):
        self.seen = []

    def record(self, **fields):
        self.seen.append((fields["sql"], fields["trans_id"]))

    def new_transaction_id(self, alias):
        return "transaction"

    def current_transaction_id(self, alias):
        return "transaction"


@pytest.fixture
def panel(db):
    """The toolbar's SQL panel at work on the wrapper."""
    apps = [*settings.INSTALLED_APPS, "django.contrib.staticfiles", "debug_toolbar"]
    known = {*registry.registered_checks}
    with override_settings(STATIC_URL="/static/"), override_settings(INSTALLED_APPS=apps):
        from debug_toolbar.panels.sql.tracking import wrap_cursor

        wrap_cursor(db)
        db._djdt_logger = logger = Logger()
        yield logger.seen
        # The apps' checks would go on to be run, where the apps are not installed.
        registry.registered_checks = known
        db._djdt_logger = None
        del db.cursor, db.chunked_cursor, db._djdt_cursor, db._djdt_chunked_cursor


def test_statements_are_recorded_and_released(db, panel):
    with db.cursor() as cursor:
        for number in range(3):
            cursor.execute("SELECT %s", [number])
            assert cursor.fetchone() == (number,)
            assert stats(db).in_use == 0
    assert panel == [(f"SELECT {number}", None) for number in range(3)]


@pytest.mark.skipif(driver.NAME == "pg8000", reason="the panel knows psycopg's transactions alone")
def test_transactions_are_recognised(db, panel):
    with transaction.atomic():
        assert Item.objects.count() == 0
    assert [trans_id for _, trans_id in panel] == ["transaction"]
    assert stats(db).in_use == 0
