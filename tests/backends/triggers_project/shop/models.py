"""Models with triggers of django-pgtrigger and django-pghistory."""

from typing import ClassVar

import pghistory
import pgtrigger
from django.contrib.postgres.search import SearchVectorField
from django.db import models


@pghistory.track()
class Tracked(models.Model):
    name = models.CharField(max_length=20)


class Guarded(models.Model):
    name = models.CharField(max_length=20)
    is_active = models.BooleanField(default=True)
    state = models.CharField(max_length=20, default="new")
    vector = SearchVectorField(null=True)

    class Meta:
        triggers: ClassVar = [
            pgtrigger.SoftDelete(name="soft_delete", field="is_active"),
            pgtrigger.FSM(name="states", field="state", transitions=[("new", "paid")]),
            pgtrigger.Protect(
                name="paid", operation=pgtrigger.Update, condition=pgtrigger.Q(old__name="fixed")
            ),
            pgtrigger.UpdateSearchVector(
                name="search", vector_field="vector", document_fields=["name"]
            ),
        ]


class Remembered(models.Model):
    name = models.CharField(max_length=20)

    class Meta:
        triggers: ClassVar = [
            pgtrigger.Trigger(
                name="remember",
                operation=pgtrigger.Insert,
                when=pgtrigger.Before,
                func="PERFORM set_config('shop.last', NEW.name, false); RETURN NEW;",
            )
        ]
