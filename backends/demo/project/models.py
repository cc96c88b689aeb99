"""What the shop sells, and what it has sold."""

from __future__ import annotations

from django.db import models

#: How many products there are, numbered from 1.
PRODUCTS = 1000


class Product(models.Model):
    """Something to buy."""

    name = models.CharField(max_length=100)
    price = models.IntegerField()

    objects = models.Manager()


class Order(models.Model):
    """One product, bought once. A request writes one of these."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE)
    price = models.IntegerField()
    created = models.DateTimeField(auto_now_add=True)

    objects = models.Manager()
