import uuid

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import (
    ArrayField,
    DateRangeField,
    DateTimeRangeField,
    DecimalRangeField,
    HStoreField,
    IntegerRangeField,
    RangeOperators,
)
from django.contrib.postgres.indexes import BrinIndex, GinIndex, GistIndex
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper


class Everything(models.Model):
    """A field of each type that is PostgreSQL's, or has a way of its own there."""

    name = models.CharField(max_length=50, unique=True)
    text = models.TextField(default="", db_index=True)
    tags = ArrayField(models.CharField(max_length=20), default=list)
    grid = ArrayField(ArrayField(models.IntegerField(null=True)), null=True)
    moments = ArrayField(models.DateTimeField(), null=True)
    attributes = HStoreField(null=True)
    span = IntegerRangeField(null=True)
    price = DecimalRangeField(null=True)
    during = DateTimeRangeField(null=True)
    days = DateRangeField(null=True)
    data = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    length = models.DurationField(null=True)
    blob = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    key = models.UUIDField(default=uuid.uuid4)
    at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    clock = models.TimeField(null=True)
    number = models.DecimalField(max_digits=12, decimal_places=3, null=True)
    ratio = models.FloatField(null=True)
    big = models.BigIntegerField(null=True)
    small = models.PositiveSmallIntegerField(null=True)
    flag = models.BooleanField(null=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True)

    class Meta:
        constraints = (
            ExclusionConstraint(
                name="one_at_a_time",
                expressions=[("during", RangeOperators.OVERLAPS), ("flag", RangeOperators.EQUAL)],
            ),
            models.CheckConstraint(condition=~Q(name="it's wrong %"), name="not_wrong"),
            models.UniqueConstraint(
                fields=["big"], name="big_in_the_end", deferrable=models.Deferrable.DEFERRED
            ),
            models.UniqueConstraint(Upper("name"), condition=Q(ratio__gt=-1.5), name="upper_name"),
        )
        indexes = (
            GinIndex(fields=["tags"], name="tags_gin"),
            GinIndex(fields=["text"], name="text_trigrams", opclasses=["gin_trgm_ops"]),
            GistIndex(fields=["span"], name="span_gist"),
            BrinIndex(fields=["at"], name="at_brin", pages_per_range=4),
        )
