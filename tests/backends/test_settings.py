"""Bad input: a clear Django exception that names the alias and the cure."""

import socket

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections

from .conftest import at_rest, backend_pid, stats


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
    [
        ({"max_sise": 4}, r"'max_sise' \(did you mean 'max_size'\?\)"),
        ({"nonsense": 4, "timeout": 1}, r"unknown 'nonsense'; known are"),
        ({"min_size": 4, "max_size": 2}, "max_size must be greater or equal than min_size"),
        ({"min_size": "four"}, "'<' not supported"),
        ({"kwargs": {}}, "'kwargs' cannot be set: connection parameters belong in"),
        ({"open": True}, "'open' cannot be set"),
        (7, "it can be a dict of the pool's keyword arguments, True"),
    ],
)
def test_pool_options(make, in_settings, pool, says):
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        backend_pid(make(pool=pool))
    assert "DATABASES['extra']['OPTIONS']['pool']" in str(caught.value)
    in_settings["OPTIONS"]["pool"] = pool
    assert "DATABASES['default']['OPTIONS']['pool']" in check()["relet.E002"]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"release": "comit"}, r"'release' is 'comit'; it can be 'statement', 'cursor', 'request'"),
        ({"relaese": "cursor"}, r"'relaese' \(did you mean 'release'\?\)"),
        ({"check_idle": -1}, "'check_idle' is -1; it must be a number of seconds"),
        ({"check_idle": True}, "'check_idle' is True"),
        ({"check_idle": float("nan")}, "'check_idle' is nan"),
        (17, "it is 17; it can be a dict, a ReleasePolicy, the name"),
    ],
)
def test_policy(make, in_settings, policy, says):
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        backend_pid(make(policy=policy))
    assert "DATABASES['extra']['OPTIONS']['policy']" in str(caught.value)
    in_settings["OPTIONS"]["policy"] = policy
    assert "DATABASES['default']['OPTIONS']['policy']" in check()["relet.E003"]


def test_nothing_is_lost_by_a_wrong_setting(make):
    wrapper = make(pool={"max_sise": 4})
    with pytest.raises(ImproperlyConfigured):
        backend_pid(wrapper)
    wrapper.settings_dict["OPTIONS"]["pool"] = {"max_size": 4}
    assert backend_pid(wrapper)


@pytest.mark.parametrize("pool", [True, None, {}])
def test_pool_defaults(make, pool):
    wrapper = make()
    if pool is None:
        del wrapper.settings_dict["OPTIONS"]["pool"]
    else:
        wrapper.settings_dict["OPTIONS"]["pool"] = pool
    assert backend_pid(wrapper)
    assert (stats(wrapper).min_size, stats(wrapper).max_size) == (4, 4)


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


def test_pool_options_are_not_changed(make):
    options = {"min_size": 1, "max_size": 1}
    wrapper = make(pool=options)
    backend_pid(wrapper)
    assert wrapper.settings_dict["OPTIONS"]["pool"] == {"min_size": 1, "max_size": 1}


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


def test_too_many_waiting(make):
    import threading

    keeper = make("busy", pool={"min_size": 1, "max_size": 1, "timeout": 5, "max_waiting": 1})
    others = [type(keeper)(keeper.settings_dict, keeper.alias) for _ in range(2)]
    with keeper.temporary_connection():
        others[0].inc_thread_sharing()
        waiter = threading.Thread(target=backend_pid, args=(others[0],))
        waiter.start()
        while not stats(keeper).waiting:
            pass
        with pytest.raises(OperationalError, match=r"DATABASES\['busy'\].*max_waiting") as caught:
            backend_pid(others[1])
        assert "max_size" in str(caught.value)
    waiter.join(20)
    assert at_rest(keeper)


def test_the_server_goes_away_while_the_pool_waits(make, observer):
    """The timeout says why there was none: here, because no more are let in."""
    observer.execute("DROP ROLE IF EXISTS relet_gone; CREATE ROLE relet_gone LOGIN")
    wrapper = make(USER="relet_gone", pool={"min_size": 1, "max_size": 1, "timeout": 1})
    pid = backend_pid(wrapper)
    observer.execute("ALTER ROLE relet_gone NOLOGIN")
    observer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with pytest.raises(OperationalError):
        backend_pid(wrapper)
    with pytest.raises(OperationalError, match="not permitted to log in"):
        backend_pid(wrapper)
    assert stats(wrapper).in_use == 0
