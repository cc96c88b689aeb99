"""The views of the shop, and those that the demo itself uses."""

from __future__ import annotations

import time
from random import randint
from typing import Any, cast

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse

from .models import PRODUCTS, Order, Product
from .usage import Usage

#: Seconds that a request spends outside the database.
ELSEWHERE_S = 0.05

#: The samples of the current period.
_usage: Usage | None = None


def order(request: HttpRequest) -> HttpResponse:
    """Buy a product: an ORM read, slow work outside the database, and an ORM write."""
    product = Product.objects.get(pk=randint(1, PRODUCTS))
    time.sleep(ELSEWHERE_S)  # a real shop would call its payment service here
    with transaction.atomic():
        Order.objects.create(product=product, price=product.price)
    return HttpResponse("ordered\n")


def stats(request: HttpRequest) -> JsonResponse:
    """Return the pool's statistics. POST begins a new period, GET returns its figures.

    This view does not query, so it never waits for a connection.
    """
    global _usage
    # A psycopg_pool, for both Django's native pool and relet's psycopg adapter.
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
    """Return the number of orders."""
    return JsonResponse({"orders": Order.objects.count()})
