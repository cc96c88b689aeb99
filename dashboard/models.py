"""The tables, which relet writes with SQL of its own; see `relet.dashboard.tables`.

They are UNLOGGED: what is in them is worth nothing after a crash, and the server writes no WAL for
it. They are the database's, not the project's: no model here is meant to be used in code.
"""

from __future__ import annotations

from django.db import models


class Process(models.Model):
    """A process, as it has last reported itself.

    :ivar id: random, so that neither host names nor process ids need to be unique.
    :ivar beat_at: when it did so, by the server's clock, as all times here.
    :ivar interval: seconds until it means to do so again.
    :ivar now: what it has and does at this moment, and `totals` what it has counted so far, which
        is written less often; see `relet.dashboard.payload`, and for the text `packing`.
    """

    id = models.UUIDField(primary_key=True)
    host = models.TextField()
    pid = models.IntegerField()
    version = models.TextField()
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    interval = models.FloatField()
    now = models.TextField()
    totals = models.TextField()

    class Meta:
        default_permissions = ()
        permissions = (
            ("view_fleet", "Can view the fleet"),
            ("end_session", "Can end a session of the database"),
        )
        verbose_name = "fleet"
        verbose_name_plural = "fleet"


class Ask(models.Model):
    """What somebody who looks at the fleet asks of the processes, and until when."""

    what = models.CharField(primary_key=True, max_length=20)
    until = models.DateTimeField()

    class Meta:
        default_permissions = ()


class Minute(models.Model):
    """What happened in the pools of one alias of one process in one minute.

    :ivar size: the mean of what was seen in that minute, as `in_use` and `waiting`.
    :ivar checkouts: how many there were in that minute, as all that follow.
    :ivar waited: in seconds.
    """

    minute = models.DateTimeField()
    host = models.TextField()
    alias = models.TextField()
    size = models.FloatField()
    in_use = models.FloatField()
    waiting = models.FloatField()
    checkouts = models.BigIntegerField()
    waits = models.BigIntegerField()
    waited = models.FloatField()
    timeouts = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        indexes = (models.Index(fields=["minute"], name="relet_dashboard_minute_at"),)
