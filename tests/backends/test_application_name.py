"""What ``pg_stat_activity`` calls a session that the user has given no name."""

import os

import pytest

from relet.core.application_name import process_name

from ..support import driver
from ..support.forks import child_of, needs_fork
from ..support.pools import backend_pid


def name_of(wrapper):
    with wrapper.cursor() as cursor:
        cursor.execute("SHOW application_name")
        return cursor.fetchone()[0]


def test_is_host_and_process(db, observer):
    """The server's view has it, for every role to read."""
    sql = "SELECT application_name FROM pg_stat_activity WHERE pid = %s"
    (name,) = observer.execute(sql, [backend_pid(db)]).fetchone()
    assert name == process_name() == name_of(db)
    assert name.startswith("relet ") and name.endswith(f":{os.getpid()}")


@needs_fork
def test_a_child_has_its_own(db):
    before = name_of(db)

    def child():
        assert name_of(db) == process_name() != before
        assert process_name().endswith(f":{os.getpid()}")

    assert child_of(child) == 0
    assert name_of(db) == before


def test_without_a_pool(make):
    wrapper = make("named", pool=False)
    assert name_of(wrapper) == process_name()


@pytest.mark.parametrize("name", ["application_name", "fallback_application_name"])
@pytest.mark.parametrize("value", ["the shop's", ""])
def test_the_users_own_wins(make, name, value):
    assert name_of(make("named", OPTIONS={name: value})) == value


@pytest.mark.parametrize("option", ["-c application_name=optional", "--application-name=optional"])
def test_one_in_options_wins(make, monkeypatch, option):
    assert name_of(make("named", OPTIONS={"options": option})) == "optional"
    monkeypatch.setenv("PGOPTIONS", option)
    assert name_of(make("other")) == "optional"
    # As with libpq, the setting replaces the variable.
    assert name_of(make("third", OPTIONS={"options": "-c jit=off"})) == process_name()


def test_one_in_the_environment_wins(make, monkeypatch):
    monkeypatch.setenv("PGAPPNAME", "from afar")
    assert name_of(make("named")) == "from afar"


def test_one_in_the_service_file_wins(make, monkeypatch, tmp_path):
    file = tmp_path / "services"
    file.write_text("[shop]\napplication_name=served\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    assert name_of(make("named", OPTIONS={"service": "shop"})) == "served"


@driver.needs("psycopg2", "DSN")
@pytest.mark.parametrize("name", ["application_name", "fallback_application_name"])
def test_one_in_a_dsn_wins(make, name):
    assert name_of(make("named", OPTIONS={"dsn": f"{name}=written"})) == "written"
    assert name_of(make("other", OPTIONS={"dsn": "connect_timeout=5"})) == process_name()


def test_a_wrong_dsn_is_the_drivers_to_refuse():
    from relet.adapters.drivers.application_name import with_application_name

    def parse(dsn):
        raise ValueError(dsn)

    wrong = {"dsn": "wrong"}
    assert with_application_name(wrong, dsn="dsn", parse=parse) == wrong


def test_is_what_a_session_goes_back_to(db):
    with db.cursor() as cursor:
        cursor.execute("SET application_name = 'mine'")
    assert name_of(db) == "mine"
    pid = backend_pid(db)
    db.close()
    assert name_of(db) == process_name()
    assert backend_pid(db) == pid


def test_settings_stay_as_they_are(make):
    """Wrappers with the same settings share a pool, and psql gets what the user has set."""
    wrapper = make("named")
    before = repr(wrapper.settings_dict)
    assert name_of(wrapper) == process_name()
    assert repr(wrapper.settings_dict) == before
    assert "application_name" not in wrapper.get_connection_params()
    other = wrapper.copy()
    assert backend_pid(other) == backend_pid(wrapper)
    arguments, environment = wrapper.client_class.settings_to_cmd_args_env(
        wrapper.settings_dict, []
    )
    assert "relet" not in f"{arguments[0]} {environment}"


def test_costs_no_round_trip(watched, wire):
    backend_pid(watched)
    sent = [message.data for message in wire.messages if message.sender == "client"]
    assert sent and not any(b"application_name" in data for data in sent)  # but in the login
