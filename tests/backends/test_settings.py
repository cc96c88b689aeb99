"""Bad input: a clear Django exception that names the alias and the cure."""

import pathlib
import re
import socket

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections

from relet.core import PoolAdapter, PoolConfig

from ..support import driver, engine
from ..support.pools import at_rest, backend_pid, stats
from ..support.threads import in_thread
from ..support.waiting import until

#: Options that are wrong, of the pools of the engines that come with relet.
WRONG = {
    "psycopg": [
        ({"max_sise": 4}, r"'max_sise' \(did you mean 'max_size'\?\)"),
        ({"nonsense": 4, "timeout": 1}, r"unknown 'nonsense'; known are"),
        ({"min_size": 4, "max_size": 2}, "max_size must be greater or equal than min_size"),
        ({"max_size": 2}, "'max_size' is 2, but 'min_size' is 4 by default; set 'min_size', too"),
        ({"min_size": "four"}, "'min_size' is 'four'; it must be a whole number, 0 or more"),
        ({"max_size": "10"}, r"'max_size' is '10'; .* from the environment, .* with int\(\)"),
        ({"timeout": "5"}, r"'timeout' is '5'; it must be a number of seconds.* with float\(\)"),
        ({"max_lifetime": None}, "'max_lifetime' is None; it must be a number of seconds"),
        ({"max_waiting": True}, "'max_waiting' is True; it must be a whole number"),
        ({"check": "shop.check"}, "'check' is 'shop.check'; it must be a function"),
        ({"policy": {}}, r"'policy' cannot be set: it belongs in OPTIONS\['policy'\], not in"),
        ({"kwargs": {}}, "'kwargs' cannot be set: connection parameters belong in"),
        ({"open": True}, "'open' cannot be set"),
    ],
    "sqlalchemy": [
        ({"pool_sise": 4}, r"'pool_sise' \(did you mean 'pool_size'\?\)"),
        ({"nonsense": 4, "timeout": 1}, r"unknown 'nonsense'; known are"),
        ({"pool_size": -1}, "'pool_size' is -1; it must be a whole number, 0 or more"),
        ({"timeout": "four"}, "'timeout' is 'four'; it must be a number of seconds, 0 or more"),
        ({"pool_size": "5"}, r"'pool_size' is '5'; .* from the environment, .* with int\(\)"),
        ({"use_lifo": "False"}, "'use_lifo' is 'False'; it must be True or False"),
        ({"pre_ping": "False"}, "'pre_ping' is 'False'; it must be True or False"),
        ({"echo": "true"}, "'echo' is 'true'; it must be True or False"),
        ({"policy": {}}, r"'policy' cannot be set: it belongs in OPTIONS\['policy'\], not in"),
        ({"creator": print}, "'creator' cannot be set: connection parameters belong in"),
        ({"class": "StaticPool"}, "'class' cannot be StaticPool: it hands the same connection"),
    ],
    "dj_db_conn_pool": [
        ({"POOL_SIZE": -1}, "'POOL_SIZE' is -1; it must be a whole number, 0 or more"),
        ({"TIMEOUT": "four"}, "'TIMEOUT' is 'four'; it must be a number of seconds, 0 or more"),
        ({"POOL_SIZE": "5"}, r"'POOL_SIZE' is '5'; .* from the environment, .* with int\(\)"),
        ({"PRE_PING": "False"}, "'PRE_PING' is 'False'; it must be True or False"),
    ],
}.get(engine.NAME, [])
WRONG.append((7, "it must be a dict of the pool's keyword arguments, True"))


@pytest.fixture
def in_settings(make):
    """Put a wrapper into Django's `connections`, where system checks look."""
    wrapper = connections["default"]
    before = {**wrapper.settings_dict, "OPTIONS": dict(wrapper.settings_dict["OPTIONS"])}
    yield wrapper.settings_dict
    wrapper.settings_dict.clear()
    wrapper.settings_dict.update(before)


def check():
    return {message.id: message.msg for message in run_checks(tags=["relet"])}


def test_good_settings_pass_the_checks(db):
    assert check() == {}


@pytest.mark.parametrize("age", [None, 60])
def test_conn_max_age(make, in_settings, age):
    with pytest.raises(ImproperlyConfigured, match=r"DATABASES\['extra'\]\['CONN_MAX_AGE'\]"):
        backend_pid(make(CONN_MAX_AGE=age))
    in_settings["CONN_MAX_AGE"] = age
    assert "must be 0" in check()["relet.E001"]
    assert "DATABASES['default']" in check()["relet.E001"]


@pytest.mark.parametrize(
    ("pool", "says"),
    WRONG,
)
def test_pool_options(make, in_settings, pool, says):
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        backend_pid(make(pool=pool))
    assert f"DATABASES['extra']{engine.written()}" in str(caught.value)
    engine.put_pool(in_settings, pool)
    assert f"DATABASES['default']{engine.written()}" in check()["relet.E002"]


@pytest.mark.skipif(
    engine.adapter().options_setting == PoolAdapter.options_setting,
    reason="the pool of this engine has its options where most have them",
)
def test_pool_options_of_another_engine(make, in_settings):
    says = rf"\['OPTIONS'\]\['pool'\]: .* in DATABASES\['extra'\]{re.escape(engine.written())}"
    with pytest.raises(ImproperlyConfigured, match=says):
        backend_pid(make(OPTIONS={"pool": {"max_size": 4}}))
    in_settings["OPTIONS"]["pool"] = {"max_size": 4}
    assert engine.written() in check()["relet.E002"]


@engine.needs("dj_db_conn_pool", "ignoring options")
@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("POOL_SISE", "'POOL_SISE' is ignored, .* did you mean 'POOL_SIZE'?"),
        ("pool_size", "'pool_size' is ignored, .* did you mean 'POOL_SIZE'?"),
        ("nonsense", "'nonsense' is ignored, .* it knows 'PRE_PING'"),
    ],
)
def test_pool_options_that_are_ignored(make, in_settings, option, says):
    assert backend_pid(make(pool={option: 4}))
    engine.put_pool(in_settings, {option: 4})
    assert re.search(rf"DATABASES\['default'\]\['POOL_OPTIONS'\]: {says}", check()["relet.W001"])


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"release": "comit"}, r"'release' is 'comit'; it can be 'statement', 'cursor', 'request'"),
        ({"relaese": "cursor"}, r"'relaese' \(did you mean 'release'\?\)"),
        ({"check_idle": -1}, "'check_idle' is -1; it must be a number of seconds"),
        ({"check_idle": True}, "'check_idle' is True"),
        ({"check_idle": "1"}, r"'check_idle' is '1'; .* from the environment, .* with float\(\)"),
        ({"check_idle": float("nan")}, "'check_idle' is nan"),
        (17, "it is 17; it must be a dict, a ReleasePolicy, the name"),
    ],
)
def test_policy(make, in_settings, policy, says):
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        backend_pid(make(policy=policy))
    assert "DATABASES['extra']['OPTIONS']['policy']" in str(caught.value)
    in_settings["OPTIONS"]["policy"] = policy
    assert "DATABASES['default']['OPTIONS']['policy']" in check()["relet.E003"]


@pytest.mark.parametrize("text", ["False", "0", ""])
def test_conn_health_checks(make, in_settings, text):
    says = f"'CONN_HEALTH_CHECKS' is {text!r}; it must be True or False.*environment"
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        backend_pid(make(CONN_HEALTH_CHECKS=text))
    assert "DATABASES['extra']['CONN_HEALTH_CHECKS']" in str(caught.value)
    in_settings["CONN_HEALTH_CHECKS"] = text
    assert "DATABASES['default']['CONN_HEALTH_CHECKS']" in check()["relet.E008"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"conect_timeout": 5}, r"unknown 'conect_timeout' \(did you mean 'connect_timeout'\?\)"),
        ({"assume_rol": "x"}, r"unknown 'assume_rol' \(did you mean 'assume_role'\?\)"),
        ({"polcy": {}}, r"unknown 'polcy' \(did you mean 'policy'\?\)"),
        ({"release": "cursor"}, r"unknown 'release' \(it belongs in OPTIONS\['policy'\]\)"),
        ({"nonsense": 1}, r"unknown 'nonsense'"),
    ],
)
def test_unknown_options(make, in_settings, option, says):
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        backend_pid(make(OPTIONS=option))
    assert "DATABASES['extra']['OPTIONS']" in str(caught.value)
    in_settings["OPTIONS"].update(option)
    assert re.search(says, check()["relet.E005"])


@pytest.mark.skipif(
    engine.adapter().options_setting != PoolAdapter.options_setting,
    reason="the pool of this engine has its options elsewhere",
)
def test_options_of_the_pool_among_the_drivers(make):
    with pytest.raises(ImproperlyConfigured, match=rf"'{engine.size_option()}' \(it belongs in"):
        backend_pid(make(OPTIONS={engine.size_option(): 4}))


def test_options_that_the_driver_takes(make, in_settings):
    options = {"connect_timeout": "5", "application_name": "told", "options": "", "keepalives": 1}
    assert backend_pid(make(OPTIONS=options))
    in_settings["OPTIONS"].update(options)
    assert check() == {}


@engine.needs("psycopg", "psycopg_pool's 'connection_class'")
def test_a_connection_class_may_take_others(make):
    class Connection(driver.Connection):
        @classmethod
        def connect(cls, conninfo="", *, vault=None, **kwargs):
            seen.append(vault)
            return super().connect(conninfo, **kwargs)

    seen = []
    wrapper = make(pool={"max_size": 4, "connection_class": Connection}, OPTIONS={"vault": "mine"})
    assert backend_pid(wrapper)
    assert set(seen) == {"mine"}


NOWHERE = ["POOL_OPTIONS", "policy", "pool", "budget", "OBSERVE", "tag", "prepare"]


@pytest.mark.parametrize("key", [*NOWHERE, "connection_parameters"])
def test_settings_that_nobody_looks_at(make, in_settings, key):
    if (key,) == engine.adapter().options_setting:
        pytest.skip(f"this engine looks at {key}")
    in_settings[key] = {}
    assert backend_pid(make(**{key: {}}))
    warning = check()["relet.W003"]
    assert f"DATABASES['default'][{key!r}] is ignored" in warning
    pools = key in ("POOL_OPTIONS", "pool")
    place = engine.written() if pools else f"['OPTIONS'][{key.lower()!r}]"
    assert f"Move it to DATABASES['default']{place}" in warning


def test_a_name_that_is_a_path(make, in_settings, monkeypatch):
    """As in the settings that `startproject` writes, for SQLite."""
    name = pathlib.Path("/shop/db.sqlite3")
    with pytest.raises(ImproperlyConfigured, match=r"'NAME'.*it must be the name of a database"):
        backend_pid(make(NAME=name))
    monkeypatch.setitem(in_settings, "NAME", name)
    assert "it must be the name of a database" in check()["relet.E005"]


@pytest.mark.parametrize("setting", ["NAME", "HOST"])
def test_a_url_is_not_shown(make, in_settings, monkeypatch, setting):
    """It has the password in it."""
    url = "postgresql://shop:s3cr3t@db.example.com/shop"
    with pytest.raises(ImproperlyConfigured, match=rf"'{setting}'\]: it is a URL") as caught:
        backend_pid(make(**{setting: url}))
    assert "s3cr3t" not in str(caught.value)
    monkeypatch.setitem(in_settings, setting, url)
    assert "it is a URL" in check()["relet.E005"]


@pytest.mark.skipif(engine.NAME != "psycopg", reason="other pools do not pass a conninfo")
def test_a_conninfo(make):
    with pytest.raises(ImproperlyConfigured, match="'conninfo' is an argument that the pool"):
        backend_pid(make(OPTIONS={"conninfo": "dbname=shop"}))


@pytest.mark.skipif(engine.NAME != "pg8000", reason="libpq reads its service file itself")
def test_a_service_that_does_not_exist(make):
    """It is looked for only when a connection is opened."""
    with pytest.raises(ImproperlyConfigured, match=r"DATABASES\['extra'\].*'service' is 'nothing'"):
        backend_pid(make(OPTIONS={"service": "nothing"}))


def test_nothing_is_lost_by_a_wrong_setting(make):
    wrapper = make(pool=WRONG[0][0])
    with pytest.raises(ImproperlyConfigured):
        backend_pid(wrapper)
    engine.put_small_pool(wrapper.settings_dict, size=4)
    assert backend_pid(wrapper)


#: The least and the most connections, as the pools' documentation has them.
DEFAULTS = {"psycopg": (4, 4), "sqlalchemy": (0, 15), "dj_db_conn_pool": (0, 20)}


@pytest.mark.parametrize("pool", [True, None, {}])
def test_pool_defaults(make, pool):
    wrapper = make()
    if pool is None:
        *keys, last = engine.adapter().options_setting
        place = wrapper.settings_dict
        for key in keys:
            place = place[key]
        del place[last]
    else:
        engine.put_pool(wrapper.settings_dict, pool)
    assert backend_pid(wrapper)
    expected = engine.adapter()(PoolConfig("defaults", {}, {})).stats()
    found = stats(wrapper)
    assert (found.min_size, found.max_size) == (expected.min_size, expected.max_size)
    if engine.NAME in DEFAULTS:
        assert (found.min_size, found.max_size) == DEFAULTS[engine.NAME]


def test_pool_false_means_no_pool(make, observer):
    wrapper = make(pool=False)
    pid = backend_pid(wrapper)
    # As in Django without a pool: kept until close(), then closed.
    assert backend_pid(wrapper) == pid
    wrapper.close()
    assert wrapper.connection is None
    assert backend_pid(wrapper) != pid


def test_a_refusal_without_a_pool(make):
    with pytest.raises(OperationalError, match=r"DATABASES\['extra'\]: cannot connect"):
        backend_pid(make(pool=False, NAME="no_such_database"))
    with pytest.raises(Exception, match="no_such_role"):
        backend_pid(make(pool=False, OPTIONS={"assume_role": "no_such_role"}))


@engine.needs("psycopg", "psycopg_pool's 'max_waiting'")
def test_pool_options_are_passed_through(make):
    def configure(raw):
        configured.append(raw)

    configured = []
    options = {"min_size": 0, "max_size": 2, "name": "mine", "max_waiting": 3}
    wrapper = make(pool={**options, "configure": configure})
    assert backend_pid(wrapper)
    pool = wrapper.pool
    assert (pool.min_size, pool.max_size, pool.name, pool.max_waiting) == (0, 2, "mine", 3)
    assert configured


@engine.needs("sqlalchemy", "SQLAlchemy's 'recycle'")
def test_pool_options_are_passed_through_to_sqlalchemy(make):
    def connected(raw, entry):
        configured.append(raw)

    configured = []
    options = {"pool_size": 2, "max_overflow": 1, "timeout": 3, "recycle": 60, "use_lifo": True}
    wrapper = make(pool={**options, "events": [(connected, "connect")]})
    assert backend_pid(wrapper)
    pool = wrapper.pool
    assert (pool.size(), pool._max_overflow, pool.timeout(), pool._recycle) == (2, 1, 3, 60)
    assert pool._pool.use_lifo
    assert configured


@engine.needs("dj_db_conn_pool", "django-db-connection-pool's container")
def test_pool_options_are_passed_through_to_the_container(make):
    from dj_db_conn_pool.core import pool_container

    options = {"POOL_SIZE": 2, "MAX_OVERFLOW": 1, "TIMEOUT": 3, "RECYCLE": 60}
    wrapper = make(pool=options)
    assert backend_pid(wrapper)
    pool = pool_container["extra"]
    assert wrapper.pool is pool
    assert (pool.size(), pool._max_overflow, pool.timeout(), pool._recycle) == (2, 1, 3, 60)


def test_pool_options_are_not_changed(make):
    options = engine.adapter().options_for(size=1, timeout=5)
    before = dict(options)
    wrapper = make(pool=options)
    backend_pid(wrapper)
    assert engine.pool_in(wrapper.settings_dict) == before


def test_unreachable_server(make):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wrapper = make(HOST="127.0.0.1", PORT=str(port))
    with pytest.raises(OperationalError, match=r"DATABASES\['extra'\]: cannot connect") as caught:
        backend_pid(wrapper)
    assert "Check HOST, PORT" in str(caught.value)


def test_wrong_password(make, observer):
    observer.execute("DROP ROLE IF EXISTS relet_login")
    observer.execute("CREATE ROLE relet_login LOGIN PASSWORD 'right'")
    # The test server trusts everybody, so it is the role that cannot log in.
    observer.execute("ALTER ROLE relet_login NOLOGIN")
    wrapper = make(USER="relet_login", PASSWORD="wrong")
    with pytest.raises(OperationalError, match=r"DATABASES\['extra'\]: cannot connect") as caught:
        backend_pid(wrapper)
    assert "PASSWORD" in str(caught.value)


def test_unknown_database(make):
    with pytest.raises(OperationalError, match="no_such_database"):
        backend_pid(make(NAME="no_such_database"))


def test_unknown_connection_parameter(make):
    with pytest.raises(Exception, match="no_such_option"):
        backend_pid(make(OPTIONS={"no_such_option": 1}))


def test_wrong_role(make):
    # Of the pool's own, this would be a timeout, and the cause a line in a log.
    with pytest.raises(Exception, match=r"DATABASES\['extra'\].*no_such_role"):
        backend_pid(make(OPTIONS={"assume_role": "no_such_role"}))


def test_a_failed_start_can_be_repeated(make, observer):
    observer.execute("DROP ROLE IF EXISTS relet_late")
    wrapper = make(USER="relet_late")
    with pytest.raises(OperationalError):
        backend_pid(wrapper)
    observer.execute("CREATE ROLE relet_late LOGIN")
    assert backend_pid(wrapper)
    assert at_rest(wrapper)


@engine.needs("psycopg", "psycopg_pool's 'max_waiting'")
def test_too_many_waiting(make):
    import threading

    keeper = make("busy", pool={"min_size": 1, "max_size": 1, "timeout": 5, "max_waiting": 1})
    with keeper.temporary_connection():
        waiter = threading.Thread(target=lambda: backend_pid(keeper.copy()))
        waiter.start()
        until(lambda: stats(keeper).waiting)
        with pytest.raises(OperationalError, match=r"DATABASES\['busy'\].*max_waiting") as caught:
            in_thread(lambda: backend_pid(keeper.copy()))
        assert "max_size" in str(caught.value)
    waiter.join(20)
    assert at_rest(keeper)


def test_the_server_goes_away_while_the_pool_waits(make, observer):
    """The timeout says why there was none: here, because no more are let in."""
    observer.execute("DROP ROLE IF EXISTS relet_gone; CREATE ROLE relet_gone LOGIN")
    wrapper = make(USER="relet_gone", size=1, timeout=1)
    pid = backend_pid(wrapper)
    observer.execute("ALTER ROLE relet_gone NOLOGIN")
    observer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with pytest.raises(OperationalError):
        backend_pid(wrapper)
    with pytest.raises(OperationalError, match="not permitted to log in"):
        backend_pid(wrapper)
    assert stats(wrapper).in_use == 0
