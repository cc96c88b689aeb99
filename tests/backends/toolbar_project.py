"""A project with django-debug-toolbar. Called with its ``DATABASES``, and a page to request.

It prints, as JSON, what the panel has recorded, and the HTML that the toolbar makes of it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path

SECRET = "s3cr3t-4711"


def page():
    return HttpResponse("<html><body>page</body></html>")


def run(sql, params=None, alias="default"):
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall()


def plain(request):
    for _ in range(2):
        run("SELECT %s::text", [SECRET])
    run(f"SELECT '{SECRET}', 1")
    return page()


def idle(request):
    from django.db import transaction

    with transaction.atomic():
        run("SELECT 1")
        time.sleep(0.05)  # the slow call that the panel is to find
        run("SELECT 2")
    return page()


def fails(request):
    from django.db import DataError

    try:
        run(f"SELECT '{SECRET}'::int")
    except DataError:
        return page()


def unseen(request):
    run("SELECT 1", alias="unseen")
    return page()


async def from_async(request):
    await sync_to_async(run)("SELECT 1")
    return page()


def warm_up(request):
    for alias in "default", "unseen":
        run("SELECT 1", alias=alias)
    return page()


urlpatterns = [
    path(view.__name__, view) for view in (warm_up, plain, idle, fails, unseen, from_async)
]


def main(databases, view):
    settings.configure(
        DATABASES=databases,
        ALLOWED_HOSTS=["*"],
        DEBUG=True,
        DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True},
        DEBUG_TOOLBAR_PANELS=["relet.debug_toolbar.LeasesPanel"],
        INSTALLED_APPS=["django.contrib.staticfiles", "debug_toolbar"],
        MIDDLEWARE=["debug_toolbar.middleware.DebugToolbarMiddleware"],
        ROOT_URLCONF=__name__,
        STATIC_URL="/static/",
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
        ],
    )
    django.setup()
    urlpatterns.append(path("__debug__/", include("debug_toolbar.urls")))
    from debug_toolbar.panels import Panel

    recorded = []
    record = Panel.record_stats
    Panel.record_stats = lambda panel, stats: (recorded.append(stats), record(panel, stats))
    request_page(warm_up.__name__)  # a connection that is being opened is waited for
    recorded.clear()
    response = request_page(view)
    html = response.content.decode()
    (store_id,) = re.findall(r'data-(?:store|request)-id="(\w+)"', html)
    for name in "request_id", "store_id":
        panel = Client().get(
            "/__debug__/render_panel/", {name: store_id, "panel_id": "LeasesPanel"}
        )
        if panel.status_code == 200:
            break
    print(
        json.dumps(
            {
                "recorded": recorded[-1]["aliases"],
                "toolbar": html,
                "panel": panel.json()["content"],
                "timing": response.headers.get("Server-Timing"),
            }
        )
    )


def request_page(view):
    if view == from_async.__name__:
        return asyncio.run(AsyncClient().get(f"/{view}"))
    return Client().get(f"/{view}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
