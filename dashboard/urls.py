"""Where the page is: ``path("fleet/", include("relet.dashboard.urls"))``."""

from __future__ import annotations

from django.urls import path

from .page import views

app_name = "relet_dashboard"

urlpatterns = [
    path("", views.page, name="fleet"),
    path("end/", views.end, name="end"),
    path("fleet.css", views.style, name="style"),
]
