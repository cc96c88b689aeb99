"""The page: what is on it, and who may see it and end sessions."""

from __future__ import annotations

import copy
import json
import os
import re
import socket
import threading
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest
from django.db import OperationalError, connections, transaction
from django.test import Client, override_settings
from django.urls import include, path

import relet

from ..support import driver
from ..support.aliases import Aliases
from ..support.pools import backend_pid
from ..support.threads import Thread, in_thread
from ..support.waiting import until
from .conftest import insert, packed, run

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
    from relet.dashboard.payload import swap_quotes

    swapped = swap_quotes(HOSTILE)
    report = {
        "pools": [{"alias": HOSTILE, "waits_histogram": [[HOSTILE, 1], 3]}, {"alias": 3}, None],
        "routes": {"route": [swapped, [], swapped], "idle": [HOSTILE], "leases": HOSTILE},
        "queries": {
            "sql": [swapped] * 5,
            "route": [swapped],
            "calls": [1e400, 10**400, 1.0, float("nan"), []],
            "total": [[[]]] * 5,
            "max": [HOSTILE] * 5,
        },
        "lines": [[HOSTILE, 1, HOSTILE], 5, [1]],
        "connections": [
            {
                "alias": "default",
                "pid": 1,
                "state": HOSTILE,
                "thread": HOSTILE,
                "route": HOSTILE,
                "sql": HOSTILE,
                "ran_at": f"0 {HOSTILE} 1 2 3 -1 True \u0660 {'9' * 5000}",
                "leased_at": [0, 1],
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


def test_each_connection_has_its_own_stacks(viewer):
    lines = [["a.py", 1, "f"], ["<b>.py", 2, "g"], ["c.py", 3, "h"]]
    rows = [
        {"alias": "default", "pid": 1, "leased_seconds": 2.0, "leased_at": "0 1", "now_at": "1"},
        {"alias": "default", "pid": 2, "leased_seconds": 1.0, "ran_at": "2 0"},
        {"alias": "default", "pid": 3},
    ]
    insert(connections["default"], "h", 1, "0", now={"lines": lines, "connections": rows})
    found = {row["pid"]: row["stacks"] for row in read_json(viewer)["sessions"]}
    assert found[1] == {"leased_at": [lines[0], lines[1]], "now_at": [lines[1]]}
    assert found[2] == {"ran_at": [lines[2], lines[0]]}
    assert found[3] == {}
    text = viewer.get("/fleet/").content.decode()
    assert re.findall(r'<h3>(.*?)</h3><pre class="stack">(.*?)</pre>', text, re.DOTALL) == [
        ("leased at", "a.py:1 in f\n&lt;b&gt;.py:2 in g"),
        ("now at", "&lt;b&gt;.py:2 in g"),
        ("last statement at", "c.py:3 in h\na.py:1 in f"),
    ]
    assert "<details><summary>" in text
    opened = viewer.get("/fleet/?stacks=1").content.decode()
    assert opened.count("<details open><summary>") == 2


def nested(depth):
    return "[" * depth + "]" * depth


STACK = '"connections": [{"alias": "default", "pid": 1, "ran_at": "0"}]'
#: Reports that are none, or of which a part is nothing that can be shown.
NONSENSE = {
    "alias": {"pools": [{"alias": []}]},
    "depth": packed(f'{{"pools": {nested(100_000)}}}'),
    "depth of a line": packed(f'{{"lines": [["f", 1, {nested(400)}]], {STACK}}}'),
    "number of a line": packed(f'{{"lines": [["f", NaN, "g"]], {STACK}}}'),
    "no number": packed('{"pools": [{"alias": "default", "size": NaN, "waited": -Infinity}]}'),
    "letters": packed('{"pools": [{"alias": "é"}]}'),
    "half a letter": {
        "pools": [{"alias": "\ud800"}],
        "connections": [{"alias": "\ud800", "pid": 1, "thread": "\ud800", "route": "\U0001f600"}],
    },
    "pids": {
        "connections": [{"alias": "default", "pid": pid} for pid in (True, -1, 10**4000, None)],
    },
    "a mean": {"queries": {"sql": ["x"], "total": [1e299], "calls": [1e-320]}},
    "rows": {"queries": [{"sql": "x", "total": 1.0}], "routes": [["x"], 3]},
    "columns": {
        "queries": {"sql": "x", "total": [1, 2]},
        "routes": {"route": [{"x": 1}, "x"], "idle": [10**400, -(10**400)], "longest": {"x": 1}},
    },
    "deep columns": packed(
        f'{{"routes": {{"route": ["x", "x"], "longest": [{nested(900)}, {nested(900)}]}}}}'
    ),
}
SORTED = ("sessions=session", "pools=size", "queries=-mean", "sessions=thread", "processes=pid")


def read_json(client, query=""):
    response = client.get(f"/fleet/?format=json&{query}")
    return json.loads(response.content, parse_constant=lambda name: pytest.fail(f"it has {name}"))


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_left_out(viewer, reporter, name):
    """It is no reason to show nothing of others."""
    reporter.beat()
    insert(connections["default"], "nonsense", 1, "0", now=NONSENSE[name])
    for query in ("stacks=1", *SORTED):
        response = viewer.get(f"/fleet/?{query}")
        assert response.status_code == 200
        Policed().feed(response.content.decode())
    found = read_json(viewer)
    assert socket.gethostname() in [row["host"] for row in found["processes"]]


def test_a_name_that_is_not_utf_8_is_shown(viewer, reporter):
    """Such as that of a thread that is called like a file."""
    name = os.fsdecode(b"caf\xe9.csv")

    def work():
        threading.current_thread().name = f"import {name}"
        with relet.label(name), transaction.atomic():
            run(connections["default"], "SELECT 1")
            reporter.beat()
        connections["default"].close()

    in_thread(work)
    text = viewer.get("/fleet/").content.decode()
    assert "import caf?.csv" in text and ">caf?.csv" in text


@pytest.mark.slow
def test_a_short_report_is_no_long_page(viewer):
    """A line of a stack may be named any number of times, and a row may be two characters."""
    stack = " ".join(["0"] * 4000)
    line = ["x" * 60_000, 1, "f" * 60_000]
    each = {"alias": "default", "ran_at": stack, "leased_at": stack}
    report = {"lines": [line], "connections": [{**each, "pid": pid} for pid in range(1, 400)]}
    insert(connections["default"], "h", 1, "0", now={**report, "pools": [{}] * 100_000})
    for query in ("all=sessions&stacks=1", "all=pools", "format=json"):
        assert len(viewer.get(f"/fleet/?{query}").content) < 12_000_000


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("started_at", "-infinity", True),
        ("started_at", "294276-01-01", True),
        ("interval", "NaN", True),
        ("interval", "Infinity", True),
        ("beat_at", "infinity", False),
        ("beat_at", "9999-01-01", False),
        ("beat_at", "-infinity", False),
    ],
)
def test_rows_with_times_that_are_none(viewer, reporter, column, value, shown):
    wrapper = connections["default"]
    insert(wrapper, "h", 1, "0", now={"pools": [{"alias": "default"}]})
    run(wrapper, f"UPDATE relet_dashboard_process SET {column} = '{value}'")
    assert viewer.get("/fleet/").status_code == 200
    found = read_json(viewer)
    assert found["notes"] == []
    assert [row["stale"] for row in found["processes"]] == [False] * shown
    reporter.beat()
    count = "SELECT count(*) FROM relet_dashboard_process WHERE host = 'h'"
    assert run(wrapper, count) == [(int(shown),)]


def test_a_silent_process_is_not_counted(viewer):
    """Its last report is shown: it may have ended, and then its sessions have, too."""
    wrapper = connections["default"]
    report = {
        "pools": [{"alias": "default", "checkouts": 1}],
        "routes": {"route": ["/x"], "leases": [1]},
        "queries": {"sql": ["SELECT ?"], "calls": [1]},
        "connections": [{"alias": "default", "pid": 2**31 - 1}],
    }
    for host in ("living", "silent"):
        insert(wrapper, host, 1, "0", now=report)
    silent = "UPDATE relet_dashboard_process SET beat_at = now() - interval '100 s'"
    run(wrapper, f"{silent} WHERE host = 'silent'")
    found = read_json(viewer)
    assert {row["host"]: row["stale"] for row in found["processes"]} == {
        "living": False,
        "silent": True,
    }
    assert [(row["host"], row["checkouts"]) for row in found["pools"]] == [
        (None, 1),
        ("living", 1),
        ("silent", 1),
    ]
    assert [(row["leases"], row["processes"]) for row in found["routes"]] == [(1, 1)]
    assert [(row["calls"], row["processes"]) for row in found["queries"]] == [(1, 1)]
    assert [row["host"] for row in found["sessions"] if row["pid"] == 2**31 - 1] == ["living"]


MINUTES = (
    "INSERT INTO relet_dashboard_minute (minute, host, alias, size, in_use, waiting, checkouts, "
    "waits, waited, timeouts) SELECT {minute}, 'h', 'default', {number}, 1, 1, 1, 1, 1, 1 "
    "FROM generate_series(1, 2)"
)
AGO = "now() - interval '3 minutes'"


@pytest.mark.parametrize(
    ("minute", "number"),
    [
        ("'infinity'", "1"),
        ("'-infinity'", "1"),
        ("'9999-01-01'", "1"),
        (AGO, "1e308"),
        (AGO, "'NaN'"),
        (AGO, "'Infinity'"),
        (AGO, "-1"),
    ],
)
def test_minutes_that_are_none_do_not_hide_the_hour(viewer, reporter, minute, number):
    wrapper = connections["default"]
    run(wrapper, MINUTES.format(minute=minute, number=number))
    run(wrapper, MINUTES.format(minute=AGO, number="2"))
    assert viewer.get("/fleet/").status_code == 200
    found = read_json(viewer)
    assert found["notes"] == []
    (series,) = found["series"]
    assert [count for count in series["checkouts"] if count is not None] == [2.0]
    reporter.beat()
    count = (
        "SELECT count(*) FROM relet_dashboard_minute WHERE minute > now() OR minute < '2000-1-1'"
    )
    assert run(wrapper, count) == [(0,)]


def test_the_hour_of_an_alias_of_any_letters(viewer, reporter):
    from relet.dashboard import home, tables

    pools = [{"alias": "größe"}]
    minute = tables.Rollup("größe", 1, 1, 0, 1, 0, 0, 0)
    beat = tables.Beat("0" * 32, "h", 1, "0", 1, 10, {"pools": pools}, rollups=(minute,))
    home.run(tables.beat(beat), "default")
    run(connections["default"], f"UPDATE relet_dashboard_minute SET minute = {AGO}")
    for query in ("", "alias=größe"):
        assert [one["alias"] for one in read_json(viewer, query)["series"]] == ["größe"]


def test_two_aliases_of_one_database_have_its_sessions_once(viewer, reporter, observer):
    settings = copy.deepcopy(connections["default"].settings_dict)
    with Aliases() as aliases:
        pids = {backend_pid(connections["default"]): "default"}
        pids[backend_pid(aliases.add("another", settings))] = "another"
        reporter.beat()
        other = observer.execute("SELECT pg_backend_pid()").fetchone()[0]
        rows = read_json(viewer)["sessions"]
    assert {row["pid"]: row["alias"] for row in rows if row["host"] is not None} == pids
    assert sorted(row["pid"] for row in rows) == sorted([*pids, other])
    assert {row["database"] for row in rows} == {"another"}
    assert all(row["started"] is not None for row in rows)


urlpatterns = [path("<slug:tenant>/fleet/", include("relet.dashboard.urls"))]


def test_the_path_may_have_arguments(make_user, victim):
    client = make_user("view_fleet", "end_session")
    fields = session_of(client, victim)
    with override_settings(ROOT_URLCONF=__name__):
        assert client.get("/acme/fleet/").status_code == 200
        assert client.get("/acme/fleet/fleet.css").status_code == 200
        assert client.post("/acme/fleet/end/", fields)["Location"] == "../?done=ended"


def test_tables_can_be_sorted(viewer):
    routes = {"route": ["r2", "r3", "r1"], "idle": [2, 3, 1], "held": [7, 6, 8]}
    insert(connections["default"], "h", 1, "0", now={}, totals={"routes": routes})

    def order(query):
        text = viewer.get(f"/fleet/?{query}").content.decode()
        return re.findall(r">(r\d)<", text.partition('id="queries"')[0]), text

    assert order("")[0] == ["r3", "r2", "r1"]
    assert order("routes=route")[0] == ["r1", "r2", "r3"]
    found, text = order("routes=-held")
    assert found == ["r1", "r2", "r3"]
    assert 'aria-sort="descending"><a href="?routes=held#routes"' in text
    assert order("route=R2")[0] == ["r2"]


def test_what_processes_counted_is_added_up(viewer, db):
    """Of those that do not say all, or say nonsense, too."""
    for totals in (
        {
            "routes": {
                "route": ["r", "s"],
                **{name: [2, 1] for name in ("leases", "idle", "held", "ran", "waited", "blocked")},
                "longest": [3_000_000, 1],
            },
            "queries": {
                "sql": ["x", "y"],
                "route": ["r", "s"],
                **{name: [4, 1] for name in ("calls", "rows", "errors")},
                **{name: [1_500_000, 1] for name in ("total", "p95", "max", "waited")},
            },
        },
        {
            "routes": {"route": ["r"], "leases": [1], "idle": [500_000], "longest": [1]},
            "queries": {"sql": ["x"], "route": ["s"], "calls": [5], "total": [750_000]},
        },
        {
            "routes": {"route": ["r"], "leases": ["1"], "idle": [None], "longest": [1e400]},
            "queries": {"sql": ["x"], "calls": [[]], "total": [True], "p95": ["x"]},
        },
    ):
        insert(db, "h", 1, "0", now={}, totals=totals)
    found = read_json(viewer)
    (r, s), (x, y) = found["routes"], found["queries"]
    assert r == {
        "route": "r",
        "processes": 3,
        "leases": 3,
        "idle": 0.500002,
        **dict.fromkeys(("held", "ran", "waited", "blocked"), 2e-6),
        "longest": 3.0,
    }
    assert (s["route"], s["processes"], s["leases"], s["longest"]) == ("s", 1, 1, 1e-6)
    assert x == {
        "sql": "x",
        "route": "s",
        "processes": 3,
        "calls": 9,
        "rows": 4,
        "errors": 4,
        "total": 2.250001,
        "mean": 2.250001 / 9,
        **dict.fromkeys(("p95", "max", "waited"), 1.5),
    }
    assert (y["sql"], y["processes"], y["calls"], y["mean"]) == ("y", 1, 1, 1e-6)
    assert [row["sql"] for row in read_json(viewer, "route=R")["queries"]] == ["x"]
    assert read_json(viewer, "route=R")["queries"][0]["calls"] == 4


def test_the_fleet_of_one_process_is_what_it_says_of_itself(viewer, reporter):
    with relet.label("nightly import"):
        run(connections["default"], "SELECT %s::text AS found", ["s3cr3t"])
    own = {"queries": relet.queries(), "routes": relet.routes()}
    reporter.beat()
    found = read_json(viewer)
    for name, key in (("queries", "sql"), ("routes", "route")):
        shown = {row[key]: row for row in found[name]}
        rows = own[name].as_dict()["rows"]
        assert len(rows) >= 2
        for row in rows:
            row.pop("server_mean", None)
            same = {column: shown[row[key]][column] for column in row}
            assert same == pytest.approx(row, abs=1e-6)


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


def test_an_idle_connection_of_this_process_is_ended_from_the_page(make_user, reporter):
    """It does not have to end itself."""
    client = make_user("view_fleet", "end_session")
    db = connections["default"]
    pid = backend_pid(db)
    db.close()
    reporter.beat()
    rows = {row["pid"]: row for row in client.get("/fleet/?format=json").json()["sessions"]}
    fields = {"alias": "default", "pid": pid, "started": rows[pid]["started"]}
    assert client.post("/fleet/end/", fields)["Location"] == "../?done=ended"
    with pytest.raises(OperationalError):  # the tests check no idle connections
        backend_pid(db)


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
    assert "Run 'manage.py migrate'" in found["notes"][0]
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
