"""The tables of the fleet; on PostgreSQL UNLOGGED, and vacuumed as befits rows that beat."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

#: A row of `Process` is written anew with each beat, so its page is to have room for versions of
#: it, and what is dead is to be collected soon: by count, whatever the size of the table is.
_STORAGE = {
    "relet_dashboard_process": (
        "fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, "
        "autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_threshold = 2000, "
        "toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_cost_delay = 0"
    ),
    "relet_dashboard_ask": "fillfactor = 10",
    "relet_dashboard_minute": "autovacuum_vacuum_scale_factor = 0.05",
}


def unlog(apps: Any, schema_editor: Any) -> None:
    """Have the tables written without WAL."""
    if schema_editor.connection.vendor != "postgresql":
        return
    for table, storage in _STORAGE.items():
        schema_editor.execute(f"ALTER TABLE {table} SET UNLOGGED")
        schema_editor.execute(f"ALTER TABLE {table} SET ({storage})")
    # They are compressed already.
    for column in ("now", "totals"):
        schema_editor.execute(
            f"ALTER TABLE relet_dashboard_process ALTER COLUMN {column} SET STORAGE EXTERNAL"
        )


class Migration(migrations.Migration):
    initial = True

    dependencies = ()

    operations = (
        migrations.CreateModel(
            name="Process",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("host", models.TextField()),
                ("pid", models.IntegerField()),
                ("version", models.TextField()),
                ("started_at", models.DateTimeField()),
                ("beat_at", models.DateTimeField()),
                ("interval", models.FloatField()),
                ("now", models.TextField()),
                ("totals", models.TextField()),
            ],
            options={
                "verbose_name": "fleet",
                "verbose_name_plural": "fleet",
                "default_permissions": (),
                "permissions": (
                    ("view_fleet", "Can view the fleet"),
                    ("end_session", "Can end a session of the database"),
                ),
            },
        ),
        migrations.CreateModel(
            name="Ask",
            fields=[
                ("what", models.CharField(max_length=20, primary_key=True, serialize=False)),
                ("until", models.DateTimeField()),
            ],
            options={"default_permissions": ()},
        ),
        migrations.CreateModel(
            name="Minute",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("minute", models.DateTimeField()),
                ("host", models.TextField()),
                ("alias", models.TextField()),
                ("size", models.FloatField()),
                ("in_use", models.FloatField()),
                ("waiting", models.FloatField()),
                ("checkouts", models.BigIntegerField()),
                ("waits", models.BigIntegerField()),
                ("waited", models.FloatField()),
                ("timeouts", models.BigIntegerField()),
            ],
            options={
                "default_permissions": (),
                "indexes": [models.Index(fields=["minute"], name="relet_dashboard_minute_at")],
            },
        ),
        # The hint lets routers know which tables this is about.
        migrations.RunPython(unlog, migrations.RunPython.noop, hints={"model_name": "process"}),
    )
