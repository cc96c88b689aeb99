"""Creating, cloning, mirroring and dropping test databases, whoever has a pool on them."""

import pytest
from django.db import connections

from relet.backends.pools import pools

from ..support.pools import backend_pid


@pytest.fixture
def wrapper(make):
    return make("scratch", size=2)


def exists(observer, name):
    sql = "SELECT 1 FROM pg_database WHERE datname = %s"
    return observer.execute(sql, [name]).fetchone() is not None


def create(wrapper, name):
    with wrapper._nodb_cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    wrapper.close()
    wrapper.settings_dict["NAME"] = name


def test_a_changed_name_gets_a_pool_of_its_own(wrapper, observer):
    backend_pid(wrapper)
    create(wrapper, "relet_scratch")
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == ("relet_scratch",)
    wrapper.creation._destroy_test_db("relet_scratch", verbosity=0)
    assert not exists(observer, "relet_scratch")


def test_drop_closes_the_pools_of_other_aliases_too(wrapper, make, observer):
    create(wrapper, "relet_mirrored")
    backend_pid(wrapper)
    mirror = make("mirror", size=2)
    mirror.creation.set_as_test_mirror(wrapper.settings_dict)
    backend_pid(mirror)
    wrapper.creation._destroy_test_db("relet_mirrored", verbosity=0)
    assert not exists(observer, "relet_mirrored")


def test_clone(wrapper, observer):
    create(wrapper, "relet_source")
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE here (n int)")
    wrapper.settings_dict["TEST"]["NAME"] = "relet_source"
    wrapper.creation._clone_test_db("1", verbosity=0)
    try:
        settings = wrapper.creation.get_test_db_clone_settings("1")
        clone = type(wrapper)({**wrapper.settings_dict, "NAME": settings["NAME"]}, "scratch")
        with clone.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM here")
            assert cursor.fetchone() == (0,)
    finally:
        wrapper.creation._destroy_test_db(settings["NAME"], verbosity=0)
        wrapper.creation._destroy_test_db("relet_source", verbosity=0)
    assert not exists(observer, "relet_source")


def test_copies_share_the_pool(make):
    wrapper = make("copied")
    copy = wrapper.copy()
    assert copy.pool is wrapper.pool
    assert backend_pid(copy) == backend_pid(wrapper)
    other = wrapper.copy(alias="another")
    try:
        assert other.pool is not wrapper.pool
    finally:
        pools.close_alias("another")


def test_ensure_timezone(make):
    wrapper = make("zone")

    def zone():
        with wrapper.cursor() as cursor:
            cursor.execute("SHOW TimeZone")
            return cursor.fetchone()[0]

    assert zone() == "UTC"
    wrapper.settings_dict["TIME_ZONE"] = "Asia/Tokyo"
    del wrapper.timezone, wrapper.timezone_name
    wrapper.ensure_timezone()
    assert zone() == "Asia/Tokyo"


def test_ensure_timezone_inside_a_transaction(make):
    wrapper = make("zone")
    wrapper.set_autocommit(False)
    pid = backend_pid(wrapper)
    wrapper.settings_dict["TIME_ZONE"] = "Asia/Tokyo"
    del wrapper.timezone, wrapper.timezone_name
    assert wrapper.ensure_timezone()
    with wrapper.cursor() as cursor:
        cursor.execute("SHOW TimeZone")
        assert cursor.fetchone() == ("Asia/Tokyo",)
    assert backend_pid(wrapper) == pid
    wrapper.rollback()


def test_nodb_cursor_is_beside_any_pool(wrapper):
    before = len(list(pools))
    with wrapper._nodb_cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == ("postgres",)
    assert len(list(pools)) == before


def test_testcase_holds_one_connection_for_the_whole_test(db):
    """What django.test.TestCase does, on a pool of one."""
    from django.db import transaction
    from testapp.models import Item

    outer = transaction.atomic()
    outer._from_testcase = True
    outer.__enter__()
    try:
        Item.objects.create(name="fixture")
        with transaction.atomic(durable=True):
            Item.objects.create(name="test")
        assert Item.objects.count() == 2
    finally:
        transaction.set_rollback(True)
        outer.__exit__(None, None, None)
    assert Item.objects.count() == 0
    assert connections["default"].connection is None
