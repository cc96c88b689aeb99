"""Tasks that write a token, or fail to."""

from __future__ import annotations

import time

from django.db import connection, transaction

import relet

from .celery import app
from .models import Write
from .views import ELSEWHERE_S, assert_clean


@app.task
def write(token: str) -> None:
    """Read, do something else, write."""
    assert_clean()
    time.sleep(ELSEWHERE_S)
    Write.objects.create(token=token)
    assert write.name in {row.route for row in relet.routes(by="leases").rows}


@app.task
def state(token: str) -> None:
    """Leave something in the session."""
    assert_clean()
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '7s'")
    Write.objects.create(token=token)


# Celery logs a traceback, unless the error is one that it is told to expect.
@app.task(throws=(RuntimeError,))
@transaction.atomic
def fails(token: str) -> None:
    """Write in a transaction that is rolled back."""
    Write.objects.create(token=token)
    raise RuntimeError("this task fails")
