"""`relet.debug_toolbar.LeasesPanel`, in the real django-debug-toolbar."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connections

from ..support.engine import ENGINE, put_small_pool

pytest.importorskip("debug_toolbar", reason="django-debug-toolbar is not installed")

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).with_name("toolbar_project.py")
SECRET = "s3cr3t-4711"


@pytest.fixture
def request_page(database):
    """Request a page of the project in a process of its own."""

    def request_page(view, release="statement"):
        known = connections["default"].settings_dict
        names = ("NAME", "USER", "PASSWORD", "HOST", "PORT")
        databases = {}
        for alias in "default", "unseen":
            settings = databases[alias] = {name: known[name] for name in names}
            settings.update(ENGINE=ENGINE, OPTIONS={"policy": {"release": release}})
            put_small_pool(settings)
        databases["unseen"]["OPTIONS"]["observe"] = False
        command = [sys.executable, "-W", "error::UserWarning", PROJECT, json.dumps(databases), view]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        assert SECRET not in ran.stdout
        found = json.loads(ran.stdout)
        found["default"], found["unseen"] = found["recorded"]
        return found

    return request_page


def text(html):
    """Return the texts of the cells, a list for each row."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<.*?>", "", cell) for cell in row] for row in cells]


def test_statements(request_page):
    found = request_page("plain")
    usage = found["default"]
    assert (usage["leases"], usage["kept"], usage["waited"]) == (3, False, 0)
    assert usage["held"] == pytest.approx(usage["ran"]) and usage["ran"] > 0
    counted = {
        row["sql"]: (row["calls"], row["leases"], row["rows"]) for row in usage["statements"]
    }
    assert sorted(counted.values()) == [(1, 1, 1), (2, 2, 2)]
    assert "3 leases, held " in found["toolbar"]
    heading, totals, statements, *rows = text(found["panel"])
    assert heading[0] == "leases" and totals[0] == "3"
    assert statements[0] == "statement" and len(rows) == 2
    assert re.search(r"LeasesPanel_held;dur=\d", found["timing"])


def test_a_connection_that_is_held_idle(request_page):
    usage = request_page("idle")["default"]
    assert (usage["leases"], usage["kept"]) == (1, False)
    assert usage["held"] >= usage["idle"] >= 0.05
    assert usage["idle"] == pytest.approx(usage["held"] - usage["ran"])
    assert [row["leases"] for row in usage["statements"]] == [0] * len(usage["statements"])


def test_a_lease_that_has_not_ended(request_page):
    """It ends with the request, and so after the toolbar has looked."""
    found = request_page("idle", release="request")
    usage = found["default"]
    assert (usage["leases"], usage["kept"]) == (1, True)
    assert usage["held"] >= usage["idle"] >= 0.05
    assert "one of them not ended" in found["panel"]


def test_an_error(request_page):
    usage = request_page("fails")["default"]
    assert [row["errors"] for row in usage["statements"]] == [1]


def test_an_async_view(request_page):
    usage = request_page("from_async")["default"]
    assert [row["calls"] for row in usage["statements"]] == [1]


def test_an_alias_that_is_not_observed(request_page):
    found = request_page("unseen")
    assert found["unseen"] == {"alias": "unseen", "observed": False}
    assert found["default"]["leases"] == 0
    assert "not observed" in found["panel"]
