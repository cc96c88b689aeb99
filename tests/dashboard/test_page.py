"""The page: what is on it, and who may see it and end sessions."""

from __future__ import annotations

import re
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest
from django.db import connections, transaction
from django.test import Client

import relet

from ..support import driver
from ..support.pools import backend_pid
from ..support.threads import Thread
from ..support.waiting import until
from .conftest import insert, run

PAGES = ("/fleet/", "/admin/relet_dashboard/process/")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7|add:1 }}"
#: How a hostile text may stand in the page: as text.
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&gt;&lt;img src=x onerror=alert(2)&gt;"


@pytest.fixture
def make_user(db):
    """Make a user who is staff, with permissions; return a client that is logged in."""
    from django.contrib.auth.models import Permission, User

    def make_user(*permissions, staff=True, csrf=False):
        User.objects.all().delete()
        user = User.objects.create(username="u", is_staff=staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        assert user.user_permissions.count() == len(permissions)
        client = Client(enforce_csrf_checks=csrf)
        client.force_login(user)
        return client

    return make_user


@pytest.fixture
def viewer(make_user):
    return make_user("view_fleet")


def test_nobody_sees_it_without_logging_in(db):
    for page in PAGES:
        response = Client().get(page)
        assert response.status_code == 302
        assert "/login/" in response["Location"]
    assert Client().get("/fleet/?format=json").status_code == 403


@pytest.mark.parametrize("permissions", [(), ("end_session",)])
def test_nobody_sees_it_without_the_permission(make_user, permissions):
    client = make_user(*permissions)
    for page in PAGES:
        assert client.get(page).status_code == 403
        assert client.get(f"{page}?format=json").status_code == 403
    assert "relet_dashboard" not in client.get("/admin/").content.decode()


def test_the_admin_is_for_staff(make_user):
    client = make_user("view_fleet", staff=False)
    assert client.get(PAGES[0]).status_code == 200
    assert client.get(PAGES[1]).status_code == 302


def test_the_admin_leads_to_it(viewer):
    index = viewer.get("/admin/").content.decode()
    assert f'href="{PAGES[1]}"' in index


@pytest.mark.parametrize("page", PAGES)
def test_what_a_process_reports_is_on_the_page(viewer, reporter, page):
    with relet.label("nightly import"):
        run(connections["default"], "SELECT %s::text AS found", ["s3cr3t"])
    reporter.beat()
    text = viewer.get(page).content.decode()
    for part in ("SELECT %s::text AS found", "nightly import", reporter_name(), "1/1"):
        assert part in text
    assert "s3cr3t" not in text


def reporter_name():
    import os
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"


def test_json_has_the_same(viewer, reporter):
    reporter.beat()
    found = viewer.get("/fleet/?format=json").json()
    assert [row["alias"] for row in found["pools"]] == ["default"] * 2
    assert found["notes"] == []
    assert {"processes", "pools", "routes", "queries", "sessions", "series"} <= found.keys()


def test_looking_at_it_asks_for_stacks(viewer, reporter):
    assert reporter.beat() > 1
    viewer.get("/fleet/")
    assert reporter.beat() == 1.0


def test_the_page_is_loaded_anew_until_it_is_paused(viewer):
    response = viewer.get("/fleet/?queries=-mean")
    assert response["Refresh"] == "10; url=?queries=-mean"
    assert "Refresh" not in viewer.get("/fleet/?refresh=0")
    assert viewer.get("/fleet/?refresh=1")["Refresh"].startswith("2;")
    assert viewer.get("/fleet/?refresh=x")["Refresh"].startswith("10;")


class Policed(HTMLParser):
    """Fails at what a Content-Security-Policy of ``default-src 'self'`` does not allow."""

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "style", "img", "iframe", "object", "base")
        for name, value in attrs:
            assert name != "style" and not name.startswith("on"), (tag, name)
            if name in ("href", "src", "action"):
                assert not re.match(r"\w+:|//", value), value


def test_there_is_no_script_and_no_style_in_it(viewer, reporter):
    reporter.beat()
    response = viewer.get("/fleet/")
    Policed().feed(response.content.decode())
    assert response["Content-Security-Policy"].startswith("default-src 'self';")
    assert viewer.get("/fleet/fleet.css")["Content-Type"] == "text/css"


def hostile(reporter):
    """Report hostile texts wherever there can be texts of others."""
    report = {
        "pools": [{"alias": HOSTILE, "waits_histogram": [[HOSTILE, 1], 3]}, {"alias": 3}, None],
        "routes": [{"route": HOSTILE, "idle": HOSTILE}, []],
        "queries": [
            {"sql": HOSTILE, "route": HOSTILE, "calls": 1e400},
            # Together they are a column of one statement.
            *({"sql": HOSTILE, "calls": calls} for calls in (10**400, 1.0, float("nan"))),
        ],
        "lines": [[HOSTILE, 1, HOSTILE], 5, [1]],
        "connections": [
            {
                "alias": "default",
                "pid": 1,
                "state": HOSTILE,
                "thread": HOSTILE,
                "route": HOSTILE,
                "sql": HOSTILE,
                "ran_at": [0, HOSTILE, 1, 2, 3, -1, True, [0]],
                "now_at": HOSTILE,
            },
            {"alias": "default", "pid": HOSTILE},
        ],
    }
    wrapper = connections["default"]
    insert(wrapper, HOSTILE, 1, HOSTILE, now=report)
    insert(wrapper, "h", 1, "v", now=HOSTILE)
    insert(wrapper, "h", 1, "v", now=[])


def test_hostile_texts_are_texts(viewer, reporter, observer):
    hostile(reporter)
    run(
        connections["default"],
        "INSERT INTO relet_dashboard_minute (minute, host, alias, size, in_use, waiting, "
        "checkouts, waits, waited, timeouts) VALUES (now() - interval '3 min', 'h', %s, 1, 1, 1, "
        "1, 1, 1, 1)",
        [HOSTILE],
    )
    observer.execute("SELECT set_config('application_name', %s, false)", [HOSTILE[:50]])
    response = viewer.get("/fleet/", {"stacks": "1", "host": "", "route": "script"})
    text = response.content.decode()
    Policed().feed(text)
    assert text.count(ESCAPED) > 8
    assert "{{ 7|add:1 }}" in text
    text = viewer.get("/fleet/", {"route": HOSTILE, "queries": HOSTILE}).content.decode()
    Policed().feed(text)
    notes = viewer.get("/fleet/?format=json").json()["notes"]
    assert "2 reports could not be read." in notes


def test_tables_can_be_sorted(viewer):
    rows = [{"route": f"r{n}", "idle": n, "held": 9 - n} for n in (2, 3, 1)]
    insert(connections["default"], "h", 1, "0", now={}, totals={"routes": rows})

    def order(query):
        text = viewer.get(f"/fleet/?{query}").content.decode()
        return re.findall(r">(r\d)<", text.partition('id="queries"')[0]), text

    assert order("")[0] == ["r3", "r2", "r1"]
    assert order("routes=route")[0] == ["r1", "r2", "r3"]
    found, text = order("routes=-held")
    assert found == ["r1", "r2", "r3"]
    assert 'aria-sort="descending"><a href="?routes=held#routes"' in text
    assert order("route=R2")[0] == ["r2"]


def test_hosts_and_aliases_can_be_chosen(viewer):
    for host, alias in ("one", "a"), ("two", "b"):
        now = {"pools": [{"alias": alias, "size": 3}]}
        insert(connections["default"], host, 1, "0", now=now)

    def pools(query):
        found = viewer.get(f"/fleet/?format=json&{query}").json()
        return {(row["alias"], row["host"]) for row in found["pools"]}, found

    everything = {("a", None), ("a", "one"), ("b", None), ("b", "two")}
    assert pools("")[0] == everything
    assert pools("host=two")[0] == {("b", None), ("b", "two")}
    found, both = pools("alias=a")
    assert found == {("a", None), ("a", "one")}
    assert both["hosts"] == ["one", "two"] and set(both["aliases"]) == {"a", "b", "default"}


@pytest.fixture
def victim(project):
    """A session of somebody else's."""
    params = connections["default"].get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with driver.connect(**{name: params[name] for name in names if name in params}) as victim:
        yield victim


def session_of(client, victim):
    """What the page's form for the session has in it."""
    pid = victim.execute("SELECT pg_backend_pid()").fetchone()[0]
    text = client.get("/fleet/").content.decode()
    form = text.partition(f'id="s-default-{pid}"')[2].partition("</tr>")[0]
    return dict(re.findall(r'name="(\w+)" value="(.*?)"', form))


def alive(victim):
    try:
        victim.execute("SELECT 1")
    except Exception:
        return False
    return True


def test_a_session_is_ended_from_the_page(make_user, victim):
    client = make_user("view_fleet", "end_session", csrf=True)
    fields = session_of(client, victim)
    assert fields.keys() == {"csrfmiddlewaretoken", "alias", "pid", "started"}
    response = client.post("/fleet/end/", fields)
    assert (response.status_code, response["Location"]) == (302, "../?done=ended")
    assert not alive(victim)
    assert "The session was ended" in client.get("/fleet/?done=ended").content.decode()
    assert client.post("/fleet/end/", fields)["Location"] == "../?done=gone"


def test_another_session_with_the_same_pid_is_left_alone(make_user, victim):
    client = make_user("view_fleet", "end_session")
    fields = session_of(client, victim)
    fields["started"] = str(int(fields["started"]) - 1)
    assert client.post("/fleet/end/", fields)["Location"] == "../?done=gone"
    assert alive(victim)


@pytest.mark.parametrize("page", PAGES)
def test_no_session_is_ended_without_the_permission_or_the_token(make_user, victim, page):
    fields = session_of(make_user("view_fleet", "end_session"), victim)
    assert "started" not in session_of(make_user("view_fleet"), victim)
    for permissions in (), ("view_fleet",), ("end_session",):
        assert make_user(*permissions).post(f"{page}end/", fields).status_code == 403
    assert Client().post(f"{page}end/", fields).status_code in (302, 403)
    client = make_user("view_fleet", "end_session", csrf=True)
    del fields["csrfmiddlewaretoken"]
    assert client.post(f"{page}end/", fields).status_code == 403
    assert client.get(f"{page}end/").status_code == 405
    assert alive(victim)


@pytest.mark.parametrize("pid", ["1; SELECT 1", "-1", "", "٣", "9" * 30])
def test_a_pid_is_a_number(make_user, pid):
    client = make_user("view_fleet", "end_session")
    response = client.post("/fleet/end/", {"alias": "default", "pid": pid, "started": "1"})
    assert response.status_code == 400


def test_who_is_blocked_and_by_whom(viewer, reporter, victim, observer):
    run(connections["default"], "CREATE TABLE IF NOT EXISTS lock_me ()")
    first = victim.execute("SELECT pg_backend_pid()").fetchone()[0]
    victim.execute("BEGIN")
    victim.execute("LOCK TABLE lock_me")
    thread = Thread()
    second = observer.execute("SELECT pg_backend_pid()").fetchone()[0]
    thread.begin(lambda: observer.execute("SELECT count(*) FROM lock_me"))
    try:

        def blocked():
            rows = viewer.get("/fleet/?format=json").json()["sessions"]
            return [row for row in rows if row["pid"] == second and row["chain"]]

        (row,) = until(blocked)
        assert row["chain"] == [first]
        assert f'href="#s-default-{first}"' in viewer.get("/fleet/").content.decode()
    finally:
        victim.execute("ROLLBACK")
        thread.result()
        thread.end()


@contextmanager
def without_tables(observer):
    observer.execute("ALTER TABLE relet_dashboard_process RENAME TO elsewhere")
    try:
        yield
    finally:
        observer.execute("ALTER TABLE elsewhere RENAME TO relet_dashboard_process")


def test_without_the_tables_the_servers_sessions_are_shown(viewer, observer):
    pid = observer.execute("SELECT pg_backend_pid()").fetchone()[0]
    with without_tables(observer):
        found = viewer.get("/fleet/?format=json").json()
        text = viewer.get("/fleet/").content.decode()
    assert "relet_dashboard_process" in found["notes"][0]
    assert pid in [row["pid"] for row in found["sessions"]]
    assert f'id="s-default-{pid}"' in text


def test_the_page_while_the_pool_is_exhausted(viewer, reporter):
    """It has nothing to ask of the pool."""
    from relet.dashboard import fleet

    reporter.beat()
    with transaction.atomic():
        pid = backend_pid(connections["default"])
        thread = Thread()
        found = thread(fleet.read)
        thread.end()
    assert [row.host is not None for row in found.sessions.rows if row.pid == pid] == [True]
