"""What a route is called: requests, tasks, commands, threads."""

import asyncio
import json
import subprocess
import sys
import types

import pytest
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path, re_path

import relet
from relet.backends.observe import routes, scopes
from relet.backends.observe.scopes import CURRENT

from ..support.threads import in_thread


def run(name):
    with connections["default"].cursor() as cursor:
        cursor.execute(f"SELECT 1 AS {name}")


def view(request, **kwargs):
    run("view")
    return HttpResponse("")


def labelled(request):
    with relet.label("a part"):
        run("part")
    run("view")
    return HttpResponse("")


def streaming(request):
    def rows():
        run("streamed")
        yield b""

    return StreamingHttpResponse(rows())


async def asynchronous(request, pk):
    from asgiref.sync import sync_to_async

    await sync_to_async(run)("asynchronous")
    return HttpResponse("")


urlpatterns = [
    path("", view),
    path("orders/<int:pk>/", view),
    path("labelled/", labelled),
    path("streaming/", streaming),
    path("async/<int:pk>/", asynchronous),
    re_path(r"^old/(?P<pk>\d+)/$", view),
    path("api/", include([path("items/<slug:pk>/", view)])),
]


def middleware(get_response):
    def handle(request):
        run("middleware")
        return get_response(request)

    return handle


@pytest.fixture(autouse=True)
def site(db):
    run("first")  # observation begins with the first pool
    relet.queries.reset()
    with override_settings(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[f"{__name__}.middleware"]
    ):
        yield
    assert CURRENT.get() is None


def found():
    """The route of each statement."""
    return {row.sql.rpartition(" ")[2]: row.route for row in relet.queries().rows}


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("/", "/"),
        ("/orders/7/", "/orders/<int:pk>/"),
        ("/old/7/", r"/old/(?P<pk>\d+)/$"),
        ("/api/items/x/", "/api/items/<slug:pk>/"),
    ],
)
def test_a_request_is_its_url_pattern(url, route):
    assert Client().get(url).status_code == 200
    assert found() == {"middleware": "(middleware)", "view": route}


def test_a_url_that_does_not_exist():
    assert Client().get("/nonsense/secret/").status_code == 404
    assert found() == {"middleware": "(middleware)"}


def test_a_label_names_a_part_of_a_request():
    Client().get("/labelled/")
    assert found() == {"middleware": "(middleware)", "part": "a part", "view": "/labelled/"}


def test_a_streamed_response_is_part_of_its_request():
    response = Client().get("/streaming/")
    list(response.streaming_content)
    response.close()
    assert found()["streamed"] == "/streaming/"


def test_asynchronous_requests():
    async def main():
        return await AsyncClient().get("/async/7/")

    assert asyncio.run(main()).status_code == 200
    assert found()["asynchronous"] == "/async/<int:pk>/"


def test_asgi():
    from django.core.handlers.asgi import ASGIHandler

    async def main():
        handler = ASGIHandler()
        sent = []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "GET",
            "path": "/async/7/",
            "query_string": b"",
            "headers": [(b"host", b"testserver")],
        }
        received = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive():
            try:
                return next(received)
            except StopIteration:
                await asyncio.sleep(3600)

        async def send(message):
            sent.append(message)

        await asyncio.gather(*(handler(scope, receive, send) for _ in range(1)))
        return sent

    assert asyncio.run(main())[0]["status"] == 200
    assert found() == {
        "middleware": "(middleware)",
        "asynchronous": "/async/<int:pk>/",
    }


def test_a_management_command():
    class Command(BaseCommand):
        def handle(self, *args, **options):
            run("command")

    Command.__module__ = "shop.management.commands.nightly"
    call_command(Command())
    assert found() == {"command": "manage.py nightly"}


def test_a_command_that_a_request_calls_belongs_to_the_request():
    class Command(BaseCommand):
        def handle(self, *args, **options):
            run("command")

    with relet.label("caller"):
        call_command(Command())
    assert found() == {"command": "caller"}


def test_a_thread():
    def work():
        run("threaded")
        connections["default"].close()

    in_thread(work)
    assert found()["threaded"].startswith("(thread Thread-N")


def test_celery(monkeypatch):
    """Celery's own signals are tested with Celery, in tests/servers."""

    class Signal:
        receivers = ()

        def connect(self, receiver, **options):
            self.receivers = (receiver,)

        def send(self, **options):
            for receiver in self.receivers:
                receiver(**options)

    signals = types.ModuleType("celery.signals")
    signals.task_prerun, signals.task_postrun = Signal(), Signal()
    celery = types.ModuleType("celery")
    celery.signals, celery.current_task = signals, None
    monkeypatch.setitem(sys.modules, "celery", celery)
    monkeypatch.setitem(sys.modules, "celery.signals", signals)
    monkeypatch.setattr(routes, "_celery_connected", False)
    routes.fallback()
    task = types.SimpleNamespace(name="shop.tasks.send")
    signals.task_prerun.send(task=task)
    run("task")
    signals.task_postrun.send(task=task)
    run("afterwards")
    assert found() == {"task": "shop.tasks.send", "afterwards": "(thread MainThread)"}


def depth():
    found, scope = 0, CURRENT.get()
    while scope is not None:
        found, scope = found + 1, scope.outer
    return found


@pytest.fixture
def own_context():
    before = CURRENT.get()
    yield
    CURRENT.set(before)


def test_requests_that_never_finish_do_not_pile_up(own_context):
    with relet.label("around"):
        for _ in range(1_000):
            scopes.enter("(middleware)", routes._REQUEST)
            with relet.label("inside"):
                pass
            assert scopes.current_route() == "(middleware)"
            assert 1 < depth() <= 200
        run("in_the_last")
    run("afterwards")
    assert found() == {"in_the_last": "(middleware)", "afterwards": "(thread MainThread)"}


def test_blocks_of_generators_that_are_dropped_do_not_pile_up(own_context):
    """They are closed by the event loop, in another context."""

    async def generate():
        async with relet.label("generated"):
            yield 1

    async def use():
        async with relet.label("around"):
            for _ in range(1_000):
                async for _ in generate():
                    break
                await asyncio.sleep(0)
            assert depth() <= 200

    asyncio.run(use())


def test_labels_of_any_depth_end_where_they_began(own_context):
    def work(levels):
        with relet.label(f"level {levels}"):
            if levels:
                work(levels - 1)
            assert scopes.current_route() == f"level {levels}"

    @relet.label("recursive")
    def recursive(levels):
        if levels:
            recursive(levels - 1)
        assert scopes.current_route() == "recursive"

    scopes.enter("/url", routes._REQUEST)
    with relet.label("around"):
        for levels in (3, 20, 150, 250):
            work(levels)
            recursive(levels)
            assert scopes.current_route() == "around"
        run("afterwards")
    assert found() == {"afterwards": "around"}


def test_requests_and_tasks_within_each_other_end_where_they_began(own_context):
    for owner in routes._REQUEST, routes._TASK:
        before = depth()
        for level in range(40):
            scopes.enter(f"level {level}", owner)
        for level in reversed(range(40)):
            assert scopes.current_route() == f"level {level}"
            scopes.leave(owner)
        assert depth() == before


def test_a_route_is_cut():
    with relet.label("x" * 1000):
        run("cut")
    assert found()["cut"] == "x" * 200


COMMAND = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
Path("management_app/management/commands").mkdir(parents=True)
for folder in "management_app", "management_app/management", "management_app/management/commands":
    Path(folder, "__init__.py").touch()
Path("management_app/models.py").write_text(
    "from django.db import models\\nclass Thing(models.Model): pass"
)
Path("management_app/management/commands/report.py").write_text(
    "from django.core.management.base import BaseCommand\\n"
    "from django.db import connection\\n"
    "import relet\\n"
    "class Command(BaseCommand):\\n"
    "    requires_system_checks = []\\n"
    "    def handle(self, *args, **options):\\n"
    "        connection.cursor().execute('SELECT 1')\\n"
    "        print([row.route for row in relet.routes().rows])\\n"
)
from django.conf import settings
settings.configure(
    DATABASES={"default": json.loads(sys.argv[1])}, INSTALLED_APPS=["management_app"]
)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "report"])
"""


def test_the_command_of_the_command_line(db, tmp_path):
    """Models make a wrapper before it begins."""
    command = [sys.executable, "-W", "ignore", "-c", COMMAND]
    command.append(json.dumps(db.settings_dict, default=str))
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.strip() == "['manage.py report']", done.stderr
