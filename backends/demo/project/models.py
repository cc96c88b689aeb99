"""The shop's products and orders."""

from __future__ import annotations

from django.db import models

#: Number of products. Their primary keys begin at 1.
PRODUCTS = 1000


class Product(models.Model):
    """A product for sale."""

    name = models.CharField(max_length=100)
    price = models.IntegerField()

    objects = models.Manager()


class Order(models.Model):
    """An order of one product. Each request writes one."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE)
    price = models.IntegerField()
    created = models.DateTimeField(auto_now_add=True)

    objects = models.Manager()
