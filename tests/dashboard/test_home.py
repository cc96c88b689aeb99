"""Which alias has the tables, and how statements get there."""

from __future__ import annotations

import copy
import socket
from contextlib import contextmanager

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings

from ..support import driver, engine
from ..support.aliases import Aliases
from ..support.threads import in_thread
from .conftest import run

COUNT = "SELECT count(*) FROM relet_dashboard_process"


class ElsewhereRouter:
    def db_for_write(self, model, **hints):
        return "elsewhere" if model._meta.app_label == "relet_dashboard" else None


@pytest.fixture
def add(db):
    """Add an alias on the same database."""

    def add(alias, **changed):
        settings = copy.deepcopy(connections["default"].settings_dict)
        settings.update(changed)
        return aliases.add(alias, settings)

    with Aliases() as aliases:
        yield add


def alias():
    from relet.dashboard import home

    return home.alias()


def messages():
    from relet.dashboard.checks import check_home

    return [(one.id, one.msg) for one in check_home()]


def test_it_is_what_the_routers_say(add):
    add("elsewhere")
    assert alias() == "default"
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ElsewhereRouter"]):
        assert alias() == "elsewhere"
        with override_settings(RELET_DASHBOARD={"alias": "default"}):
            assert alias() == "default"
    assert messages() == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("default", "must be a dict, not str"),
        ({"aliass": "default"}, "unknown key 'aliass'"),
        ({"alias": "nowhere"}, "is 'nowhere', which is not in DATABASES"),
        ({"alias": ["default"]}, "is ['default'], which is not in DATABASES"),
    ],
)
def test_a_setting_that_is_wrong(db, setting, said):
    with override_settings(RELET_DASHBOARD=setting):
        ((number, text),) = messages()
        assert number == "relet.E020" and said in text
        with pytest.raises(ImproperlyConfigured):
            alias()


class NowhereRouter:
    def db_for_write(self, model, **hints):
        return "nowhere"


@pytest.mark.parametrize(
    "changed",
    [
        {"RELET_DASHBOARD": {"alias": "nowhere"}},
        {"DATABASE_ROUTERS": [f"{__name__}.NowhereRouter"]},
    ],
    ids=["setting", "router"],
)
def test_an_alias_that_there_is_not_is_noted(db, reporter, changed):
    from relet.dashboard import fleet

    reporter.beat()
    with override_settings(**changed):
        ((number, text),) = messages()
        assert number == "relet.E020" and "'nowhere'" in text
        found = fleet.read()
    assert found.processes.rows == ()
    assert "'nowhere'" in found.notes[0]


def test_a_database_that_is_no_postgresql(add):
    add("lite", ENGINE="django.db.backends.sqlite3", NAME=":memory:", OPTIONS={})
    with override_settings(RELET_DASHBOARD={"alias": "lite"}):
        ((number, text),) = messages()
    assert number == "relet.E020" and "'lite', which is sqlite" in text


def test_an_alias_whose_engine_is_djangos(add, reporter, db):
    add("plain", ENGINE=engine.backend(), OPTIONS=db_options(db))
    with override_settings(RELET_DASHBOARD={"alias": "plain"}):
        assert 9 <= reporter.beat() <= 11
        assert run(db, COUNT) == [(1,)]
        reporter.stop()
        assert run(db, COUNT) == [(0,)]


@driver.needs("psycopg", "pool of Django's own")
def test_djangos_own_pool_is_not_waited_for(add, reporter, db):
    pytest.importorskip("psycopg_pool", reason="Django's pool is not installed")
    options = {**db_options(db), "pool": {"min_size": 0, "max_size": 1, "timeout": 2}}
    plain = add("plain", ENGINE=engine.backend(), OPTIONS=options)
    plain.ensure_connection()
    try:
        with override_settings(RELET_DASHBOARD={"alias": "plain"}):
            assert 9 <= reporter.beat() <= 11
        assert not reporter._failures
    finally:
        plain.close()
        plain.close_pool()


@contextmanager
def silent_server():
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_host_that_does_not_answer_is_not_waited_for(add, reporter, monkeypatch):
    monkeypatch.setattr("relet.dashboard.home._CONNECT_TIMEOUT_S", 2)
    with silent_server() as port:
        options = {"sslmode": "disable"} if driver.NAME != "pg8000" else {}
        add("plain", ENGINE=engine.backend(), HOST="127.0.0.1", PORT=port, OPTIONS=options)
        with override_settings(RELET_DASHBOARD={"alias": "plain"}):
            assert in_thread(reporter.beat) > 1  # within its 20 s
    assert reporter._failures == 1


def db_options(db):
    """The options of the driver."""
    known = ("pool", "policy")
    return {key: value for key, value in db.settings_dict["OPTIONS"].items() if key not in known}


def test_an_alias_that_is_not_in_autocommit(add, reporter, db):
    other = add("manual", AUTOCOMMIT=False)
    with override_settings(RELET_DASHBOARD={"alias": "manual"}):
        assert 9 <= reporter.beat() <= 11  # on a connection of its own
        assert run(db, COUNT) == [(1,)]
        run(other, "SELECT 1")
        other.rollback()
        other.close()
        run(db, "TRUNCATE relet_dashboard_process")
        assert 9 <= reporter.beat() <= 11  # on an idle one of the pool
        assert run(db, COUNT) == [(1,)]


def test_a_reporter_elsewhere_does_not_open_a_pool(add, reporter, db):
    from relet.backends.pools import pools

    add("elsewhere")
    with override_settings(RELET_DASHBOARD={"alias": "elsewhere"}):
        reporter.beat()
    assert "elsewhere" not in [handle.alias for handle in pools]
    assert run(db, COUNT) == [(1,)]


def test_who_may_only_read_sees_the_page(db, reporter, observer):
    """Nobody beats faster for them."""
    from relet.dashboard import fleet

    reporter.beat()
    observer.execute("ALTER TABLE relet_dashboard_ask RENAME TO elsewhere")
    try:
        found = fleet.read()
    finally:
        observer.execute("ALTER TABLE elsewhere RENAME TO relet_dashboard_ask")
    assert len(found.processes.rows) == 1
    assert "relet_dashboard_ask" in found.notes[0]
    assert "Run 'manage.py migrate'" in found.notes[0]


def test_no_beat_waits_for_what_another_process_deletes(db, reporter, observer):
    reporter.beat()
    observer.execute(
        "INSERT INTO relet_dashboard_process SELECT gen_random_uuid(), host, pid, version, "
        "started_at, now() - interval '1 hour', interval, now, totals "
        "FROM relet_dashboard_process, generate_series(1, 20)"
    )
    observer.execute("BEGIN")
    observer.execute(
        "DELETE FROM relet_dashboard_process WHERE id IN (SELECT id FROM relet_dashboard_process "
        "WHERE beat_at < now() - interval '1 minute' LIMIT 7)"
    )
    try:
        reporter._swept -= 60
        assert in_thread(reporter.beat) <= 11
        assert run(db, COUNT) == [(8,)]
    finally:
        observer.execute("COMMIT")
    assert run(db, COUNT) == [(1,)]
