"""I4, I7: outside a transaction the lease covers the statement, and only that."""

import datetime as dt

import pytest
from django.db import OperationalError, ProgrammingError, connection, connections
from testapp.models import Item

from ..support import driver
from ..support.pools import at_rest, backend_pid, stats
from ..support.threads import in_thread


def test_connection_is_back_when_execute_returns(db):
    cursor = db.cursor()
    cursor.execute("SELECT 1")
    assert at_rest(db)
    assert cursor.fetchall() == [(1,)]


@driver.needs("psycopg", "results of each of several statements")
def test_several_results_stay_readable_while_another_uses_the_connection(db, make):
    cursor = db.cursor()
    cursor.execute("SELECT generate_series(1, 3) AS n; SELECT 'second'")
    # The pool has one connection: this statement runs on that of `cursor`.
    with db.cursor() as other:
        other.execute("SELECT 'other'")
        assert cursor.description[0].name == "n"
        assert cursor.rowcount == 3
        assert cursor.fetchone() == (1,)
        assert cursor.fetchmany(1) == [(2,)]
        assert list(cursor) == [(3,)]
        assert cursor.nextset()
        assert cursor.fetchall() == [("second",)]
        assert other.fetchall() == [("other",)]


def test_results_stay_readable_while_another_uses_the_connection(db):
    cursor = db.cursor()
    cursor.execute("SELECT generate_series(1, 3) AS n")
    with db.cursor() as other:
        other.execute("SELECT 'other'")
        assert cursor.description[0].name == "n"
        assert cursor.rowcount == 3
        assert cursor.fetchone() == (1,)
        assert cursor.fetchmany(1) == [(2,)]
        assert list(cursor) == [(3,)]
        assert other.fetchall() == [("other",)]


def test_results_stay_readable_when_the_connection_is_closed(make):
    """By the pool, at any moment: it is too old, or one too many, or it broke for another."""
    wrapper = make()
    cursors = [wrapper.cursor() for _ in range(5)]
    for cursor in cursors:
        cursor.execute("SELECT generate_series(1, 3) AS n")
    wrapper.close_pool()
    one, many, every, some, none = cursors
    assert one.fetchone() == (1,)
    assert many.fetchmany(2) == [(1,), (2,)]
    assert many.fetchmany(2) == [(3,)]
    assert every.fetchall() == [(1,), (2,), (3,)]
    assert list(some) == [(1,), (2,), (3,)]
    assert none.description[0].name == "n"
    assert none.rowcount == 3
    none.close()
    with pytest.raises(Exception, match="closed"):
        none.fetchone()


def test_executemany_and_callproc(db):
    with db.cursor() as cursor:
        cursor.executemany("SELECT %s", [(1,), (2,)])
        assert at_rest(db)
        assert cursor.callproc("abs", [-3]) == [-3]
        assert at_rest(db)
        assert cursor.fetchall() == [(3,)]


@driver.needs("psycopg2", "parameters of procedures by name")
def test_callproc_by_name(db):
    with db.cursor() as cursor:
        cursor.callproc("make_interval", {"days": 2, "hours": 1})
        assert at_rest(db)
        assert cursor.fetchall() == [(dt.timedelta(days=2, hours=1),)]


def test_execute_can_be_chained_as_with_psycopg(db):
    assert db.cursor().execute("SELECT 1").fetchone() == (1,)
    assert at_rest(db)


def test_one_cursor_takes_a_new_lease_for_each_statement(db):
    with db.cursor() as cursor:
        for number in range(3):
            cursor.execute("SELECT %s", [number])
            assert cursor.fetchone() == (number,)
            assert at_rest(db)


def test_a_failed_statement_gives_the_connection_back(db):
    with db.cursor() as cursor:
        with pytest.raises(ProgrammingError, match="no_such_table"):
            cursor.execute("SELECT * FROM no_such_table")
        assert at_rest(db)
        cursor.execute("SELECT 1")


def test_cursor_takes_no_connection(db):
    with db.cursor() as cursor:
        assert at_rest(db)
        assert cursor.description is None
        assert cursor.rowcount == -1
        assert not cursor.closed
        assert at_rest(db)
    assert cursor.closed


def test_closed_cursor_refuses_in_the_drivers_words(db):
    cursor = db.cursor()
    cursor.close()
    with pytest.raises(Exception, match=driver.CURSOR_CLOSED):
        cursor.execute("SELECT 1")
    assert at_rest(db)


def test_fetching_before_a_statement_fails_in_the_drivers_words(db):
    with db.cursor() as cursor, pytest.raises(ProgrammingError, match=driver.NO_RESULT):
        cursor.fetchone()


@driver.needs("psycopg", "row factories")
def test_settings_of_the_drivers_cursor_survive_its_replacement(db):
    with db.cursor() as cursor:
        cursor.cursor.row_factory = driver.dbapi.rows.dict_row
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchone() == {"one": 1}
        with db.cursor() as other:
            other.execute("SELECT 1")
        cursor.execute("SELECT 2 AS two")
        assert cursor.fetchone() == {"two": 2}


@driver.needs("psycopg2", "a time zone for each cursor")
def test_the_time_zone_of_the_drivers_cursor_survives_its_replacement(db):
    zone = dt.timezone(dt.timedelta(hours=5))
    with db.cursor() as cursor:
        cursor.cursor.tzinfo_factory = lambda offset: zone
        for _ in range(2):
            cursor.execute("SELECT now()")
            assert cursor.fetchone()[0].tzinfo is zone
            with db.cursor() as other:
                other.execute("SELECT now()")
                assert other.fetchone()[0].tzinfo is dt.timezone.utc


@driver.needs("psycopg2", "cursor.query")
def test_the_query_of_a_statement_that_did_not_run(db, settings_debug):
    """Django's log of queries asks for it, also of a statement that found no connection."""
    backend_pid(db)
    db.close_pool()
    with db.wrap_database_errors, db.cursor() as cursor:
        assert cursor.query is None
        assert at_rest(db)
        cursor.execute("SELECT %s", [1])
        assert cursor.query == b"SELECT 1"
        assert at_rest(db)


def test_a_logged_statement_that_finds_no_connection_waits_for_it_once(make):
    """Django's log asks the driver's cursor what it ran."""
    keeper = make("logged", timeout=0.2)

    def wait():
        other = keeper.copy()
        other.force_debug_cursor = True
        with pytest.raises(OperationalError), other.cursor() as cursor:
            cursor.execute("SELECT 1")

    with keeper.temporary_connection():
        before = stats(keeper).waits
        in_thread(wait)
        assert stats(keeper).waits == before + 1


def test_statements_through_the_inner_cursor_are_leased_too(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.cursor.execute("SELECT 2")
        assert at_rest(db)
        assert cursor.fetchone() == (2,)


def test_orm(db):
    item = Item.objects.create(name="orm")
    assert at_rest(db)
    assert Item.objects.get(pk=item.pk).name == "orm"
    assert at_rest(db)
    item.delete()
    assert at_rest(db)


def test_debug_cursor(db, settings_debug):
    with db.cursor() as cursor:
        cursor.execute("SELECT %s", [7])
    assert db.queries[-1]["sql"] == "SELECT 7"
    assert at_rest(db)


def test_two_wrappers_share_one_connection(make):
    first, second = make("shared"), make("shared")
    assert backend_pid(first) == backend_pid(second)


def test_ensure_connection_lasts_to_the_next_statement(db):
    db.ensure_connection()
    raw = db.connection
    assert raw.info.backend_pid
    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert at_rest(db)


def test_connect_and_close(db):
    db.connect()
    assert db.connection is not None
    db.close()
    assert at_rest(db)


def test_is_usable_follows_django(db):
    db.close()
    assert not db.is_usable()  # never connected
    backend_pid(db)
    assert db.is_usable()
    assert at_rest(db)


def test_server_version_and_temporary_connection_hold_nothing(db):
    db.__dict__.pop("pg_version", None)
    assert db.pg_version >= 130000
    with db.temporary_connection() as cursor:
        assert db.connection is not None
        cursor.execute("SELECT 1")
        assert db.connection is not None
    assert at_rest(db)


def test_mogrify_and_sql_composition_hold_nothing(db):
    assert str(db.ops.compose_sql("SELECT %s", ["x"])) == "SELECT 'x'"
    assert at_rest(db)


def test_a_setting_of_the_drivers_cursor_can_be_changed_back(db):
    with db.cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 5)")
        assert cursor.cursor.arraysize == 1
        cursor.cursor.arraysize = 3
        assert cursor.fetchmany() == [(1,), (2,), (3,)]


def test_no_connection_can_be_put_into_a_wrapper(db):
    with pytest.raises(AttributeError, match="relet leases connections"):
        db.connection = object()


def test_commit_and_rollback_of_a_wrapper_that_never_connected(make):
    wrapper = make()
    wrapper.commit()
    wrapper.rollback()
    assert at_rest(wrapper)


def test_async_code_is_told_to_use_a_thread(db):
    import asyncio

    from django.core.exceptions import SynchronousOnlyOperation

    async def query():
        db.cursor()

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(query())


def test_the_inner_cursor_is_a_context_manager_and_iterable(db):
    with db.cursor().cursor as cursor:
        cursor.execute("SELECT generate_series(1, 2)")
        assert list(cursor) == [(1,), (2,)]
    assert cursor.closed


def test_execute_wrappers_see_the_statement(db):
    seen = []

    def wrapper(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with db.execute_wrapper(wrapper), db.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert seen == ["SELECT 1"]


def test_default_alias_is_what_django_hands_out(db):
    assert connections["default"] is db
    assert connection.vendor == "postgresql"


@pytest.fixture
def settings_debug():
    from django.test import override_settings

    with override_settings(DEBUG=True):
        yield
