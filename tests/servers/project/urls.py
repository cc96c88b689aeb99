"""Where the views are: each is given a token to write."""

from __future__ import annotations

import os

from django.urls import include, path

from . import views

handler500 = views.server_error

urlpatterns = [
    path("health", views.health),
    path("write/<token>", views.write),
    path("atomic/<token>", views.atomic),
    path("fails/<token>", views.fails),
    path("stream/<token>", views.stream),
    path("state/<token>", views.state),
    path("async/<token>", views.asynchronous),
    path("async-stream/<token>", views.asynchronous_stream),
    path("hold", views.hold),
    path("share/<int:of>", views.share),
    path("idle/<int:ms>", views.idle),
]
if os.environ.get("PROJECT_ADMIN"):
    from django.contrib import admin

    urlpatterns += [
        path("admin/", admin.site.urls),
        path("fleet/", include("relet.dashboard.urls")),
    ]
