"""The request's end, under WSGI, ASGI, and where there is no request, ends what is kept."""

import asyncio
import threading
from types import ModuleType

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection, connections
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path

from relet import policies

from ..support.pools import at_rest, backend_pid, stats
from .test_session_state import in_session, run

SEEN = []


def stateful(request):
    run(connection, "SET lock_timeout = '9s'")
    pid = backend_pid(connection)
    run(connection, "SELECT pg_advisory_lock(21)")
    SEEN.append((backend_pid(connection) == pid, run(connection, "SHOW lock_timeout")[0][0]))
    return HttpResponse("done")


async def asynchronous(request):
    from asgiref.sync import sync_to_async

    return await sync_to_async(stateful)(request)


def plain(request):
    SEEN.append(run(connection, "SHOW lock_timeout")[0][0])
    return HttpResponse("done")


@pytest.fixture(autouse=True)
def site(db):
    """A site with the views above, on a pool of one connection."""
    urls = ModuleType("relet_test_urls")
    urls.urlpatterns = [
        path("stateful", stateful),
        path("asynchronous", asynchronous),
        path("plain", plain),
    ]
    SEEN.clear()
    backend_pid(db)
    before = in_session(db)
    with override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
        yield
    # As it was: in the pool, and in its session.
    assert at_rest(db)
    assert in_session(db) == before


def wsgi(handler, url):
    environ = RequestFactory().get(url).environ
    response = handler(environ, lambda status, headers: None)
    body = b"".join(response)
    response.close()
    return body


def test_wsgi(db):
    handler = WSGIHandler()
    for _ in range(2):
        assert wsgi(handler, "/stateful") == b"done"
        assert at_rest(db)
        assert wsgi(handler, "/plain") == b"done"
    assert SEEN == [(True, "9s"), "0"] * 2


def test_wsgi_in_threads(db):
    """Each waits for the pool's only connection, and gets it clean."""
    handler = WSGIHandler()

    def work():
        for _ in range(5):
            wsgi(handler, "/stateful")
            wsgi(handler, "/plain")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(SEEN, key=str) == sorted([(True, "9s"), "0"] * 20, key=str)


@pytest.mark.parametrize("url", ["/stateful", "/asynchronous"])
def test_asgi(db, url):
    async def get(handler, url):
        sent = []
        scope = {"type": "http", "method": "GET", "path": url, "headers": [], "query_string": b""}
        scope["asgi"] = {"version": "3.0"}
        body = asyncio.Event()

        async def receive():
            if body.is_set():
                await asyncio.Future()  # no disconnect
            body.set()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await handler(scope, receive, send)
        return b"".join(message.get("body", b"") for message in sent)

    async def main():
        handler = ASGIHandler()
        assert await get(handler, url) == b"done"
        assert stats(db).in_use == 0
        assert await get(handler, "/plain") == b"done"

    asyncio.run(main())
    assert SEEN == [(True, "9s"), "0"]


def test_a_management_command(db):
    class Command(BaseCommand):
        def handle(self, **options):
            stateful(None)

    call_command(Command())
    assert stats(db).in_use == 1
    connections.close_all()  # as at the end of `manage.py`


def test_close_old_connections(db):
    """What workers, Celery's Django fix-up among them, call between jobs."""
    stateful(None)
    close_old_connections()
    assert at_rest(db)


def test_a_thread(db):
    def work():
        stateful(None)
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("signal", [request_started, request_finished])
def test_the_signals(db, signal):
    stateful(None)
    signal.send(sender=None, environ={})
    assert at_rest(db)
    request_finished.send(sender=None)  # or the request would go on in other tests


def test_a_policy_in_a_middleware(db):
    """A block around a request."""
    handler = WSGIHandler()
    with override_settings(MIDDLEWARE=[f"{__name__}.holding"]):
        handler.load_middleware()
    wsgi(handler, "/plain")
    assert SEEN == ["request", "0"]


def holding(get_response):
    def middleware(request):
        with policies.override("default", release="request"):
            SEEN.append(policies["default"].release)
            return get_response(request)

    return middleware
