"""A project of django-pgtrigger, django-pghistory and django-pglock, on a pool of one connection.

`test_trigger_packages` runs it in a process of its own, for its settings, which it is told in
``RELET_TRIGGERS``. Says on stderr what went wrong.
"""

import json
import logging
import os
import sys

import django
from django.conf import settings

TOLD = json.loads(os.environ["RELET_TRIGGERS"])


class Messages(logging.Handler):
    """What relet has logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def main() -> None:
    settings.configure(
        DATABASES={"default": TOLD["DATABASE"]},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.contenttypes", "pgtrigger", "pghistory", "shop"],
        MIGRATION_MODULES={"shop": None},
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    messages = Messages()
    logging.getLogger("relet").addHandler(messages)
    call_command("migrate", verbosity=0, run_syncdb=True)
    call_command("pgtrigger", "install", verbosity=0)
    connection.close()
    messages.texts.clear()
    wrong = check(messages.texts)
    with connection.cursor() as cursor:
        cursor.execute(
            "DROP TABLE shop_tracked, shop_trackedevent, shop_guarded, shop_remembered CASCADE"
        )
    connection.close()
    connection.close_pool()
    if wrong:
        sys.exit("\n".join(wrong))


def check(logged: list[str]) -> list[str]:
    import pghistory
    import pglock
    import pgtrigger
    from django.db import connection, transaction
    from shop.models import Guarded, Remembered, Tracked

    wrong: list[str] = []

    def expect(what: str, *, rests: bool) -> None:
        if (connection.connection is None) is not rests:
            wrong.append(f"{what}: at rest is {not rests}; logged: {logged}")
        if rests and logged:
            wrong.append(f"{what}: {logged}")
        logged.clear()
        connection.close()

    Tracked.objects.create(name="a")
    Tracked.objects.update(name="b")
    Tracked.objects.all().delete()
    expect("pghistory.track()", rests=True)
    with pghistory.context(user=1):
        Tracked.objects.create(name="c")
        expect("pghistory.context()", rests=True)
        with transaction.atomic():
            Tracked.objects.update(name="d")
    expect("pghistory.context() in a transaction", rests=True)
    if Tracked.events.rel.related_model.objects.count() != 4:  # two inserts, two updates
        wrong.append("some events are missing")
    guarded = Guarded.objects.create(name="a")
    guarded.state = "paid"
    guarded.save()
    guarded.delete()
    expect("pgtrigger.SoftDelete, FSM and Protect", rests=True)
    with pgtrigger.ignore("shop.Guarded:states"):
        Guarded.objects.update(state="old")
    expect("pgtrigger.ignore()", rests=True)
    Remembered.objects.create(name="a")
    if not any("by trigger pgtrigger_remember_" in text for text in logged):
        wrong.append(f"the log does not name the trigger: {logged}")
    expect("a trigger that sets a setting", rests=False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('shop.last', true)")
        if cursor.fetchone()[0]:
            wrong.append("the setting of a trigger was not undone")
    with pglock.advisory("job"):
        if connection.connection is None:
            wrong.append("pglock.advisory() does not keep its connection")
    logged.clear()
    expect("after pglock.advisory()", rests=True)
    with transaction.atomic():
        pglock.advisory("job", xact=True).acquire()
    expect("pglock.advisory(xact=True)", rests=True)
    return wrong


if __name__ == "__main__":
    main()
