"""Use an installed relet, as its first users do: `python smoke.py` in an environment of its own.

`nox -s release` runs it. It is no test of pytest's: it needs nothing but `relet[demo]`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import django
from django.conf import settings

import relet
from relet.backends.embedded import embedded_postgres


def use() -> None:
    from django.core.management import call_command
    from django.db import connection, models, transaction

    class Order(models.Model):
        number = models.IntegerField()

        class Meta:
            app_label = "smoke"

    with connection.schema_editor() as editor:
        editor.create_model(Order)
    with transaction.atomic():
        for number in range(10):
            Order.objects.create(number=number)
    assert [order.number for order in Order.objects.order_by("number").iterator()] == [*range(10)]
    assert connection.connection is None, "a connection is kept"
    with relet.hold(), connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '5s'")
        assert connection.connection is not None
    assert connection.connection is None, "a connection is kept after hold()"
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",), "a setting has leaked"
    assert "smoke_order" in str(relet.queries())
    call_command("check", databases=["default"])


def main() -> None:
    assert relet.__file__ is not None
    where = Path(relet.__file__).parent
    assert "site-packages" in where.parts, f"relet is not installed, but found in {where}"
    with embedded_postgres() as server:
        default = {**server.database(), "ENGINE": "relet.backends.psycopg"}
        settings.configure(
            DATABASES={"default": default},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            USE_TZ=True,
        )
        django.setup()
        use()
        relet.close_all(5)
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"relet {relet.__version__} works: Python {python}, Django {django.__version__}")


if __name__ == "__main__":
    main()
