"""The engines of SQLAlchemy's pools, through Django: settings, checks, pings."""

from __future__ import annotations

import copy
import datetime as dt
from contextlib import closing

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.models import DateTimeField, JSONField, Value
from django.db.utils import load_backend
from testapp.models import Item

pytest.importorskip("sqlalchemy")
pool_container = pytest.importorskip("dj_db_conn_pool.core").pool_container

QueuePool = pytest.importorskip("sqlalchemy.pool").QueuePool

from relet.adapters.drivers.default import Driver  # noqa: E402

from ..support.driver import execute  # noqa: E402
from ..support.pools import at_rest, backend_pid, stats  # noqa: E402
from ..support.sessions import kill  # noqa: E402

SERVER = ("NAME", "USER", "PASSWORD", "HOST", "PORT")


@pytest.fixture
def make(database, monkeypatch):
    """Make a wrapper of another engine than that of the tests, on the same database."""
    made = []

    def make(engine, alias="other_pool", **settings):
        template = connections["default"].settings_dict
        told = {
            **copy.deepcopy(template),
            "ENGINE": engine,
            "OPTIONS": {},
            **{key: template[key] for key in SERVER},
            **settings,
        }
        told.pop("POOL_OPTIONS", None)
        told.update(settings)
        wrapper = load_backend(engine).DatabaseWrapper(told, alias)
        made.append(wrapper)
        return wrapper

    yield make
    for wrapper in made:
        wrapper.close()
        wrapper.close_pool()


@pytest.fixture
def check(make, monkeypatch):
    """Return what the system checks say of an alias, by id."""

    def check(engine, **settings):
        wrapper = make(engine, **settings)
        monkeypatch.setattr(connections, "settings", {wrapper.alias: wrapper.settings_dict})
        connections[wrapper.alias] = wrapper
        checked.append(wrapper.alias)
        return {message.id: message for message in checks.run_checks(tags=["relet"])}

    checked = []
    yield check
    for alias in set(checked):
        del connections[alias]


#: As in the documentation of django-pg-real-pool's engine "django_pg_real_pool.dj_db_conn_pool".
PEERS_SETTINGS = {
    "POOL_OPTIONS": {"POOL_SIZE": 3, "MAX_OVERFLOW": 7, "RECYCLE": 86400},
    "CONN_MAX_AGE": 0,
    "TELEMETRY": {"ENABLED": False},
}
DJ, SQLALCHEMY = "relet.backends.dj_db_conn_pool", "relet.backends.sqlalchemy"


def test_settings_of_the_peer_work_with_only_the_engine_changed(make, check):
    wrapper = make(DJ, **PEERS_SETTINGS)
    assert backend_pid(wrapper) == backend_pid(wrapper)
    assert at_rest(wrapper)
    assert stats(wrapper).max_size == 10
    pool = pool_container.get("other_pool")
    assert wrapper.pool is pool
    assert (pool.size(), pool._max_overflow, pool._recycle) == (3, 7, 86400)
    assert (pool.timeout(), pool._pre_ping) == (30, True)
    wrapper.close_pool()
    assert check(DJ, **PEERS_SETTINGS) == {}


def test_what_is_ignored_is_reported_by_a_check(make, check):
    options = {"pool_size": 1, "POOL_SIZE": 2}
    warning = check(DJ, POOL_OPTIONS=options)["relet.W001"]
    assert warning.level == checks.WARNING
    assert warning.msg == (
        "DATABASES['other_pool']['POOL_OPTIONS']: 'pool_size' is ignored, as "
        "django-db-connection-pool ignores it; did you mean 'POOL_SIZE'?"
    )
    # As before, they do no harm.
    wrapper = make(DJ, POOL_OPTIONS=options, alias="ignored")
    backend_pid(wrapper)
    assert wrapper.pool.size() == 2


@pytest.mark.parametrize(
    ("engine", "settings", "says"),
    [
        (DJ, {"POOL_OPTIONS": {"POOL_SIZE": "1"}}, r"\['POOL_OPTIONS'\]: 'POOL_SIZE' is '1'"),
        (DJ, {"POOL_OPTIONS": 7}, r"\['POOL_OPTIONS'\]: it is 7; it must be a dict"),
        (
            DJ,
            {"OPTIONS": {"pool": {"max_size": 4}}},
            r"put the pool's options in DATABASES\['other_pool'\]\['POOL_OPTIONS'\]",
        ),
        (
            SQLALCHEMY,
            {"OPTIONS": {"pool": {"class": "SingletonThreadPool"}}},
            r"\['OPTIONS'\]\['pool'\]: 'class' cannot be SingletonThreadPool: it keeps",
        ),
        (SQLALCHEMY, {"OPTIONS": {"pool": {"max_size": 4}}}, r"unknown 'max_size'"),
    ],
)
def test_wrong_options(make, check, engine, settings, says):
    error = check(engine, **settings)["relet.E002"]
    assert error.level == checks.ERROR
    with pytest.raises(ImproperlyConfigured, match=says) as caught:
        backend_pid(make(engine, **settings))
    assert str(caught.value) == error.msg


@pytest.mark.parametrize("engine", [DJ, SQLALCHEMY])
def test_no_pool(make, engine):
    wrapper = make(engine, OPTIONS={"pool": False})
    # As in Django without a pool: kept until close(), then closed.
    first = backend_pid(wrapper)
    assert backend_pid(wrapper) == first
    wrapper.close()
    assert backend_pid(wrapper) != first


def test_null_pool_is_no_pool(make):
    wrapper = make(SQLALCHEMY, OPTIONS={"pool": {"class": "NullPool"}})
    first = backend_pid(wrapper)
    assert backend_pid(wrapper) == first
    wrapper.close()
    assert stats(wrapper).in_use == 0
    assert backend_pid(wrapper) != first


PINGING = {
    DJ: {"POOL_OPTIONS": {"POOL_SIZE": 1, "MAX_OVERFLOW": 0}},  # its default
    SQLALCHEMY: {"OPTIONS": {"pool": {"pool_size": 1, "max_overflow": 0, "pre_ping": True}}},
}


@pytest.mark.parametrize("engine", PINGING)
@pytest.mark.parametrize(("check_idle", "pings"), [(0, 3), (3600, 0)])
def test_pings_follow_check_idle(make, monkeypatch, engine, check_idle, pings):
    settings = copy.deepcopy(PINGING[engine])
    settings.setdefault("OPTIONS", {})["policy"] = {"check_idle": check_idle}
    wrapper = make(engine, **settings)
    backend_pid(wrapper)
    pool = wrapper._runner.find_pool().pool
    seen = []

    def ping(raw, real=pool.ping):
        seen.append(raw.autocommit)
        answer = real(raw)
        seen.append(raw.autocommit)
        return answer

    monkeypatch.setattr(pool, "ping", ping)
    for _ in range(3):
        backend_pid(wrapper)
    # Nor do they flip autocommit.
    assert seen == [True] * 2 * pings


@pytest.mark.parametrize("engine", PINGING)
def test_what_the_server_has_closed_is_replaced_unseen(make, observer, engine):
    settings = copy.deepcopy(PINGING[engine])
    settings.setdefault("OPTIONS", {})["policy"] = {"check_idle": 0}
    wrapper = make(engine, **settings)
    first = backend_pid(wrapper)
    kill(observer, first)
    assert backend_pid(wrapper) != first
    assert at_rest(wrapper)


def plain_pool(wrapper, **options):
    """One of code that knows nothing of Django."""

    def create():
        factory = {"row_factory": dict_row} if Driver.dbapi.__name__ == "psycopg" else {}
        return Driver.dbapi.connect(**parameters, client_encoding="LATIN1", **factory)

    def dict_row(cursor):
        return lambda values: dict(enumerate(values))

    names = ("dbname", "user", "password", "host", "port")
    told = wrapper.get_connection_params()
    parameters = {name: told[name] for name in names if name in told}
    pool = QueuePool(create, pool_size=1, max_overflow=0, timeout=5, **options)
    pool_container.put(wrapper.alias, pool)
    return pool


def pool_of_its_engine(wrapper):
    engine = load_backend("dj_db_conn_pool.backends.postgresql")
    options = {"POOL_SIZE": 1, "MAX_OVERFLOW": 0}
    settings = {**wrapper.settings_dict, "POOL_OPTIONS": options}
    other = engine.DatabaseWrapper(settings, wrapper.alias)
    with other.cursor() as cursor:
        cursor.execute("SELECT 1")
    other.close()


@pytest.fixture(params=[plain_pool, pool_of_its_engine])
def adopted(request, make):
    """An alias for which the container has a pool that other code has put there."""
    wrapper = make(DJ, alias="adopted", TIME_ZONE="Africa/Nairobi")
    request.param(wrapper)
    theirs = pool_container.get("adopted")
    connections["adopted"] = wrapper
    yield wrapper
    assert wrapper.pool is theirs
    Item.objects.using("adopted").all().delete()
    wrapper.close()
    theirs.dispose()
    del connections["adopted"], pool_container["adopted"]


def test_a_pool_of_other_code_has_connections_for_django(adopted):
    items = Item.objects.using("adopted")
    items.create(name="10 €")
    when = dt.datetime(2000, 1, 1, 12, tzinfo=dt.timezone.utc)
    items = items.annotate(data=Value({"a": [1]}, JSONField()), when=Value(when, DateTimeField()))
    expected = [(each.name, {"a": [1]}, when) for each in items]
    assert expected == [("10 €", {"a": [1]}, when)]
    rows = items.values_list("name", "data", "when")
    assert list(rows) == list(rows.iterator()) == expected
    assert rows.get()[2].utcoffset() == dt.timedelta(hours=3)
    for _ in range(2):
        with adopted.cursor() as cursor:
            cursor.callproc("abs", [-3])
            assert cursor.fetchone() == (3,)
            # Its session is restored afterwards.
            cursor.execute("SET statement_timeout = '8s'")
        adopted.close()
        assert rows.get() == expected[0]
    assert at_rest(adopted)


def test_rows_of_a_pool_of_other_code_outlive_their_connection(adopted):
    with adopted.cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 3)")
        adopted.pool.dispose()
        assert cursor.fetchall() == [(1,), (2,), (3,)]


def test_a_transaction_that_other_code_has_left_on_an_adopted_connection(make):
    wrapper = make(DJ, alias="adopted")
    pool = plain_pool(wrapper, reset_on_return=None)
    try:
        with closing(pool.connect()) as proxy:
            execute(proxy.driver_connection, "CREATE TABLE never_made (a int)")
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT to_regclass('never_made')")
            assert cursor.fetchone() == (None,)
        assert at_rest(wrapper)
    finally:
        wrapper.close_pool()
        pool.dispose()
