"""A project of django-tenants: three threads, for a tenant each, on a pool of one connection.

`test_other_backends` runs it in a process of its own, for its settings, which it is told in
``RELET_TENANTS``. Says on stderr what went wrong.
"""

import json
import os
import sys
import threading

import django
from django.conf import settings

TOLD = json.loads(os.environ["RELET_TENANTS"])
TENANTS = ("red", "blue")
SHARED = "shared"
#: Each schema has its table.
APPS = ["django.contrib.contenttypes"]
#: It is found in whatever schema the tenant's search path has.
TRIGGER = """
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM set_config('shop.written', 'yes', false); RETURN NULL; END $$;
CREATE TRIGGER written AFTER UPDATE ON django_content_type EXECUTE FUNCTION remember();
"""


def main() -> None:
    settings.configure(
        DATABASES={"default": {"ENGINE": "pooled", **TOLD["DATABASE"]}},
        DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=APPS,
        SHARED_APPS=APPS,
        TENANT_APPS=APPS,
        TENANT_MODEL="none.Tenant",
        PUBLIC_SCHEMA_NAME=SHARED,
        TENANT_LIMIT_SET_CALLS=TOLD["LIMIT"],
        USE_TZ=True,
    )
    django.setup()
    from django.db import connection

    prepare()
    wrong: list[object] = []
    threads = [threading.Thread(target=work, args=[name, wrong]) for name in (SHARED, *TENANTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connection.set_schema_to_public()
    wrong += check(SHARED)
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA shared, red, blue CASCADE")
    connection.close()
    connection.close_pool()
    if wrong:
        sys.exit("\n".join(map(str, wrong[:10])))


def prepare() -> None:
    """Make the schemas, and one row in each, that has its name."""
    from django.contrib.contenttypes.models import ContentType
    from django.core.management import call_command
    from django.db import connection

    for schema in (SHARED, *TENANTS):
        with connection.cursor() as cursor:
            cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            cursor.execute(f"CREATE SCHEMA {schema}")
        connection.set_schema(schema, include_public=False)
        call_command("migrate", verbosity=0)
        ContentType.objects.all().delete()
        ContentType.objects.create(app_label=schema, model="x")
        with connection.cursor() as cursor:
            cursor.execute(TRIGGER)
        connection.close()


def check(schema: str) -> list[object]:
    from django.contrib.contenttypes.models import ContentType

    found = list(ContentType.objects.values_list("app_label", flat=True))
    return [] if found == [schema] else [(schema, found)]


def work(schema: str, wrong: list[object]) -> None:
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection, transaction
    from django_tenants.utils import schema_context

    def at_rest() -> list[object]:
        # `connection.connection` is None, as long as nobody asks for a cursor.
        return [] if connection.connection is None else [(schema, "kept its connection")]

    try:
        with schema_context(schema):
            for turn in range(30):
                wrong += check(schema)
                wrong += at_rest()
                with transaction.atomic():
                    wrong += check(schema)
                    with schema_context(SHARED):
                        wrong += check(SHARED)
                    wrong += check(schema)
                    transaction.set_rollback(turn % 2 == 0)
                wrong += check(schema)
                rows = ContentType.objects.iterator()
                wrong += [row for row in rows if row.app_label != schema]
                wrong += at_rest()
                if turn % 10 == 9:
                    connection.close()
            ContentType.objects.update(model="y")
            if connection.connection is None:
                wrong.append((schema, "what the trigger has set did not keep the connection"))
            connection.close()
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('shop.written', true)")
                if cursor.fetchone()[0]:
                    wrong.append((schema, "what the trigger has set was not undone"))
    except BaseException as error:
        wrong.append((schema, repr(error)))
    finally:
        connection.close()


if __name__ == "__main__":
    main()
