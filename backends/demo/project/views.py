"""The shop's requests, and the demo's own."""

from __future__ import annotations

import time
from random import randint
from typing import Any, cast

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse

from .models import PRODUCTS, Order, Product
from .usage import Usage

#: How long a request is busy with something that is not the database, in seconds.
ELSEWHERE_S = 0.05

#: Of the period that is measured now.
_usage: Usage | None = None


def order(request: HttpRequest) -> HttpResponse:
    """Buy a product: an ORM read, something slow that needs no database, an ORM write."""
    product = Product.objects.get(pk=randint(1, PRODUCTS))
    time.sleep(ELSEWHERE_S)  # Here a real shop would ask its payment service.
    with transaction.atomic():
        Order.objects.create(product=product, price=product.price)
    return HttpResponse("ordered\n")


def stats(request: HttpRequest) -> JsonResponse:
    """What the pool says about itself. POST begins a new period, GET tells about it.

    No database is asked, so this request never waits for a connection.
    """
    global _usage
    # Django's native pool and relet's psycopg adapter both have a psycopg_pool here.
    pool = cast(Any, connection).pool
    if request.method == "POST":
        if _usage is not None:
            _usage.stop()
        pool.pop_stats()
        _usage = Usage(pool)
    counted = pool.get_stats()
    return JsonResponse(
        {
            "wait_ms": counted.get("requests_wait_ms", 0),
            "in_use_mean": 0.0 if _usage is None else _usage.mean,
            "in_use_most": 0 if _usage is None else _usage.most,
        }
    )


def orders(request: HttpRequest) -> JsonResponse:
    """How many orders there are."""
    return JsonResponse({"orders": Order.objects.count()})
