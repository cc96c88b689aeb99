from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("fleet/", include("relet.dashboard.urls")),
    path("accounts/login/", LoginView.as_view(), name="login"),
]
