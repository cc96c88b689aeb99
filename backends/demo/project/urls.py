"""The shop's URLs."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("order", views.order),
    path("stats", views.stats),
    path("orders", views.orders),
]
