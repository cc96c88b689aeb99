"""What clients write: each of them a token, once."""

from __future__ import annotations

from django.db import models


class Write(models.Model):
    token = models.CharField(max_length=50, unique=True)
